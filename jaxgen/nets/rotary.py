"""Rotary positions (Su et al. 2021, arXiv 2104.09864) as Llama has them: numbers i and i + H/2 of a head are a pair."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def frequencies(dim: int, theta: float = 10_000.0, scaling: tuple[float, ...] = ()) -> np.ndarray:
    """The angles [dim/2] by which the pairs of a head turn from one position to the next, θ^(−2i/dim).

    Args:
      dim: the length H of a head's vectors.
      theta: θ.
      scaling: factor, low, high, context of Llama 3.1 (Grattafiori et al. 2024, arXiv 2407.21783, section 3.2, in the
        form of its code): waves longer than context / low are stretched by the factor, those shorter than context /
        high are left alone, those between are mixed.
    """
    rates = theta ** (-np.arange(0, dim, 2) / dim)
    if not scaling:
        return rates
    factor, low, high, context = scaling
    share = np.clip((context * rates / (2 * math.pi) - low) / (high - low), 0, 1)  # of the unstretched rate
    return share * rates + (1 - share) * rates / factor


def rotary_angles(positions: jax.Array, rates: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [B, T, 1, H/2] of positions int [B, T]."""
    angles = positions[..., None, None].astype(jnp.float32) * jnp.asarray(rates, jnp.float32)[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotated(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """x [B, T, N, H], each pair (i, i + H/2) turned by its angle."""
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
