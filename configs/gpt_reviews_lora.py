"""The task of gpt_classifier_reviews with LoRA: the GPT of gpt_speeches stays, adapters and a head are trained.

Run: python train.py configs/gpt_speeches.py && python train.py configs/gpt_reviews_lora.py
Time and figures: not measured yet; eval/accuracy is of held-out reviews, to be read beside gpt_classifier_reviews.
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import classify, lora
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=lora.Config(
        base=classify.Config(TransformerConfig(num_layers=4, width=256, num_heads=4, context=256, dropout=0.1)),
        rank=8,
        targets=("blocks/attention/", "blocks/mlp/"),
        whole=("^head/",),
        optimizer=AdamWConfig(1e-3, warmup_steps=50, decay_steps=800, b2=0.95),
    ),
    data=Text("reviews", "bpe:2048@speeches", length=128, packing="none", label="sentiment"),
    train=TrainConfig(steps=800, batch_size=32, log_every=20, sample_every=0, eval_every=200, save_every=400),
    init_from={"pretrained": "runs/gpt_speeches:params"},
)
