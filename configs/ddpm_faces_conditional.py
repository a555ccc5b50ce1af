"""Diffusion on the bundled 16×16 faces that can be asked for: smiling, long hair, glasses, a hat, colours.

Run: python train.py configs/ddpm_faces_conditional.py --workdir runs/ddpm_faces_conditional
Time: 67 minutes on 2 CPU cores that had other work as well; 36 at the 9.3 steps/s that it does alone
Expect: the judge reads what was asked for in 98.5 % (smiling) to 100 % (hat); see docs/diffusion.md
Then: python sample.py runs/ddpm_faces_conditional --condition smiling=1,glasses=1 --out asked.png
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        condition=("attribute",),
        net=UNetConfig(width=48, multipliers=(1, 2), attention_resolutions=(8,)),
        optimizer=AdamWConfig(learning_rate=2e-3, warmup_steps=50, decay_steps=20_000),
        sample=SampleConfig(sampler="ancestral", variance="beta", steps=150, noise_scale=1.12, guidance=2.0),
    ),
    data=Images("faces"),
    train=TrainConfig(steps=20_000, batch_size=32, log_every=100, sample_every=2000, eval_every=2000, save_every=2000),
)
