"""Half and twice the resolution, without parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def halve(x: jax.Array) -> jax.Array:
    """Means of 2×2 blocks: [B, 2H, 2W, C] → [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def double(x: jax.Array) -> jax.Array:
    """Each pixel four times: [B, H, W, C] → [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)
