"""Convolution on images [B, H, W, C] whose gradients stay fast inside `lax.scan` on a CPU.

XLA's CPU backend runs a plain convolution's weight gradient on a naive path when it stands in a loop body (jax issue
12868): a scanned U-Net step then takes ten times its time. Here the backward pass is written out, as two convolutions
in the layout that XLA has a fast kernel for. It calls only `_unit_conv`, the differentiated function itself, so
gradients of every order (a gradient penalty's, say) take the same path. The price is forward mode: `jax.jvp`, `jacfwd`
and `hessian` raise on a CPU. Other devices get the plain convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from jaxgen.kernels import backend

Padding = str | Sequence[tuple[int, int]]
"""`"SAME"`, `"VALID"`, or `((top, bottom), (left, right))`."""

_DIMS = ("NHWC", "HWIO", "NHWC")


def _correlate(x: jax.Array, kernel: jax.Array, pads: tuple[tuple[int, int], ...]) -> jax.Array:
    """Stride-1 correlation of x [B,H,W,C] with kernel [h,w,C,O], whose backward pass calls only itself."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=_DIMS)


_unit_conv = jax.custom_vjp(_correlate, nondiff_argnums=(2,))


def _unit_conv_forward(x, kernel, pads):
    return _unit_conv(x, kernel, pads), (x, kernel)


def _unit_conv_backward(pads, residuals, dy):
    x, kernel = residuals
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    reach = [size - 1 for size in kernel.shape[:2]]
    dx = _unit_conv(dy, flipped, tuple((r - low, r - high) for r, (low, high) in zip(reach, pads, strict=True)))
    # The weight gradient correlates x with dy over space and sums over the batch, so channels play the batch and the
    # batch plays the channels: [C,H,W,B] with [H',W',B,O] gives [C,h,w,O].
    dkernel = _unit_conv(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), pads)
    return dx, dkernel.transpose(1, 2, 0, 3)


_unit_conv.defvjp(_unit_conv_forward, _unit_conv_backward)


def _explicit_pads(padding: Padding, sizes: Sequence[int], kernel: Sequence[int], stride: int):
    if isinstance(padding, str):
        return tuple(jax.lax.padtype_to_pads(sizes, kernel, (stride, stride), padding))
    return tuple((int(low), int(high)) for low, high in padding)


def _fold_stride(x, kernel, pads, stride):
    """Rewrites a strided convolution as one of stride 1 on x's stride × stride blocks, which become channels."""
    batch, *sizes, channels = x.shape
    *reach, _, features = kernel.shape
    cells = [-(-size // stride) for size in reach]
    out = [(n + low + high - r) // stride + 1 for n, r, (low, high) in zip(sizes, reach, pads, strict=True)]
    full = [stride * (o + c - 1) for o, c in zip(out, cells, strict=True)]
    # Rows beyond the last window are cut by the negative padding; rows that it lacks meet zeros of the kernel.
    edges = [(low, f - n - low, 0) for f, n, (low, _) in zip(full, sizes, pads, strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    kernel = jnp.pad(kernel, [(0, c * stride - r) for c, r in zip(cells, reach, strict=True)] + [(0, 0), (0, 0)])
    blocks = [n // stride for n in full]
    x = x.reshape(batch, blocks[0], stride, blocks[1], stride, channels).transpose(0, 1, 3, 2, 4, 5)
    kernel = kernel.reshape(cells[0], stride, cells[1], stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    depth = stride * stride * channels
    return x.reshape(batch, *blocks, depth), kernel.reshape(*cells, depth, features)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = "SAME") -> jax.Array:
    """Correlates images with a kernel, as `lax.conv_general_dilated` does.

    On a CPU (as `kernels.backend` says when the function is traced): a 1×1 kernel is a matrix product, a stride s first
    gathers s × s blocks into channels, and gradients take the path that the module describes.

    Args:
      x: images [B, H, W, C].
      kernel: [h, w, C, O], of x's dtype.
      stride: step of the window along both axes.
      padding: see `Padding`.

    Returns:
      [B, H', W', O].

    Raises:
      ValueError: the channels of x and kernel differ, or the window is larger than the padded image.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"conv needs x [B,H,W,C] and a kernel [h,w,C,O] with the same C, not {x.shape} and {kernel.shape}"
        )
    pads = _explicit_pads(padding, x.shape[1:3], kernel.shape[:2], stride)
    for size, reach, (low, high) in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True):
        if size + low + high < reach:
            raise ValueError(f"a window of {kernel.shape[:2]} does not fit into images {x.shape} padded by {pads}")
    if backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_DIMS)
    if stride == 1 and kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        return x @ kernel[0, 0]
    if stride != 1:
        x, kernel = _fold_stride(x, kernel, pads, stride)
        pads = ((0, 0), (0, 0))
    return _unit_conv(x, kernel, pads)


class Conv(nn.Module):
    """A convolution layer, [B, H, W, C] → [B, H', W', features].

    Its parameters are `kernel` [h, w, C, features] and `bias` [features].

    Attributes:
      features: output channels.
      kernel_size: side of the square window.
      stride: step of the window along both axes.
      padding: see `Padding`.
      use_bias: whether a bias is added.
      kernel_init: initialiser of the kernel; `nn.initializers.zeros` makes the layer start as zero.
      dtype: what the layer computes in; None takes that of x and the parameters. Parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer to x [B, H, W, C]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(x, kernel, self.stride, self.padding)
        return y if bias is None else y + bias[None, None, None, :]
