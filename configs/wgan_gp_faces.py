"""WGAN with a gradient penalty on the bundled 16×16 faces.

Run: python train.py configs/wgan_gp_faces.py --workdir runs/wgan_gp_faces
Time: 52 minutes on one CPU core beside other work, 0.28 s a step where it has a core to itself
Expect: Fréchet distance 62 of 2000 samples, where real test images have 6.8 and a Gaussian of the pixels 214;
eval/wasserstein, an estimate of the distance of held-out images, of pixels in [-1, 1], of 3.27
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
        gen=GeneratorConfig("resnet", widths=(96, 64), norm="batch"),
        critic=CriticConfig(widths=(96, 192)),
        gen_optimizer=PlayerConfig(learning_rate=1e-4, b1=0.0, b2=0.9, decay_steps=9000),
        critic_optimizer=PlayerConfig(learning_rate=3e-4, b1=0.0, b2=0.9, decay_steps=9000),
        penalty="two_sided",
        penalty_weight=10.0,
    ),
    data=Images("faces", validation=960),
    train=TrainConfig(steps=9000, batch_size=64, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
