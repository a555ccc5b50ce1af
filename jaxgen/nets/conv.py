"""Convolution on images [B, H, W, C] whose gradients are fast on a CPU, inside `lax.scan` too.

XLA's CPU backend runs a plain convolution's weight gradient on a naive path when it stands in a loop body (jax issue
12868): a scanned U-Net step then takes ten times its time. Elsewhere it takes it as a convolution with the images for
kernels, which do not fit into a cache: a third of the speed of a matrix product. Here the backward pass is written out,
as a convolution in the layout that XLA has a fast kernel for, and as matrix products of a few images at a time. Both
rules call only these two functions, so gradients of every order (a gradient penalty's, say) take the same path. The
price is forward mode: `jax.jvp`, `jacfwd` and `hessian` raise on a CPU. Other devices get the plain convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from jaxgen.kernels import backend
from jaxgen.nets.correlation import DIMS, Pads, correlation
from jaxgen.sharding import over_batch

Padding = str | Sequence[tuple[int, int]]
"""`"SAME"`, `"VALID"`, or `((top, bottom), (left, right))`."""

_PIXELS = 1024  # of the images whose products are taken at a time
_SIZE = 2**18  # numbers of a matrix with all offsets: 1 MB
_FEW = 4  # times as many channels on the other side


# Both are linear in either argument, and each one's gradients are the other or itself.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unit_conv(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Stride-1 correlation of x [B,H,W,C] with kernel [h,w,C,O]: [B,H',W',O]."""
    return correlation(x, kernel, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, dy: jax.Array, pads: Pads) -> jax.Array:
    """Gradient of its kernel, [h,w,C,O], at x [B,H,W,C] and the gradient dy [B,H',W',O] of its output."""
    total, _ = over_batch(lambda rows: (_kernel_products(rows[0], rows[1], pads), ()), (x, dy))
    # Rounded behind the sum: for accuracy, and because XLA's CPU compiler aborts on a device's sum in bfloat16 here.
    return total.astype(x.dtype)


def _kernel_products(x: jax.Array, dy: jax.Array, pads: Pads) -> jax.Array:
    """`_kernel_gradient` in float32 or better, of the examples of one device.

    Σ_{b,p} x[b, p + offset] dyᵀ[b, p] for each offset of the kernel: a product of matrices whose inner axis runs over
    pixels, a few images at a time, so that they stay in the cache. Offsets stand side by side in one matrix, for fewer
    and larger products: all of them where x has few channels, those in a row otherwise.
    """
    batch, rows, columns, features = dy.shape
    channels = x.shape[3]
    height = x.shape[1] + sum(pads[0]) - rows + 1
    width = x.shape[2] + sum(pads[1]) - columns + 1
    if _FEW * features <= channels:  # the same sum with the roles exchanged: offsets are of dy, and run backwards
        swapped = _kernel_products(dy, x, _mirrored(pads, height, width))
        return jnp.flip(swapped, (0, 1)).swapaxes(2, 3)

    exact = jnp.promote_types(x.dtype, jnp.float32)  # XLA's CPU products cannot sum half precision in float32
    if (height, width) == (1, 1) and not any(map(any, pads)):
        x, dy = (a.astype(exact).reshape(-1, a.shape[-1]) for a in (x, dy))
        return jnp.tensordot(x.T, dy, 1)[None, None]

    def all_offsets(x, dy):  # [h w C, n H' W'] [n H' W', O]; channels first, so that runs of pixels are copied
        x = x.transpose(3, 0, 1, 2)
        shifts = [x[:, :, i : i + rows, j : j + columns] for i in range(height) for j in range(width)]
        return jnp.stack(shifts).reshape(-1, dy.size // features) @ dy.reshape(-1, features)

    def offsets_of_rows(x, dy):  # h times [O, n H' W'] [n H' W', w, C]
        x = jnp.stack([x[:, :, j : j + columns] for j in range(width)], 3)
        shifts = [x[:, i : i + rows].reshape(-1, width, channels) for i in range(height)]
        dy = dy.reshape(-1, features).T  # merged by hand: XLA is slower with several inner axes
        return jnp.stack([jnp.tensordot(dy, shift, 1) for shift in shifts])

    few = _FEW * channels <= features
    most = _SIZE // (height * width * channels) if few else _PIXELS
    num = max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * rows * columns <= most))

    def add(total, inputs):
        x, dy = (a.astype(exact) for a in inputs)
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
        return total + (all_offsets if few else offsets_of_rows)(x, dy), None

    shape = (height * width * channels, features) if few else (height, features, width, channels)
    parts = tuple(a.reshape(-1, num, *a.shape[1:]) for a in (x, dy))
    total = jax.lax.scan(add, jnp.zeros(shape, exact), parts)[0]
    return total.reshape(height, width, channels, features) if few else total.transpose(0, 2, 3, 1)


def _mirrored(pads: Pads, height: int, width: int) -> Pads:
    """The padding under which a correlation with the kernel turned round takes outputs back to the images' shape."""
    (top, bottom), (left, right) = pads
    return (height - 1 - top, height - 1 - bottom), (width - 1 - left, width - 1 - right)


def _image_gradient(dy: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return _unit_conv(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), _mirrored(pads, *kernel.shape[:2]))


def _unit_conv_backward(pads, residuals, dy):
    x, kernel = residuals
    return _image_gradient(dy, kernel, pads), _kernel_gradient(x, dy, pads)


def _kernel_gradient_backward(pads, residuals, dkernel):
    x, dy = residuals
    return _image_gradient(dy, dkernel, pads), _unit_conv(x, dkernel, pads)


_unit_conv.defvjp(lambda x, kernel, pads: (_unit_conv(x, kernel, pads), (x, kernel)), _unit_conv_backward)
_kernel_gradient.defvjp(lambda x, dy, pads: (_kernel_gradient(x, dy, pads), (x, dy)), _kernel_gradient_backward)


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

    On a CPU (as `kernels.backend` says when the function is traced): a 1×1 kernel is a matrix product, one to few
    features a product whose columns are added up, one channel a sum of shifted images, a stride s first gathers s × s
    blocks into channels, and gradients take the path that the module describes.

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
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=DIMS)
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
        y = self.correlate(x, kernel)
        return y if bias is None else y + bias[None, None, None, :]

    def correlate(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The layer without its bias."""
        return conv(x, kernel, self.stride, self.padding)
