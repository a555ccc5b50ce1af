"""A mixture of experts in a perceptron's place: a router sends each token to a few of many (Shazeer et al. 2017).

  y = Σ_{i in the k largest of p} g_i f_i(x),   p = softmax(R x),   g = p, or p over the sum of the k,

the latter as in Mixtral (Jiang et al. 2024, arXiv 2401.04088), the former as in Switch (Fedus et al. 2021, arXiv
2101.03961) and GShard (Lepikhin et al. 2020, arXiv 2006.16668). Two terms for the loss come out beside y: balance E Σ_i
f_i P_i, with f_i the share of the assignments that expert i gets and P_i its mean probability (Switch, equations 4 to
6), 1 at the least where both are even; and z, the mean of log² Σ exp of the router's logits (Zoph et al. 2022, arXiv
2202.08906). Without the first most tokens soon go to the same few experts.

With a `capacity` c an expert takes in training at most ⌈c k T / E⌉ tokens of each row of T, left before right; what
comes too late skips the layer. Shapes are then static, rows independent, and experts can lie on different devices.
Elsewhere there is a place for every token, so that what is evaluated is what generates. Without a capacity no token is
dropped ever: assignments are sorted by expert for `jax.lax.ragged_dot`, which a CPU carries out as every expert's
product with every token.

Deviations: groups are rows (GShard's are parts of a batch), whose packed documents share the places in training; no
first choices before second ones (GShard), by which a token's layer would hang on those that it must predict; no noise
in the router; padding is not routed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxgen.sharding import BATCH, LAYERS, Rule, constrain


@dataclass(frozen=True)
class MoeConfig:
    """A mixture of experts."""

    num_experts: int = 1
    """E, perceptrons of each block; 1 for a single one without a router."""
    top_k: int = 2
    """k, experts of each token."""
    normalize: bool = True
    """Whether the weights of a token's experts sum to 1 (Mixtral), or are the router's probabilities (Switch)."""
    capacity: float | None = None
    """c, places of an expert in training as a multiple of an even share; tokens beyond are dropped. None drops none."""
    balance_weight: float = 0.01
    """Weight of the balance term in the loss."""
    z_weight: float = 0.001
    """Weight of the term that keeps the router's logits small."""


class Terms(NamedTuple):
    """What a mixture says of a batch, scalars: terms of the loss, nats of the entropy of f, share that was dropped."""

    balance: jax.Array
    z: jax.Array
    entropy: jax.Array
    dropped: jax.Array


def check_moe(cfg: MoeConfig) -> None:
    """Raises a ValueError where `cfg` contradicts itself."""
    for fine, message in (
        (cfg.num_experts >= 1, f"num_experts={cfg.num_experts} must be 1 or more"),
        (cfg.num_experts == 1 or 1 <= cfg.top_k <= cfg.num_experts, f"top_k={cfg.top_k} must be 1 … num_experts"),
        (cfg.capacity is None or cfg.capacity > 0, f"capacity={cfg.capacity} must be above 0, or None"),
        (min(cfg.balance_weight, cfg.z_weight) >= 0, "balance_weight and z_weight must be 0 or more"),
    ):
        if not fine:
            raise ValueError(f"net.moe.{message}")


def route(logits: jax.Array, cfg: MoeConfig) -> tuple[jax.Array, jax.Array]:
    """The k best experts of each token, int [B, T, k], the best first, and their weights, of logits [B, T, E]."""
    gate, expert = jax.lax.top_k(jax.nn.softmax(logits), cfg.top_k)
    return expert, gate / gate.sum(-1, keepdims=True) if cfg.normalize else gate


def places(expert: jax.Array, counts: jax.Array, num_experts: int, size: int) -> jax.Array:
    """The place of each assignment among the E · size of its row, int [B, T, k]; E · size where there is none.

    Tokens take places from left to right: none depends on those behind it.

    Args:
      expert: int [B, T, k], each token's experts, the best first.
      counts: [B, T], 1 for a token that takes places, 0 for padding.
      num_experts: E.
      size: places of an expert.
    """
    batch, length, k = expert.shape
    hot = jax.nn.one_hot(expert, num_experts, dtype=jnp.int32) * counts.astype(jnp.int32)[..., None, None]
    before = jnp.cumsum(hot.reshape(batch, length * k, num_experts), 1).reshape(hot.shape) - hot
    place = (before * hot).sum(-1)
    kept = (place < size) & (counts > 0)[..., None]
    return jnp.where(kept, expert * size + place, num_experts * size)


def terms(logits: jax.Array, expert: jax.Array, counts: jax.Array, kept: jax.Array) -> Terms:
    """The terms of a batch: logits [B, T, E], expert [B, T, k], counts [B, T], and which assignments [B, T, k] stay."""
    num, k = logits.shape[-1], expert.shape[-1]
    total = jnp.maximum(counts.sum(), 1.0)
    load = (jax.nn.one_hot(expert, num).sum(2) * counts[..., None]).sum((0, 1)) / (k * total)
    mean = (jax.nn.softmax(logits) * counts[..., None]).sum((0, 1)) / total
    z = (jnp.square(jax.nn.logsumexp(logits, -1)) * counts).sum() / total
    dropped = 1 - (kept * counts[..., None]).sum() / (k * total)
    return Terms(num * (load * mean).sum(), z, jax.scipy.special.entr(load).sum(), dropped)


def rules() -> tuple[Rule, ...]:
    """How `tensor` splits a scanned mixture: whole experts; `fsdp` splits each of them."""
    return (
        ("blocks/moe/(up|gate)/kernel", P(LAYERS, "tensor", "fsdp", None)),
        ("blocks/moe/down/kernel", P(LAYERS, "tensor", None, "fsdp")),
        ("blocks/moe/(up|gate|down)/bias", P(LAYERS, "tensor", None)),
    )


class Stack(nn.Module):
    """A dense layer's parameters for each of E experts: kernel [E, inputs, outputs], bias [E, outputs] or None."""

    shape: tuple[int, int, int]
    use_bias: bool
    kernel_init: Any
    dtype: Any

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        """The parameters."""
        kernel = self.param("kernel", self.kernel_init, self.shape).astype(self.dtype)
        zeros = nn.initializers.zeros
        return kernel, self.param("bias", zeros, self.shape[::2]).astype(self.dtype) if self.use_bias else None


class Experts(nn.Module):
    """The layer, [B, T, D] → [B, T, D] and its `Terms`; `activation`, `bias` and `dtype` as a transformer has them."""

    config: MoeConfig
    hidden: int
    activation: str
    bias: bool
    dtype: Any
    kernel_init: Any
    down_init: Any

    @nn.compact
    def __call__(self, x: jax.Array, counts: jax.Array, train: bool = False) -> tuple[jax.Array, Terms]:
        """Applies it to each token of x that counts [B, T] (1, or 0 for padding, of which 0 is made)."""
        cfg, width = self.config, x.shape[-1]
        router = nn.Dense(cfg.num_experts, use_bias=False, kernel_init=self.kernel_init, name="router")
        logits = router(x.astype(jnp.float32))
        expert, gate = route(logits, cfg)
        gate = (gate * counts[..., None]).astype(self.dtype)

        def stack(name: str, inputs: int, outputs: int, init: Any) -> tuple[jax.Array, jax.Array | None]:
            return Stack((cfg.num_experts, inputs, outputs), self.bias, init, self.dtype, name=name)()

        up = stack("up", width, self.hidden, self.kernel_init)
        glu = stack("gate", width, self.hidden, self.kernel_init) if self.activation == "swiglu" else None
        down = stack("down", self.hidden, width, self.down_init)

        def perceptrons(x: jax.Array, times: Callable[..., jax.Array]) -> jax.Array:
            h = times(x, *up)
            if glu:
                h = nn.silu(times(x, *glu)) * h
            else:
                h = nn.gelu(h, approximate=self.activation == "gelu")
            return times(h, *down)

        if cfg.capacity is None:
            y = _sorted(x.astype(self.dtype), expert, gate, cfg.num_experts, perceptrons)
            kept = jnp.ones(expert.shape)
        else:
            size = x.shape[1]
            if train:
                size = min(size, math.ceil(cfg.capacity * cfg.top_k * size / cfg.num_experts))
            place = places(expert, counts, cfg.num_experts, size)
            kept = (place < cfg.num_experts * size).astype(jnp.float32)
            y = _placed(x.astype(self.dtype), place, gate, cfg.num_experts, size, perceptrons)
        return y, terms(logits, expert, counts, kept)


def _sorted(x: jax.Array, expert: jax.Array, gate: jax.Array, num: int, perceptrons: Any) -> jax.Array:
    """Σ_k gate · expert(x) over assignments sorted by expert."""
    k, flat = expert.shape[-1], expert.reshape(-1)
    order = jnp.argsort(flat)
    sizes, sorted_experts = jnp.bincount(flat, length=num), flat[order]

    def times(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        y = jax.lax.ragged_dot(x, kernel, sizes)
        return y if bias is None else y + bias[sorted_experts]

    y = perceptrons(x.reshape(-1, x.shape[-1])[order // k], times)
    y = y[jnp.argsort(order)].reshape(*expert.shape, -1)  # back in the order of the tokens
    return (y * gate[..., None]).sum(2)


def _placed(x: jax.Array, place: jax.Array, gate: jax.Array, num: int, size: int, perceptrons: Any) -> jax.Array:
    """Σ_k gate · expert(x) over places [B, E, size]; an assignment without one adds nothing."""
    batch, length, width = x.shape
    k = place.shape[-1]
    flat, token = place.reshape(batch, -1), jnp.arange(length * k) // k
    empty = jnp.full((batch, num * size + 1), length)
    at = empty.at[jnp.arange(batch)[:, None], flat].set(jnp.broadcast_to(token[None], flat.shape))[:, :-1]
    take = lambda x, index: jnp.take_along_axis(jnp.pad(x, ((0, 0), (0, 1), (0, 0))), index[..., None], 1)
    layout = P(BATCH[0], "tensor")

    def times(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        y = constrain(jnp.einsum("becd,edh->bech", x, kernel), layout)
        return y if bias is None else y + bias[None, :, None]

    y = perceptrons(constrain(take(x, at).reshape(batch, num, size, width), layout), times)
    y = take(constrain(y.reshape(batch, num * size, width)), flat).reshape(batch, length, k, width)
    return (y * gate[..., None]).sum(2)
