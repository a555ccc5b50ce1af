"""A Llama of 1.1 billion parameters, the shape of TinyLlama (Zhang et al. 2024, arXiv 2401.02385), on 22 B tokens.

Data: .jsonl or .txt files of text in data/text, a Llama tokenizer.json in data/llama
Run: python train.py configs/llama_1b.py --workdir runs/llama_1b
Expect: not run here: it needs accelerators, 8 or more. The tokens are Chinchilla's 20 a parameter; the paper goes on to
three trillion. `jaxgen plan configs/llama_1b.py --devices 64 --device-kind v5e` tells time and memory.
"""

from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Text
from jaxgen.language import gpt
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=gpt.Config(
        net=TransformerConfig(
            num_layers=22,
            width=2048,
            num_heads=32,
            num_kv_heads=4,
            hidden=5632,
            context=2048,
            positions="rotary",
            norm="rms",
            activation="swiglu",
            bias=False,
            tied=False,
            dtype="bfloat16",
            remat=True,
        ),
        num_tokens=32_000,
        optimizer=AdamWConfig(4e-4, warmup_steps=500, decay_steps=10_500, b2=0.95, weight_decay=0.1),
    ),
    data=Text("folder:data/text", "data/llama", length=2048, validation=0.0005),
    train=TrainConfig(
        steps=10_500, batch_size=1024, log_every=10, sample_every=500, eval_every=500, save_every=500, num_samples=8
    ),
    mesh=MeshConfig(data=-1, fsdp=8),
)
