"""A variational autoencoder of the bundled faces, with a discretised-logistic decoder.

Run: python train.py configs/vae_faces.py --workdir runs/vae_faces
Time: 17 minutes on one CPU core
Expect: eval/bits_per_dim/bound 4.17, the ELBO; …/bound/k=16, the importance weighted bound, 4.14
"""

from jaxgen.autoencoders import vae
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=vae.Config(
        code=64,
        net=AutoencoderConfig("conv", widths=(16, 32, 64, 128)),
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=100, decay_steps=4000),
    ),
    data=Images("faces"),
    train=TrainConfig(steps=4000, batch_size=64, log_every=50, sample_every=1000, eval_every=1000, save_every=1000),
)
