"""Denoising autoencoders (Vincent et al. 2008): encode a corrupted image, reconstruct the clean one.

  L(θ) = E_x E_{x̃ ~ q(x̃ | x)} ‖x − g(f(x̃))‖² / D

For little Gaussian noise of variance σ² the optimum is g(f(x)) = x + σ² ∇ log p(x) (Alain & Bengio 2014, arXiv
1211.4246): the way back to the manifold of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.autoencoders import ae
from jaxgen.config import check_choice
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec

Noise = Literal["gaussian", "mask", "salt_pepper"]


@dataclass(frozen=True)
class Config(ae.Config):
    """Denoising autoencoder."""

    noise: Noise = "gaussian"
    """`gaussian` is added; `mask` blackens pixels; `salt_pepper` makes them black or white."""
    amount: float = 0.3
    """Standard deviation of `gaussian` noise, of pixels in [0, 1]; the share of the pixels that the others change."""


def corrupted(keys: jax.Array, x: jax.Array, noise: Noise, amount: float) -> jax.Array:
    """x̃ [B,H,W,C] from x [B,H,W,C] in [0, 1] and a key for each image, [B]; a pixel's channels change together.

    Gaussian noise is not clipped: it is that of the theory.
    """
    if noise == "gaussian":
        return x + amount * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
    u = jax.vmap(lambda key: jax.random.uniform(key, (*x.shape[1:3], 1)))(keys)
    if noise == "mask":
        return jnp.where(u < amount, 0.0, x)
    return jnp.where(u < 0.5 * amount, 0.0, jnp.where(u < amount, 1.0, x))


def make(cfg: Config, spec: Spec) -> Method:
    """A denoising autoencoder of the images of `spec`; see `ae.build`.

    Raises:
      ValueError: an unknown noise, an amount out of range, and see `ae.build`.
    """
    check_choice("method.noise", cfg.noise, get_args(Noise))
    most = float("inf") if cfg.noise == "gaussian" else 1.0
    if not 0 <= cfg.amount <= most:
        raise ValueError(f"method.amount={cfg.amount} must be 0 or more, and at most 1 for the noises of single pixels")
    return ae.build(cfg, spec, corrupt=lambda keys, x: corrupted(keys, x, cfg.noise, cfg.amount))
