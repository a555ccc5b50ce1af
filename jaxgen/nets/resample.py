"""Half and twice the resolution, without parameters and before a convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.kernels import backend
from jaxgen.nets.conv import Conv, conv


def halve(x: jax.Array) -> jax.Array:
    """Means of 2×2 blocks: [B, 2H, 2W, C] → [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def double(x: jax.Array) -> jax.Array:
    """Each pixel four times: [B, H, W, C] → [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


class DoubleConv(Conv):
    """`double`, and then `Conv`: [B, H, W, C] → [B, 2H, 2W, features], if its stride and padding keep the size.

    On a CPU a plain 3×3 layer never makes the large image: each quarter of the output's pixels sees 2×2 small ones,
    through the sums of the kernel's weights that fall on one pixel. 4/9 of the arithmetic.
    """

    def correlate(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The layer without its bias."""
        if backend() != "cpu" or (self.kernel_size, self.stride, self.padding) != (3, 1, "SAME"):
            return conv(double(x), kernel, self.stride, self.padding)
        batch, height, width, _ = x.shape
        # Of two equal pixels side by side, the left one's window falls on the small pixels before and at it as 1 + 2
        # weights, the right one's on those at and after it as 2 + 1.
        halves = lambda a, b, c: (jnp.stack([a, b + c]), jnp.stack([a + b, c]))
        rows = []
        for i, upright in enumerate(halves(*kernel)):  # [2, 3, C, O]
            row = [
                conv(x, small.swapaxes(0, 1), padding=((1 - i, i), (1 - j, j)))
                for j, small in enumerate(halves(*upright.swapaxes(0, 1)))  # [2, 2, C, O], columns first
            ]
            rows.append(jnp.stack(row, 3))
        return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, -1)
