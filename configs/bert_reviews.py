"""Positive or negative film reviews, told apart by the BERT of bert_speeches, all of it fine-tuned.

Run: python train.py configs/bert_speeches.py && python train.py configs/bert_reviews.py
Time and figures: not measured yet; eval/accuracy is of held-out reviews. --data.few 200 learns from 200 labels;
`python -m benchmarks.bert_labels` compares that with no pre-training, over 5 seeds.
"""

import dataclasses

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import finetune
from jaxgen.nets.bert import BERT
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=finetune.Config(
        task="text",
        net=dataclasses.replace(BERT, num_layers=4, width=256, num_heads=4, context=128),
        optimizer=AdamWConfig(1e-4, warmup_steps=50, decay_steps=800, weight_decay=0.01),
    ),
    data=Text("reviews", "wordpiece:8192@speeches", length=64, packing="none", label="sentiment"),
    train=TrainConfig(steps=800, batch_size=32, log_every=20, sample_every=0, eval_every=200, save_every=400),
    init_from={"pretrained": "runs/bert_speeches:params"},
)
