"""Non-negative factors of a file of ratings, lines of user,item,rating: recommendations for each user.

Run: python train.py configs/nmf_ratings.py --workdir runs/mine --data.path ratings.csv
"""

from jaxgen.classical import nmf
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Ratings

config = Experiment(
    method=nmf.Config(num_parts=8, l2=0.1),
    data=Ratings(),
    train=TrainConfig(steps=300, batch_size=1024, log_every=25, sample_every=0, eval_every=25, save_every=100),
)
