"""Residual generator and critic (Gulrajani et al. 2017, arXiv 1704.00028, appendix C; Miyato et al. 2018, 1802.05957).

A block is x + conv(act(norm(conv(act(norm(x)))))), with the resolution doubled before its first convolution or halved
behind its second, and its shortcut likewise through a 1×1 convolution. The critic's first block sees the image without
an activation before it.

Deviation: the critic ends in all pixels of its last map, where the papers take their mean or sum: the bundled sets are
aligned, and where a pixel is matters.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax

from jaxgen.nets.conv import Conv
from jaxgen.nets.dcgan import HE
from jaxgen.nets.resample import DoubleConv, double, halve
from jaxgen.nets.units import Activation, Norm, activate, normalise, units
from jaxgen.sharding import constrain


class Block(nn.Module):
    """A residual block: [B, H, W, C] → [B, H', W', features].

    Attributes:
      features: output channels.
      resize: `up` doubles the resolution, `down` halves it, `same` keeps it.
      norm: before both activations.
      activation: before both convolutions.
      first: whether x is an image, which is neither normalised nor activated.
    """

    features: int
    resize: Literal["up", "down", "same"]
    norm: Norm
    activation: Activation
    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block."""
        act = self.activation
        before = double if self.resize == "up" else lambda h: h
        after = halve if self.resize == "down" else lambda h: h
        h = x
        if not self.first:
            h = normalise(self.norm, h, train, "norm_in")
            if act == "gated":  # twice the channels, which the block's input does not have
                h = Conv(units(act, x.shape[-1]), 1, kernel_init=HE, name="gates")(h)
            h = activate(act, h)
        enter = DoubleConv if self.resize == "up" else Conv
        h = enter(units(act, self.features), kernel_init=HE, name="conv_in")(constrain(h))
        h = activate(act, normalise(self.norm, h, train, "norm_out"))
        h = after(Conv(self.features, kernel_init=HE, name="conv_out")(constrain(h)))
        if self.resize != "same" or x.shape[-1] != self.features:
            # A 1×1 convolution and a change of resolution commute: the smaller image is the cheaper one.
            x = before(Conv(self.features, 1, kernel_init=nn.initializers.lecun_normal(), name="shortcut")(after(x)))
        return constrain(x + h)


class ResnetGenerator(nn.Module):
    """A code → an image, without the last tanh.

    Attributes:
      widths: channels of each block that doubles the resolution.
      size: (H, W) of the image, multiples of 2^len(widths).
      channels: of the image.
      norm: see `Block`.
      activation: see `Block`.
      num_blocks: blocks of each resolution after the smallest, the doubling one included.
    """

    widths: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    norm: Norm = "batch"
    activation: Activation = "relu"
    num_blocks: int = 1

    @nn.compact
    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """z [B, K] → [B, H, W, channels]."""
        height, width = (side // 2 ** len(self.widths) for side in self.size)
        h = nn.Dense(height * width * self.widths[0], name="project")(z).reshape(len(z), height, width, -1)
        for level, features in enumerate(self.widths):
            for i in range(self.num_blocks):
                resize: Literal["up", "same"] = "same" if i else "up"
                h = Block(features, resize, self.norm, self.activation, name=f"up_{level}_{i}")(h, train)
        h = normalise(self.norm, h, train, "norm")
        return Conv(self.channels, name="out")(activate("relu" if self.activation == "gated" else self.activation, h))


class ResnetCritic(nn.Module):
    """An image → features.

    Attributes:
      widths: channels of each block that halves the resolution, from the image on.
      norm: see `Block`.
      activation: see `Block`.
      num_blocks: blocks of each resolution after the first, the halving one included.
    """

    widths: tuple[int, ...]
    norm: Norm = "none"
    activation: Activation = "relu"
    num_blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """x [B, H, W, C] → [B, D], all pixels of the last map."""
        h = x
        for level, features in enumerate(self.widths):
            for i in range(self.num_blocks):
                resize: Literal["down", "same"] = "same" if i else "down"
                first, name = level == i == 0, f"down_{level}_{i}"
                h = Block(features, resize, self.norm, self.activation, first, name=name)(h, train)
        h = activate("relu" if self.activation == "gated" else self.activation, h)
        return h.reshape(len(x), -1)
