"""A convolutional autoencoder of the bundled Fashion-MNIST, 64 numbers a code: as many as PCA's.

Run: python train.py configs/ae_fashion.py --workdir runs/ae_fashion
Time: 11 minutes on one CPU core
Expect: eval/error 0.0070, the squared error of an unseen picture; pca_fashion, with as many numbers a code, has 0.0104
"""

from jaxgen.autoencoders import ae
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ae.Config(
        code=64,
        net=AutoencoderConfig("conv", widths=(16, 32, 64)),
        optimizer=AdamWConfig(learning_rate=2e-3, warmup_steps=50, decay_steps=2000),
    ),
    data=Images("fashion", validation=784),
    train=TrainConfig(steps=2000, batch_size=64, log_every=50, sample_every=500, eval_every=500, save_every=500),
)
