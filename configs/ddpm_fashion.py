"""Diffusion on the bundled 28×28 Fashion-MNIST: shirts, trousers, shoes and bags.

Run: python train.py configs/ddpm_fashion.py --workdir runs/ddpm_fashion
Time: 49 minutes on one CPU core of two, both of which had other work as well (1.3 M parameters)
Expect: eval/loss (the squared error of v, held out) of 0.151; a Fréchet distance of 48 of 1000 samples, where real test
images have 7.6 and a Gaussian of the pixels 332
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        net=UNetConfig(width=32, multipliers=(1, 2, 3), attention_resolutions=(7,)),
        optimizer=AdamWConfig(learning_rate=2e-3, warmup_steps=100, decay_steps=3500),
    ),
    data=Images("fashion"),
    train=TrainConfig(steps=3500, batch_size=32, log_every=50, sample_every=500, eval_every=500, save_every=500),
)
