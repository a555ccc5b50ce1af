"""Correlation of images with a kernel at stride 1, in forms that a CPU is fast at; `nets.conv` has its gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]
"""`((top, bottom), (left, right))`; negative numbers cut."""

DIMS = ("NHWC", "HWIO", "NHWC")
_MANY = 128  # channels from which on products are faster than XLA's kernels for windows of 2×2
_VECTOR = 16  # numbers in a vector of the processor


def correlation(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """x [B,H,W,C] and kernel [h,w,C,O] → [B,H',W',O], H' = H + top + bottom - h + 1."""
    height, width, channels, features = kernel.shape
    if (height, width) == (1, 1) and not any(map(any, pads)):
        return x @ kernel[0, 0]
    if features < _VECTOR and height * width * features <= 2 * channels:
        return _narrow(x, kernel, pads)
    if height * width <= 4 and channels >= _MANY and not any(map(any, pads)):  # as a strided one has it
        return _placewise(x, kernel)
    if channels == 1:
        return _shifted_sum(x, kernel, pads)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=DIMS)


def _placewise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`correlation` without padding as a product for each place of the window, added up."""
    height, width, channels, features = kernel.shape
    batch, rows, columns = len(x), x.shape[1] - height + 1, x.shape[2] - width + 1
    exact = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.zeros((), exact)
    for i in range(height):
        for j in range(width):
            part = x[:, i : i + rows, j : j + columns].reshape(-1, channels)
            total += jnp.matmul(part, kernel[i, j], preferred_element_type=exact)
    return total.astype(x.dtype).reshape(batch, rows, columns, features)


def _narrow(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """`correlation` to few features, for which XLA's kernels waste most of a vector: one product, its columns added up.

    Each pixel gives its share of all the outputs whose window it is in; shares are shifted to where they belong.
    """
    height, width, channels, features = kernel.shape
    batch, rows, columns, _ = x.shape
    exact = jnp.promote_types(x.dtype, jnp.float32)
    shares = x.astype(exact).reshape(-1, channels) @ kernel.astype(exact).transpose(2, 0, 1, 3).reshape(channels, -1)
    shares = shares.reshape(batch, rows, columns, height, width, features)
    total = jnp.zeros((), exact)
    for i in range(height):
        for j in range(width):
            (top, bottom), (left, right) = pads
            edges = [(top - i, bottom + i - height + 1, 0), (left - j, right + j - width + 1, 0)]
            total += jax.lax.pad(shares[:, :, :, i, j], jnp.zeros((), exact), [(0, 0, 0), *edges, (0, 0, 0)])
    return total.astype(x.dtype)


def _shifted_sum(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """`correlation` of images of one channel, for which XLA's kernels are slow: one pass, an offset after the other."""
    height, width = kernel.shape[:2]
    exact = jnp.promote_types(x.dtype, jnp.float32)
    x_pad = jax.lax.pad(x.astype(exact), jnp.zeros((), exact), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    rows, columns = x_pad.shape[1] - height + 1, x_pad.shape[2] - width + 1
    total = jnp.zeros((), exact)
    for i in range(height):
        for j in range(width):
            total += x_pad[:, i : i + rows, j : j + columns] * kernel[i, j].astype(exact)[None, None]
    return total.astype(x.dtype)
