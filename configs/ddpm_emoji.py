"""Diffusion from words to the bundled 32×32 emoji: captions and tags, and the category.

Run: python train.py configs/ddpm_emoji.py --workdir runs/ddpm_emoji
Time: 97 minutes at 0.86 steps/s on one CPU core, beside other work
Expect: eval/loss (the squared error of v, held out) of 0.099; samples that follow a caption in kind, outline and
colour, asked for in the captions' form; of a run that saw captions whole, where training
now shows a part (docs/diffusion.md)
Then: python sample.py runs/ddpm_emoji --prompt "cat face animal kitten kitty pet" --guidance 2 --num 16 --out emoji.png
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        condition=("tokens", "label"),
        condition_dropout=0.15,
        net=UNetConfig(width=32, multipliers=(1, 2, 3), attention_resolutions=(8,)),
        optimizer=AdamWConfig(learning_rate=2e-3, warmup_steps=100, decay_steps=5000),
        sample=SampleConfig(guidance=3.0),
    ),
    data=Images("emoji"),
    train=TrainConfig(steps=5000, batch_size=32, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
