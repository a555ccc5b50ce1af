"""The generator and the discriminator of DCGAN (Radford, Metz & Chintala 2016, arXiv 1511.06434).

The generator projects a code to a small map, and every layer after it doubles the resolution, the last one to the
image; the critic is its mirror and ends in features. `strided_5x5` layers are the paper's: (transposed) convolutions of
stride 2 with kernels of 5×5 pixels. Those of `strided` have 4×4, a multiple of the stride: kernels that are none leave
checkerboards (Odena, Dumoulin & Olah 2016). `pooled` layers repeat pixels before, or average 2×2 of them after, a
convolution of 3×3.

A transposed convolution of 4×4 is computed as it is defined: each pixel of the small map, times the kernel, is a patch
of the large one, and patches that overlap are added. So it is one matrix product, and its gradients are, of every
order. One of 5×5 is a convolution of the map with zeros between its pixels.

Deviations: weights start with He's variance, not 0.02², of which nets without batch normalisation would see nothing.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.conv import Conv, conv
from jaxgen.nets.resample import DoubleConv, halve
from jaxgen.nets.units import Activation, Norm, activate, normalise, units
from jaxgen.sharding import constrain

Layers = Literal["strided", "strided_5x5", "pooled"]

HE = nn.initializers.he_normal()


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transposed convolution of stride 2 that doubles the resolution.

    Args:
      x: [B, H, W, C].
      kernel: [4, 4, C, O], whose entry [i, j] reaches the pixel (2h + i − 1, 2w + j − 1) from (h, w); or [5, 5, C, O],
        whose entry reaches (2h + i − 2, 2w + j − 2).

    Returns:
      [B, 2H, 2W, O].
    """
    if len(kernel) == 5:
        edges = [(0, 0, 0), (2, 3, 1), (2, 3, 1), (0, 0, 0)]  # and a zero between pixels
        return conv(jax.lax.pad(x, jnp.zeros((), x.dtype), edges), jnp.flip(kernel, (0, 1)), padding="VALID")
    batch, height, width, channels = x.shape
    patches = conv(x, kernel.transpose(2, 0, 1, 3).reshape(1, 1, channels, -1))
    patches = patches.reshape(batch, height, width, 2, 2, 2, 2, -1)  # half and row, half and column of a patch

    def overlap(halves: jax.Array, axis: int) -> jax.Array:
        """First halves of patches on second halves of the patches before them, along `axis` < 3; halves [.., 2, ..]."""
        first, second = (jnp.take(halves, i, 3) for i in (0, 1))
        pad = lambda x, sides: jnp.pad(x, [sides if a == axis else (0, 0) for a in range(x.ndim)])
        return pad(first, (0, 1)) + pad(second, (1, 0))

    rows = overlap(patches, 1)  # [B, H+1, W, 2, 2, 2, O]: row, half and column
    both = overlap(rows.swapaxes(3, 4), 2)  # [B, H+1, W+1, 2, 2, O]: row, column
    y = both.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, 2 * width + 2, -1)
    return y[:, 1:-1, 1:-1]


class Up(nn.Module):
    """Doubles the resolution: [B, H, W, C] → [B, 2H, 2W, features].

    Attributes:
      features: output channels.
      layers: `strided`, `strided_5x5` or `pooled`.
    """

    features: int
    layers: Layers = "strided"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        if self.layers == "pooled":
            return DoubleConv(self.features, kernel_init=HE, name="conv")(x)
        # An output pixel sees a quarter of the kernel's places.
        init = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")
        side = 5 if self.layers == "strided_5x5" else 4
        kernel = self.param("kernel", init, (side, side, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return transposed_conv(x, kernel) + bias[None, None, None]


class Down(nn.Module):
    """Halves the resolution: [B, 2H, 2W, C] → [B, H, W, features].

    Attributes:
      features: output channels.
      layers: `strided`, `strided_5x5` or `pooled`.
    """

    features: int
    layers: Layers = "strided"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        if self.layers == "pooled":
            return halve(Conv(self.features, kernel_init=HE, name="conv")(x))
        side, pad = (5, 2) if self.layers == "strided_5x5" else (4, 1)
        return Conv(self.features, side, stride=2, padding=((pad, pad),) * 2, kernel_init=HE, name="conv")(x)


class DcganGenerator(nn.Module):
    """A code → an image, without the last tanh.

    Attributes:
      widths: channels of the smallest map and of each one after it but the image.
      size: (H, W) of the image, multiples of 2^len(widths).
      channels: of the image.
      norm: behind every layer but the last.
      activation: the same.
      layers: `strided`, `strided_5x5` or `pooled`.
    """

    widths: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    norm: Norm = "batch"
    activation: Activation = "relu"
    layers: Layers = "strided"

    @nn.compact
    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """z [B, K] → [B, H, W, channels]."""
        act = self.activation
        height, width = (side // 2 ** len(self.widths) for side in self.size)
        h = nn.Dense(height * width * units(act, self.widths[0]), kernel_init=HE, name="project")(z)
        h = h.reshape(len(z), height, width, -1)
        for i in range(len(self.widths)):
            h = constrain(activate(act, normalise(self.norm, h, train, f"norm_{i}")))
            last = i == len(self.widths) - 1
            h = Up(self.channels if last else units(act, self.widths[i + 1]), self.layers, name=f"up_{i}")(h)
        return h


class DcganCritic(nn.Module):
    """An image → features.

    Attributes:
      widths: channels of each layer, from the image on; each halves the resolution.
      norm: behind every layer but the first.
      activation: behind every layer.
      layers: `strided`, `strided_5x5` or `pooled`.
    """

    widths: tuple[int, ...]
    norm: Norm = "batch"
    activation: Activation = "leaky_relu"
    layers: Layers = "strided"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """x [B, H, W, C] → [B, D], all pixels of the last map."""
        h = x
        for i, width in enumerate(self.widths):
            h = Down(units(self.activation, width), self.layers, name=f"down_{i}")(h)
            h = normalise(self.norm, h, train, f"norm_{i}") if i else h
            h = constrain(activate(self.activation, h))
        return h.reshape(len(x), -1)
