"""Diffusion on the bundled 28×28 Fashion-MNIST: shirts, trousers, shoes and bags.

Run: python train.py configs/ddpm_fashion.py --workdir runs/ddpm_fashion
Time: 17 minutes on 2 busy CPU cores (1.3 M parameters)
Expect: eval/loss (the squared error of v, held out) of 0.150
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        net=UNetConfig(width=32, multipliers=(1, 2, 3), attention_resolutions=(7,)),
        optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=50, decay_steps=1500),
    ),
    data=Images("fashion"),
    train=TrainConfig(steps=1500, batch_size=64, log_every=25, sample_every=500, eval_every=500, save_every=500),
)
