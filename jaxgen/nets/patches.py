"""Blocks of pixels as one pixel with more channels, and back."""

from __future__ import annotations

import jax


def squeeze(x: jax.Array, size: int = 2) -> jax.Array:
    """[B, H, W, C] → [B, H/size, W/size, C·size²]: each block becomes one pixel (Dinh et al. 2017, 1605.08803, 3.6)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height // size, width // size, channels * size**2)


def unsqueeze(x: jax.Array, size: int = 2) -> jax.Array:
    """The inverse of `squeeze`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // size**2, size, size).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, size * height, size * width, channels // size**2)
