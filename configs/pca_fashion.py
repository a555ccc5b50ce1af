"""PCA of the bundled Fashion-MNIST: the covariance in one pass over the images.

Run: python train.py configs/pca_fashion.py --workdir runs/pca_fashion
Time: 11 seconds on 2 CPU cores that had other work
Expect: eval/unexplained, the share of the held-out variance that 64 components lose, of 0.1165
"""

from jaxgen.classical import pca
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images

config = Experiment(
    method=pca.Config(num_components=64),
    data=Images("fashion", validation=784),
    train=TrainConfig(
        steps=9, batch_size=1024, log_every=1, sample_every=9, eval_every=9, save_every=9, num_samples=36
    ),
)
