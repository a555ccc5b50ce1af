"""Differentiable augmentation of what the critic sees (Zhao et al. 2020, arXiv 2006.10738).

Real and generated images alike are changed at random before the critic, in its own step and in the generator's: the
critic of a small data set then has no copies to remember, and the generator, taught through the change, does not learn
to draw it. The policies are the paper's: `color` (brightness ±½, saturation 0…2, contrast ½…1½), `translation` (up to
an eighth of each side, black moves in) and `cutout` (a square of half of each side becomes grey, wherever its centre
falls).

Deviations: pixels that move in are black, −1, as the ground of most small sets is, where the authors' code has grey; a
shift is a product with a matrix of zeros and ones, which every device has fast gradients of.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

Policy = Literal["color", "translation", "cutout"]
NUM_UNIFORMS = 7


def color(x: jax.Array, u: jax.Array) -> jax.Array:
    """x [B, H, W, C] brighter or darker, less or more saturated and contrasted, by u [B, 3] in [0, 1)."""
    brightness, saturation, contrast = (u[:, i, None, None, None] for i in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(3, keepdims=True)
    x = grey + 2.0 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdims=True)
    return mean + (0.5 + contrast) * (x - mean)


def _integers(u: jax.Array, low: int, high: int) -> jax.Array:
    """Uniform whole numbers low … high from u in [0, 1)."""
    return low + jnp.floor(u * (high - low + 1)).astype(jnp.int32)


def translation(x: jax.Array, u: jax.Array) -> jax.Array:
    """x [B, H, W, C] moved by up to an eighth of each side, by u [B, 2] in [0, 1); −1 moves in."""

    def shift(size: int, u: jax.Array) -> jax.Array:
        """Matrices [B, size, size] of which row i takes pixel i + offset."""
        offset, place = _integers(u, -round(size / 8), round(size / 8)), jnp.arange(size)
        return (place[None, :, None] + offset[:, None, None] == place[None, None, :]).astype(x.dtype)

    moved = jnp.einsum("bij,bjwc->biwc", shift(x.shape[1], u[:, 0]), x + 1.0)
    return jnp.einsum("bij,bhjc->bhic", shift(x.shape[2], u[:, 1]), moved) - 1.0


def cutout(x: jax.Array, u: jax.Array) -> jax.Array:
    """x [B, H, W, C] with a grey rectangle of half of each side about a centre drawn by u [B, 2]."""

    def inside(size: int, u: jax.Array) -> jax.Array:
        half = size // 2
        first = _integers(u, 0, size - half % 2) - half // 2
        place = jnp.arange(size)[None]
        return (place >= first[:, None]) & (place < first[:, None] + half)

    rows, columns = inside(x.shape[1], u[:, 0]), inside(x.shape[2], u[:, 1])
    return x * ~(rows[:, :, None] & columns[:, None, :])[..., None]


def augment(x: jax.Array, u: jax.Array, policies: tuple[Policy, ...]) -> jax.Array:
    """x [B, H, W, C] in [-1, 1] through the `policies`, by u [B, NUM_UNIFORMS] in [0, 1)."""
    x = color(x, u[:, 0:3]) if "color" in policies else x
    x = translation(x, u[:, 3:5]) if "translation" in policies else x
    return cutout(x, u[:, 5:7]) if "cutout" in policies else x
