"""Codes of the faces that wgan_gp_faces draws: arithmetic with attributes, and pictures completed; needs that run.

Run: python train.py configs/inversion_faces.py --workdir runs/inversion_faces
Time: 18 minutes on one CPU core beside other work, and python -m jaxgen.gans.flips runs/inversion_faces five
Expect: of 200 faces long hair flipped in 93 % and glasses in 83 %, smiling in 61 %; others kept in 85, 84 and 91 %
Then: python sample.py runs/inversion_faces --condition glasses=1 --num 8 --out glasses.png
      python sample.py runs/inversion_faces --known test --mask right --num 8 --out completed.png
      python sample.py runs/inversion_faces --known test --seen whole --condition smiling=1 --num 8 --out smiling.png
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import inversion
from jaxgen.gans.networks import GeneratorConfig
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=inversion.Config(
        code=64,
        gen=GeneratorConfig("resnet", widths=(96, 64), norm="batch"),
        encoder=AutoencoderConfig("conv", widths=(32, 64, 128)),
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=100, decay_steps=4000),
    ),
    data=Images("faces"),
    train=TrainConfig(steps=4000, batch_size=64, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
    init_from={"gan": "runs/wgan_gp_faces:ema"},
)
