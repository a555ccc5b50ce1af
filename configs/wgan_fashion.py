"""WGAN with clipped weights (algorithm 1 of the paper) on the bundled 28×28 Fashion-MNIST.

Run: python train.py configs/wgan_fashion.py --workdir runs/wgan_fashion
Time and figures: not measured yet; eval/wasserstein is an estimate by a critic scaled to a mean slope of 1
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import wgan
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig

# Twice the paper's rate: an hour has a tenth of its steps.
rate = PlayerConfig("rmsprop", learning_rate=1e-4, b2=0.99)
config = Experiment(
    method=wgan.Config(
        code=64,
        num_critic=5,
        gen=GeneratorConfig("resnet", widths=(64, 32), norm="batch"),
        critic=CriticConfig(widths=(64, 128), norm="batch"),
        gen_optimizer=rate,
        critic_optimizer=rate,
        penalty="none",
        clip=0.01,
    ),
    data=Images("fashion", validation=480),
    train=TrainConfig(steps=5000, batch_size=160, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
