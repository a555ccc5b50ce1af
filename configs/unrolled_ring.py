"""An unrolled GAN on eight Gaussians on a circle of radius 2 (σ = 0.02), that looks five steps of the critic ahead.

Run: python train.py configs/unrolled_ring.py --workdir runs/unrolled_ring
Time and figures: not measured yet; eval/class_coverage is the share of the data whose Gaussian is found
Without looking ahead: --method.num-unrolled 0 --workdir runs/not_unrolled
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Toy
from jaxgen.gans import unrolled
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig

config = Experiment(
    method=unrolled.Config(
        loss="non_saturating",
        code=64,
        num_unrolled=5,
        gen=GeneratorConfig("mlp", widths=(128, 128), norm="none", activation="tanh"),
        critic=CriticConfig("mlp", widths=(128, 128), activation="tanh"),
        gen_optimizer=PlayerConfig(learning_rate=1e-3, b1=0.5),
        critic_optimizer=PlayerConfig(learning_rate=1e-4, b1=0.5, eps_root=1e-8),
        ema_decay=0.0,
    ),
    data=Toy("ring", size=51_200, noise=0.01, scale=2.0),
    train=TrainConfig(
        steps=4000,
        batch_size=128,
        log_every=50,
        sample_every=500,
        eval_every=500,
        save_every=500,
        num_samples=1000,
        steps_per_call=10,
    ),
)
