"""k-means on the bundled Fashion-MNIST: ten centroids, mean garments.

Run: python train.py configs/kmeans_fashion.py --workdir runs/kmeans_fashion
Time: 16 seconds on 2 CPU cores that had other work
Expect: stops by itself after 50 iterations of Lloyd's algorithm, at a loss (inertia an image) of 31.92
"""

from jaxgen.classical import kmeans
from jaxgen.config import Experiment, Rule, TrainConfig
from jaxgen.data import Images

config = Experiment(
    method=kmeans.Config(num_clusters=10),
    data=Images("fashion", validation=784),
    train=TrainConfig(
        steps=100,
        batch_size=9216,
        log_every=1,
        sample_every=25,
        eval_every=10,
        save_every=50,
        num_samples=10,
        rules=(Rule("shift", below=1e-4),),
    ),
)
