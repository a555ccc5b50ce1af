"""DCGAN on the bundled 28×28 Fashion-MNIST: strided layers as the paper's, augmented for a small data set.

Run: python train.py configs/dcgan_fashion.py --workdir runs/dcgan_fashion
Time and figures: not measured yet; eval/js is a loose lower bound of the Jensen-Shannon divergence of images as they
are (the critic has seen changed ones alone), eval/class_coverage says which classes it kept
"""

from jaxgen.config import Experiment, Rule, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import gan
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig

rate = PlayerConfig(learning_rate=2e-4, b1=0.5, b2=0.999, decay_steps=12_000)
config = Experiment(
    method=gan.Config(
        loss="non_saturating",
        code=64,
        gen=GeneratorConfig(widths=(128, 64), norm="batch"),
        critic=CriticConfig(widths=(64, 128), norm="batch"),
        gen_optimizer=rate,
        critic_optimizer=rate,
        augment=("translation", "cutout"),
    ),
    data=Images("fashion", validation=512),
    train=TrainConfig(
        steps=12_000,
        batch_size=64,
        log_every=50,
        sample_every=1000,
        eval_every=1000,
        save_every=1000,
        rules=(Rule("eval/duplicates", above=0.5, patience=3),),
    ),
)
