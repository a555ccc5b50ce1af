"""A small GPT on 200 State of the Union addresses: 3.7 million parameters, 2.4 million tokens of a BPE of its own.

Run: python train.py configs/gpt_speeches.py --workdir runs/gpt_speeches
Time: 105 minutes on one CPU core beside other work, 97 at its rate alone
Expect: 1.405 bits a byte of the test addresses, where contexts of six bytes take 1.523 and xz 1.754
With --method.core lstm --workdir runs/lstm_speeches the recurrent network of as many parameters.
"""

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text
from jaxgen.language import gpt
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=gpt.Config(
        net=TransformerConfig(num_layers=4, width=256, num_heads=4, context=256, dropout=0.1),
        optimizer=AdamWConfig(1e-3, warmup_steps=200, decay_steps=2400, b2=0.95, weight_decay=0.1),
        sample=SampleConfig(length=200, temperature=0.8, top_p=0.95),
    ),
    data=Text("speeches", "bpe:2048", length=256),
    train=TrainConfig(
        steps=2400, batch_size=16, log_every=20, sample_every=1200, eval_every=600, save_every=600, num_samples=8
    ),
)
