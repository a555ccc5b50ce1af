"""Diffusion on the bundled 16×16 faces: hair, eyes, mouth and clothes after 500 steps.

Run: python train.py configs/ddpm_faces.py --workdir runs/ddpm_faces
Time: 4.5 minutes on 2 CPU cores (1.2 M parameters)
Expect: eval/loss (the squared error of v, held out) of 0.143
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        net=UNetConfig(width=48, multipliers=(1, 2), attention_resolutions=(8,)),
        optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=50, decay_steps=5000),
    ),
    data=Images("faces"),
    train=TrainConfig(steps=5000, batch_size=64, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
