"""Positive or negative film reviews, told apart by the GPT of gpt_speeches, fine-tuned with its own loss beside.

Run: python train.py configs/gpt_speeches.py && python train.py configs/gpt_classifier_reviews.py
Time and figures: not measured yet; eval/accuracy is of held-out reviews. `python -m benchmarks.gpt1_ablation` compares
it with no pre-training, no auxiliary loss and an LSTM.
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import classify
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=classify.Config(
        net=TransformerConfig(num_layers=4, width=256, num_heads=4, context=256, dropout=0.1),
        optimizer=AdamWConfig(3e-4, warmup_steps=50, decay_steps=800, b2=0.95, weight_decay=0.1),
    ),
    data=Text("reviews", "bpe:2048@speeches", length=128, packing="none", label="sentiment"),
    train=TrainConfig(steps=800, batch_size=32, log_every=20, sample_every=0, eval_every=200, save_every=400),
    init_from={"pretrained": "runs/gpt_speeches:params"},
)
