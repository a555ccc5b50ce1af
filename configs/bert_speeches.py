"""A small BERT on 200 State of the Union addresses: masked words, and which text follows which; 5.4 million parameters.

Run: python train.py configs/bert_speeches.py --workdir runs/bert_speeches
Then: python sample.py runs/bert_speeches --num 1 --prompt "the [MASK] of the united states"
Time and figures: not measured yet; meant for an hour on two CPU cores. eval/mlm_loss is of held-out addresses.
"""

import dataclasses

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import bert
from jaxgen.nets.bert import BERT
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=bert.Config(
        net=dataclasses.replace(BERT, num_layers=4, width=256, num_heads=4, context=128),
        optimizer=AdamWConfig(5e-4, warmup_steps=250, decay_steps=2500, weight_decay=0.01),
    ),
    data=Text("speeches", "wordpiece:8192", length=128, packing="pairs"),
    train=TrainConfig(
        steps=2500, batch_size=32, log_every=20, sample_every=1250, eval_every=500, save_every=500, num_samples=8
    ),
)
