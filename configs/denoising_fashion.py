"""A denoising autoencoder of the bundled Fashion-MNIST: 30 % of the pixels are black or white, and are to be cleaned.

Run: python train.py configs/denoising_fashion.py --workdir runs/denoising_fashion
Time: 12 minutes on one CPU core
Expect: eval/loss 0.0119, the squared error after cleaning; eval/error 0.0108, that of clean pictures
"""

from jaxgen.autoencoders import denoising
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=denoising.Config(
        code=64,
        noise="salt_pepper",
        amount=0.3,
        net=AutoencoderConfig("conv", widths=(16, 32, 64)),
        optimizer=AdamWConfig(learning_rate=2e-3, warmup_steps=50, decay_steps=2000),
    ),
    data=Images("fashion", validation=784),
    train=TrainConfig(steps=2000, batch_size=64, log_every=50, sample_every=500, eval_every=500, save_every=500),
)
