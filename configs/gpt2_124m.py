"""GPT-2 small (Radford et al. 2019), 124 million parameters, on a folder of text: the recipe of its reproductions.

Data: .jsonl or .txt files of web text in data/openwebtext, GPT-2's vocab.json and merges.txt in data/gpt2
Run: python train.py configs/gpt2_124m.py --workdir runs/gpt2_124m
Expect: nanoGPT's README reports a loss of about 2.85 nats a token on OpenWebText with nearly these options (480 rows a
step, a least rate of a tenth). Not run here: it needs accelerators. The batch of 512 rows, half a million tokens,
splits over any divisor of it; --method.accumulate takes it in parts where memory is short.
"""

from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Text
from jaxgen.language import gpt
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=gpt.Config(
        net=TransformerConfig(
            num_layers=12, width=768, num_heads=12, context=1024, vocab_multiple=128, dtype="bfloat16"
        ),
        num_tokens=50257,
        optimizer=AdamWConfig(6e-4, warmup_steps=2000, decay_steps=600_000, b2=0.95, weight_decay=0.1),
    ),
    data=Text("folder:data/openwebtext", "data/gpt2", length=1024, validation=0.0005),
    train=TrainConfig(
        steps=600_000, batch_size=512, log_every=10, sample_every=5000, eval_every=5000, save_every=5000, num_samples=8
    ),
    mesh=MeshConfig(data=-1),
)
