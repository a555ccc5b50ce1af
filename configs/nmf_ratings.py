"""Non-negative factors of a file of ratings, lines of user,item,rating: recommendations for each user.

Run: python train.py configs/nmf_ratings.py --workdir runs/mine --data.path ratings.csv --train.steps STEPS
Steps: a factor moves when an epoch ends, every 0.81 · lines / batch_size steps, and it takes about 20 such updates: for
    a million lines --train.steps 2000 --train.batch-size 8192. The metric `updates` counts them.
Time: 11 seconds on 2 CPU cores that had other work, for the synthetic ratings that stand in where no path is given
Expect: eval/loss, the squared error of held-out ratings, of 0.0034 for those (an RMSE of 0.059; their noise is 0.05)
"""

from jaxgen.classical import nmf
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Ratings

config = Experiment(
    method=nmf.Config(num_parts=8, l2=0.1),
    data=Ratings(),
    train=TrainConfig(steps=300, batch_size=1024, log_every=25, sample_every=0, eval_every=25, save_every=100),
)
