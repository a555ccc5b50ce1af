"""The same GPT-2 in ours, in transformers and in plain PyTorch: 4 layers, width 256, 4 heads, 2048 tokens."""

from __future__ import annotations

from benchmarks.program import Program
from benchmarks.training import step_facts, torch_facts, torch_training, training

LAYERS, WIDTH, HEADS, VOCAB, LENGTH, BATCH = 4, 256, 4, 2048, 256, 8
PROMPT, NEW = 32, 128  # tokens of a prompt, and tokens written


def jaxgen_method(rank: int = 0):
    """The method, and the description of its data; with a rank that of LoRA, of all matrices but q, k and v."""
    from jaxgen import catalog
    from jaxgen.data.dataset import Spec
    from jaxgen.language import gpt, lora
    from jaxgen.language.sampling import SampleConfig
    from jaxgen.nets.transformer import TransformerConfig
    from jaxgen.optimizer import AdamWConfig

    net = TransformerConfig(num_layers=LAYERS, width=WIDTH, num_heads=HEADS, context=LENGTH)
    shapes = {"tokens": (LENGTH,), "segment": (LENGTH,)}
    spec = Spec(shapes, dict.fromkeys(shapes, "int32"), {"train": 1000}, {}, {"tokens": (VOCAB,)}, tokenizer="bytes")
    sample = SampleConfig(length=NEW, top_k=50)
    config = gpt.Config(net, num_tokens=VOCAB, optimizer=AdamWConfig(), sample=sample)
    targets = ("attention/out/kernel$", "mlp/")
    return catalog.make(lora.Config(config, rank, 2.0 * rank, targets) if rank else config, spec), spec


def jaxgen_train(rank: int = 0) -> Program:
    """One training step of ours, as the trainer compiles it: loss, gradients, clipping, AdamW; of LoRA with a rank."""
    import numpy as np

    method, spec = jaxgen_method(rank)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    run, state = training(method, spec, {"tokens": tokens, "segment": np.ones_like(tokens)})
    return Program(run, lambda: step_facts(method, state, spec.batch(BATCH, method.reads)))


def jaxgen_generate(batch: int) -> Program:
    """Continuations by ours, the whole loop one compiled program; the token that ends a text is taken for no end."""
    import jax
    import numpy as np

    from jaxgen import backend
    from jaxgen.config import TrainConfig
    from jaxgen.language import gpt
    from jaxgen.language.generate import generate
    from jaxgen.language.sampling import SampleConfig
    from jaxgen.nets.transformer import TransformerConfig

    backend.prepare(TrainConfig(compilation_cache=""))
    net = gpt.make_core("transformer", TransformerConfig(LAYERS, WIDTH, HEADS, context=LENGTH), VOCAB)
    params = jax.jit(net.init)(jax.random.key(0))
    prompt = np.random.default_rng(0).integers(0, VOCAB, (batch, PROMPT)).astype(np.int32)
    cfg = SampleConfig(length=NEW, top_k=50)
    write = jax.jit(lambda params, key: generate(net, params, jax.numpy.asarray(prompt), key, cfg, (-1,)))
    return Program(lambda: jax.block_until_ready(write(params, jax.random.key(1))))


def transformers_model():
    """GPT-2 of transformers, without dropout."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=LENGTH,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def transformers_train() -> Program:
    """The same step of transformers."""
    model = transformers_model()
    return _torch_step(model, lambda tokens: model(tokens, labels=tokens).loss)


def peft_train(rank: int) -> Program:
    """The step of LoRA by PEFT; the parameters are those that are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["c_proj", "c_fc"], fan_in_fan_out=True)
    model = get_peft_model(transformers_model(), config)
    program = _torch_step(model, lambda tokens: model(input_ids=tokens, labels=tokens).loss)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Program(program.run, lambda: {"parameters": count})


def transformers_generate(batch: int) -> Program:
    """Continuations by `generate` of transformers."""
    import torch

    model = transformers_model().eval()
    tokens = torch.randint(1, VOCAB, (batch, PROMPT))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": True, "top_k": 50, "pad_token_id": 0}
    mask = torch.ones_like(tokens)

    @torch.inference_mode()
    def run() -> None:
        model.generate(tokens, attention_mask=mask, **options)

    return Program(run)


def torch_train(compiled: bool) -> Program:
    """The same step of GPT-2 in plain PyTorch, attention by its fused kernel, without or with `torch.compile`."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            batch, length, _ = x.shape
            parts = self.qkv(self.norm_1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(batch, length, WIDTH))
            return x + self.down(functional.gelu(self.up(self.norm_2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LENGTH, WIDTH)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)

        def forward(self, tokens):
            x = self.tokens(tokens) + self.positions.weight
            for block in self.blocks:
                x = block(x)
            logits = self.norm(x) @ self.tokens.weight.T
            return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    torch.manual_seed(0)
    model = Model()
    return _torch_step(model, torch.compile(model) if compiled else model)


def _torch_step(model, loss_of) -> Program:
    import torch

    tokens = torch.randint(0, VOCAB, (BATCH, LENGTH))
    step, _ = torch_training(model, loss_of)
    return Program(lambda: step(tokens), lambda: torch_facts(model))
