"""Glow's architecture: levels of squeeze, steps of flow, and a split that hands half of the channels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.flows.layers import (
    Convolution,
    Coupling,
    Layer,
    actnorm,
    chain,
    convolution,
    coupling,
    repeat,
    squeeze,
    unsqueeze,
)
from jaxgen.nets.conv import Conv
from jaxgen.sharding import constrain


@dataclass(frozen=True)
class FlowConfig:
    """The flow's shape."""

    levels: int = 2
    """L, the scales: each halves an image's sides, and all but the last hand out half of their channels."""
    steps: int = 8
    """K, steps of flow in each level: actnorm, 1×1 convolution, coupling."""
    width: int = 64
    """Hidden channels of a coupling's network."""
    coupling: Coupling = "affine"
    """`affine`, `additive`, `spline` (rational-quadratic) or `none`, which leaves a linear map whatever the depth."""
    convolution: Convolution = "plain"
    """Whether 1×1 convolutions keep their matrix as it is, `plain`, or as its factors, `lu`."""
    min_scale: float = 0.5
    """The least factor of an affine coupling, below 1; 0 as the paper has it, whose samples may overflow."""
    bins: int = 8
    """Bins of a spline."""
    remat: bool = False
    """Whether the backward pass computes each step anew, to save memory."""


def check_flow(cfg: FlowConfig, shape: tuple[int, ...]) -> None:
    """Raises a ValueError for a flow that images [H, W, C] cannot pass; vectors are images [1, 1, D]."""
    check_choice("method.net.coupling", cfg.coupling, get_args(Coupling))
    check_choice("method.net.convolution", cfg.convolution, get_args(Convolution))
    for name, least in (("levels", 1), ("steps", 1), ("width", 1), ("bins", 2)):
        if getattr(cfg, name) < least:
            raise ValueError(f"method.net.{name}={getattr(cfg, name)} must be {least} or more")
    if not 0 <= cfg.min_scale < 1:
        raise ValueError(f"method.net.min_scale={cfg.min_scale} must lie in 0…1, and below 1")
    height, width, channels = shape
    if (height, width) == (1, 1):
        if channels < 2:
            raise ValueError(f"a flow needs vectors of 2 numbers or more, not {channels}: a coupling cuts them in two")
        if cfg.levels != 1:
            raise ValueError(f"method.net.levels={cfg.levels} must be 1 for vectors, which have no sides to halve")
    elif height % 2**cfg.levels or width % 2**cfg.levels:
        most = int(math.log2(math.gcd(height, width) & -math.gcd(height, width)))
        raise ValueError(
            f"method.net.levels={cfg.levels} does not fit images of {height}×{width}: each level halves both sides; "
            f"they divide {most} times"
        )


class SplitPrior(nn.Module):
    """Mean and log-scale of what a level hands out, from what goes on: a convolution that starts as zero."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C] → two of the same shape."""
        mean, log_std = jnp.split(Conv(2 * x.shape[-1], kernel_init=nn.initializers.zeros, name="conv")(x), 2, -1)
        return mean, log_std


def standard_normal(eps: Sequence[jax.Array]) -> jax.Array:
    """log N(ε; 0, I) of each example, over all parts [B, ...], in nats [B]."""
    parts = [jax.scipy.stats.norm.logpdf(part).reshape(part.shape[0], -1).sum(1) for part in eps]
    return jnp.stack(parts).sum(0)


class Flow:
    """A bijection of images x [B, H, W, C] and noise ε, a part for each level, finest first.

    The priors belong to it: the part z that a level hands out comes as ε = (z − μ(x')) / σ(x') with x' the other
    half (the last level's μ and σ are a channel's own), so that ε ~ N(0, I) under the model, log p(x) = log N(ε; 0, I)
    + log|det dε/dx|, and samples are the inverse of drawn ε.
    """

    def __init__(self, cfg: FlowConfig, shape: tuple[int, ...]):
        """A flow of images [H, W, C] of this `shape`; ValueError as `check_flow`."""
        check_flow(cfg, shape)
        self.cfg, self.shape = cfg, shape
        step = chain(
            actnorm=actnorm(),
            convolution=convolution(cfg.convolution),
            coupling=coupling(cfg.coupling, cfg.width, cfg.bins, cfg.min_scale),
        )
        self._steps = repeat(self._constrained(step), cfg.steps, cfg.remat)
        self._squeezes = shape[:2] != (1, 1)

    @staticmethod
    def _constrained(layer: Layer) -> Layer:
        return layer._replace(forward=lambda params, x: layer.forward(params, constrain(x)))

    def noise_shapes(self, num: int) -> list[tuple[int, ...]]:
        """Shapes of ε's parts for `num` images."""
        height, width, channels = self.shape
        shapes: list[tuple[int, ...]] = []
        for level in range(self.cfg.levels):
            if self._squeezes:
                height, width, channels = height // 2, width // 2, 4 * channels
            if level < self.cfg.levels - 1:
                channels //= 2
            shapes.append((num, height, width, channels))
        return shapes

    def init(self, key: jax.Array, x: jax.Array) -> dict[str, Any]:
        """Parameters, actnorm's from the batch x [B, H, W, C]."""
        params: dict[str, Any] = {}
        for level, key_level in enumerate(jax.random.split(key, self.cfg.levels)):
            key_steps, key_split = jax.random.split(key_level)
            x = squeeze(x) if self._squeezes else x
            params[f"steps_{level}"], x = self._steps.init(key_steps, x)
            if level < self.cfg.levels - 1:
                x = x[..., : x.shape[-1] // 2]
                params[f"prior_{level}"] = SplitPrior().init(key_split, x[:1])
        zeros = jnp.zeros(x.shape[-1:])
        return {**params, "prior": {"mean": zeros, "log_std": jnp.copy(zeros)}}

    def forward(self, params: Any, x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """x [B, H, W, C] → ε's parts and log|det dε/dx| [B], nats."""
        eps, total = [], jnp.zeros(x.shape[:1])
        for level in range(self.cfg.levels):
            x, log_det = self._steps.forward(params[f"steps_{level}"], squeeze(x) if self._squeezes else x)
            z, x, (mean, log_std) = self._prior(params, level, x)
            eps.append((z - mean) * jnp.exp(-log_std))
            total = total + log_det - jnp.broadcast_to(log_std, z.shape).sum((1, 2, 3))
        return eps, total

    def _prior(self, params: Any, level: int, x: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        """What the level hands out, what goes on (all and nothing, at the last), and the mean and log-scale."""
        if level == self.cfg.levels - 1:
            return x, x[..., :0], self._last_prior(params)
        x, z = jnp.split(x, 2, -1)
        return z, x, SplitPrior().apply(params[f"prior_{level}"], x)

    def _last_prior(self, params: Any) -> tuple[jax.Array, jax.Array]:
        return params["prior"]["mean"][None, None, None], params["prior"]["log_std"][None, None, None]

    def inverse(self, params: Any, eps: Sequence[jax.Array]) -> jax.Array:
        """The x [B, H, W, C] of ε."""
        mean, log_std = self._last_prior(params)
        x = eps[-1] * jnp.exp(log_std) + mean
        for level in reversed(range(self.cfg.levels)):
            if level < self.cfg.levels - 1:
                mean, log_std = SplitPrior().apply(params[f"prior_{level}"], x)
                x = jnp.concatenate([x, eps[level] * jnp.exp(log_std) + mean], -1)
            x = self._steps.inverse(params[f"steps_{level}"], constrain(x))
            x = unsqueeze(x) if self._squeezes else x
        return x

    def log_prob(self, params: Any, x: jax.Array) -> jax.Array:
        """log p(x) of x [B, H, W, C], by the change of variables, in nats [B]."""
        eps, log_det = self.forward(params, x)
        return standard_normal(eps) + log_det
