"""A transformer's block, and the options that make it GPT-2's (Radford et al. 2019), BERT's or Llama's.

  x ← x + attention(norm(x)),  x ← x + mlp(norm(x)),

or, with `post_norm`, x ← norm(x + …) (Vaswani et al. 2017, arXiv 1706.03762). Options: rotary positions (Su et al.
2021, arXiv 2104.09864), RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), SwiGLU (Shazeer 2020, arXiv 2002.05202),
grouped queries (Ainslie et al. 2023, arXiv 2305.13245), a sliding window (Beltagy et al. 2020, arXiv 2004.05150).

Deviation from GPT-2 and BERT in training: no dropout of attention weights, which a blocked attention never holds; the
embedding and the output of every part are dropped as in theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxgen.config import check_choice
from jaxgen.nets.attention import attend_cached, attention
from jaxgen.nets.dense import Dense
from jaxgen.nets.moe import Experts, MoeConfig, Terms, check_moe
from jaxgen.nets.rotary import rotated
from jaxgen.sharding import BATCH, constrain

Positions = Literal["learned", "rotary"]
Norm = Literal["layer", "rms"]
Activation = Literal["gelu", "gelu_exact", "swiglu"]
Precision = Literal["float32", "bfloat16"]
SPLIT = P(BATCH[0], None, "tensor")  # heads or hidden units, inside a block
STD = 0.02  # of initial weights; of those whose outputs the residual stream adds up, over √(2 · layers)
WEIGHTS = nn.initializers.normal(STD)


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a `Transformer`; the defaults are GPT-2's, small."""

    num_layers: int = 4
    """Blocks."""
    width: int = 256
    """D, the length of the vector of a token."""
    num_heads: int = 4
    """Heads of each attention."""
    num_kv_heads: int | None = None
    """Heads of its keys and values, a divisor of `num_heads`; None for as many."""
    head_size: int | None = None
    """Length of a head's vectors; None for width / num_heads."""
    hidden: int | None = None
    """Units of each perceptron; None for 4 · width."""
    context: int = 256
    """Tokens in a sequence at most, whether positions are learned or not."""
    positions: Positions = "learned"
    """`learned` adds a vector for each position, `rotary` turns queries and keys by it."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_scaling: tuple[float, ...] = ()
    """Llama 3.1's stretch of them to longer contexts: factor, low and high frequency factor, original context; () for
    none."""
    norm: Norm = "layer"
    """`layer` (mean and variance, scale and bias) or `rms` (root mean square, scale)."""
    post_norm: bool = False
    """Whether norms stand behind each sum, and one behind the embedding, as in BERT; else before each part and at the
    end, as in GPT-2."""
    epsilon: float = 1e-5
    """Added to variances and mean squares."""
    activation: Activation = "gelu"
    """Of the perceptrons: `gelu` (GPT-2's, with tanh), `gelu_exact` (BERT's), `swiglu` (with a gate)."""
    bias: bool = True
    """Whether dense layers add a bias."""
    qkv_bias: bool | None = None
    """Whether those of queries, keys and values do; None for as `bias`."""
    tied: bool = True
    """Whether the output layer is the token embedding."""
    causal: bool = True
    """Whether a token sees only itself and what stands before it."""
    window: int | None = None
    """A token sees itself and window - 1 before it; None for all."""
    num_types: int = 0
    """Types of tokens with an embedding each (BERT's first and second sentence); 0 for none."""
    vocab_multiple: int = 1
    """The embedding has so many rows or a multiple, unused ones at the end: 128 is faster on accelerators and lets
    `tensor` split odd vocabularies."""
    dropout: float = 0.0
    """Probability that a number of the embedding or of a part's output is dropped in training."""
    dtype: Precision = "float32"
    """What the blocks compute in; parameters, statistics and softmaxes stay float32."""
    moe: MoeConfig = MoeConfig()
    """Experts in the perceptrons' place, of `hidden` units each; none by default."""
    remat: bool = False
    """Whether the backward pass computes each block anew rather than keep it: less memory, more time."""

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_dim(self) -> int:
        """Length of a head's vectors."""
        return self.head_size or self.width // self.num_heads

    @property
    def hidden_units(self) -> int:
        """Units of each perceptron."""
        return self.hidden or 4 * self.width


def check_transformer(cfg: TransformerConfig) -> None:
    """Raises a ValueError where `cfg` contradicts itself."""
    check_moe(cfg.moe)
    for name, choices in (("positions", Positions), ("norm", Norm), ("activation", Activation), ("dtype", Precision)):
        check_choice(f"net.{name}", getattr(cfg, name), get_args(choices))
    for name in (
        "num_layers",
        "width",
        "num_heads",
        "context",
        "vocab_multiple",
        "kv_heads",
        "head_dim",
        "hidden_units",
    ):
        if getattr(cfg, name) < 1:
            raise ValueError(f"net.{name}={getattr(cfg, name)} must be 1 or more")
    for fine, message in (
        (cfg.head_size or cfg.width % cfg.num_heads == 0, f"num_heads={cfg.num_heads} must divide width={cfg.width}"),
        (cfg.num_heads % cfg.kv_heads == 0, f"num_kv_heads={cfg.kv_heads} must divide num_heads={cfg.num_heads}"),
        (cfg.positions == "learned" or cfg.head_dim % 2 == 0, f"rotary positions need even heads, not {cfg.head_dim}"),
        (cfg.window is None or (cfg.window >= 1 and cfg.causal), f"window={cfg.window} must be 1 or more, and causal"),
        (len(cfg.rope_scaling) in (0, 4), f"rope_scaling={cfg.rope_scaling} must be four numbers, or none"),
        (0 <= cfg.dropout < 1, f"dropout={cfg.dropout} must lie in [0, 1)"),
        (cfg.epsilon > 0, f"epsilon={cfg.epsilon} must be above 0"),
    ):
        if not fine:
            raise ValueError(f"net.{message}")


class Context(NamedTuple):
    """What all blocks know of the tokens.

    Attributes:
      segment: int [B, T], a token sees only those of its own number; None where all are one.
      angles: cosines and sines of the rotary positions, [B, T, 1, head_dim/2] each; None where they are learned.
    """

    segment: jax.Array | None
    angles: tuple[jax.Array, jax.Array] | None


class Slot(NamedTuple):
    """A block's cache while one token is added: keys and values [B, K, S, H], its place in S, and what is visible."""

    k: jax.Array
    v: jax.Array
    place: jax.Array
    visible: jax.Array


def make_norm(cfg: TransformerConfig, name: str | None = None) -> nn.Module:
    """The normalisation of `cfg`."""
    kind = nn.LayerNorm if cfg.norm == "layer" else nn.RMSNorm
    return kind(epsilon=cfg.epsilon, dtype=jnp.dtype(cfg.dtype), name=name)


def residual_weights(cfg: TransformerConfig) -> Any:
    """How a layer begins whose output is added to the residual stream."""
    return nn.initializers.normal(STD / (2 * cfg.num_layers) ** 0.5)


def to_residual(cfg: TransformerConfig, name: str) -> Dense:
    """A layer whose output is added to the residual stream."""
    return Dense(cfg.width, use_bias=cfg.bias, kernel_init=residual_weights(cfg), dtype=jnp.dtype(cfg.dtype), name=name)


class Attention(nn.Module):
    """Self-attention, [B, T, D] → [B, T, D], and the keys and values; see `Block`."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array, context: Context, slot: Slot | None = None) -> tuple[jax.Array, Any]:
        """Over x itself, or over a `slot` of the cache, T = 1; returns the slot's new arrays then."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        bias = cfg.bias if cfg.qkv_bias is None else cfg.qkv_bias

        def heads(num: int, name: str) -> jax.Array:
            layer = Dense(num * cfg.head_dim, use_bias=bias, kernel_init=WEIGHTS, dtype=dtype, name=name)
            return constrain(layer(x).reshape(*x.shape[:2], num, cfg.head_dim), SPLIT, num)

        q, k, v = heads(cfg.num_heads, "q"), heads(cfg.kv_heads, "k"), heads(cfg.kv_heads, "v")
        if context.angles is not None:
            q, k = rotated(q, *context.angles), rotated(k, *context.angles)
        if slot is None:
            out = attention(q, k, v, causal=cfg.causal, segment=context.segment, window=cfg.window)
            cached = k, v
        else:

            def put(old: jax.Array, new: jax.Array) -> jax.Array:
                new = new.swapaxes(1, 2).astype(old.dtype)
                return jax.lax.dynamic_update_slice_in_dim(old, new, slot.place, 2)

            cached = put(slot.k, k), put(slot.v, v)
            out = attend_cached(q[:, 0], *cached, slot.visible)[:, None]
        out = out.reshape(*x.shape[:2], -1)
        return to_residual(cfg, "out")(out), cached


class Mlp(nn.Module):
    """The perceptron of a block, [B, T, D] → [B, T, D]."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies it to each token."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        dense = lambda name: Dense(cfg.hidden_units, use_bias=cfg.bias, kernel_init=WEIGHTS, dtype=dtype, name=name)
        h = constrain(dense("up")(x), SPLIT)
        if cfg.activation == "swiglu":
            h = nn.silu(constrain(dense("gate")(x), SPLIT)) * h
        else:
            h = nn.gelu(h, approximate=cfg.activation == "gelu")
        return to_residual(cfg, "down")(h)


def make_experts(cfg: TransformerConfig) -> Experts:
    """The mixture that stands in the perceptron's place."""
    dtype = jnp.dtype(cfg.dtype)
    options = (cfg.activation, cfg.bias, dtype, WEIGHTS, residual_weights(cfg))
    return Experts(cfg.moe, cfg.hidden_units, *options, name="moe")


class Block(nn.Module):
    """One layer: attention, then a perceptron or experts, each with its norm and its residual connection."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, context: Context, slot: Slot | None = None, train: bool = False
    ) -> tuple[jax.Array, Any, Terms | None]:
        """x [B, T, D] → the same, the keys and values that attention saw, and the experts' terms where there are such.

        Dropout needs a `dropout` key.
        """
        cfg = self.config
        norms = make_norm(cfg, "norm_attention"), make_norm(cfg, "norm_mlp")
        drop = nn.Dropout(cfg.dropout, deterministic=not train)
        h, cached = Attention(cfg, name="attention")(x if cfg.post_norm else norms[0](x), context, slot)
        x = constrain(x + drop(h))
        x = norms[0](x) if cfg.post_norm else x
        h, terms = x if cfg.post_norm else norms[1](x), None
        if cfg.moe.num_experts == 1:
            h = Mlp(cfg, name="mlp")(h)
        else:
            counts = jnp.ones(x.shape[:2]) if context.segment is None else (context.segment > 0).astype(jnp.float32)
            h, terms = make_experts(cfg)(h, counts, train)
        x = constrain(x + drop(h))
        return (norms[1](x) if cfg.post_norm else x), cached, terms
