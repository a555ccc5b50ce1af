"""A contractive autoencoder of the bundled Fashion-MNIST, whose encoder knows the tangents of tangent_prop_fashion.

Run: python train.py configs/contractive_fashion.py --workdir runs/contractive_fashion
Time: a minute of one CPU core
Expect: eval/error (the squared error of unseen pictures) of 0.0129
"""

from jaxgen.autoencoders import contractive
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=contractive.Config(
        code=32,
        weight=0.1,
        net=AutoencoderConfig("dense", widths=(512, 256)),
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=50, decay_steps=2000, weight_decay=1e-2),
    ),
    data=Images("fashion", validation=784),
    train=TrainConfig(steps=2000, batch_size=128, log_every=50, sample_every=500, eval_every=500, save_every=500),
)
