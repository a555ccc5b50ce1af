"""The GPT of gpt_speeches with 8 experts of half its hidden units in each block, of which a token meets 2.

Run: python train.py configs/gpt_moe_speeches.py --workdir runs/gpt_moe_speeches
Time and figures: not measured yet. A token's parameters are those of gpt_speeches and the router's; its FLOPs too, but
for the quarter more of places that experts have. router/entropy is to stay above 0.9 ln 8 = 1.87.
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import gpt
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.moe import MoeConfig
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=gpt.Config(
        net=TransformerConfig(
            num_layers=4,
            width=256,
            num_heads=4,
            hidden=512,
            context=256,
            dropout=0.1,
            moe=MoeConfig(num_experts=8, top_k=2, capacity=1.25),
        ),
        optimizer=AdamWConfig(1e-3, warmup_steps=200, decay_steps=2400, b2=0.95, weight_decay=0.1),
        sample=SampleConfig(length=200, temperature=0.8, top_p=0.95),
    ),
    data=Text("speeches", "bpe:2048", length=256),
    train=TrainConfig(
        steps=2400, batch_size=16, log_every=20, sample_every=1200, eval_every=600, save_every=600, num_samples=8
    ),
)
