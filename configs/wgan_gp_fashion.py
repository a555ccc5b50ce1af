"""WGAN with a gradient penalty on the bundled 28×28 Fashion-MNIST.

Run: python train.py configs/wgan_gp_fashion.py --workdir runs/wgan_gp_fashion
Time and figures: not measured yet; eval/wasserstein estimates the distance of held-out images, of pixels in [-1, 1]
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import wgan
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig

# One descent each, the critic three times as fast (Heusel et al. 2017, arXiv 1706.08500), in place of five to one.
config = Experiment(
    method=wgan.Config(
        code=64,
        num_critic=1,
        gen=GeneratorConfig("resnet", widths=(64, 32), norm="batch"),
        critic=CriticConfig(widths=(64, 128)),
        gen_optimizer=PlayerConfig(learning_rate=1e-4, b1=0.0, b2=0.9, decay_steps=8000),
        critic_optimizer=PlayerConfig(learning_rate=3e-4, b1=0.0, b2=0.9, decay_steps=8000),
        penalty="two_sided",
        penalty_weight=10.0,
    ),
    data=Images("fashion", validation=512),
    train=TrainConfig(steps=8000, batch_size=64, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
