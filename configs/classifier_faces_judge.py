"""The judge of `faces`: reads smiling, hair, glasses, hat and the rest; another network than the one that measures.

Run: python train.py configs/classifier_faces_judge.py --workdir runs/classifier_faces_judge
Time: 7 minutes on 2 busy CPU cores
Expect: 99.5 % of the test images read right for smiling, 99.6 % long hair, 100 % glasses and hat, 93.9 % beard
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.metrics import classifier
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=classifier.Config(
        target="attribute",
        widths=(48, 96, 64),
        num_features=96,
        dropout=0.2,
        noise=0.05,
        shift=0,  # a pixel decides whether a mouth smiles
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=50, decay_steps=1200, weight_decay=1e-3),
    ),
    data=Images("faces"),
    train=TrainConfig(steps=1200, batch_size=128, seed=1, log_every=50, sample_every=0, eval_every=400, save_every=400),
)
