"""Encoders of images and decoders of codes, dense (Hinton & Salakhutdinov 2006) or convolutional.

The convolutional decoder enlarges by repeating pixels and then convolves, where an encoder's pooling is to be undone:
strided transposed convolutions leave checkerboards (Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard
artifacts"). Without normalisation across examples, each code depends on its own image alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import flax.linen as nn
import jax

from jaxgen.config import check_choice
from jaxgen.nets.conv import Conv
from jaxgen.nets.resample import DoubleConv, halve
from jaxgen.sharding import constrain

Kind = Literal["dense", "conv"]
Activation = Literal["silu", "tanh", "identity"]

_ACTIVATIONS = {"silu": nn.silu, "tanh": nn.tanh, "identity": lambda x: x}


def _init(activation: str) -> nn.initializers.Initializer:
    """Of the kernels before an activation: silu halves what it is given, and a deep decoder would start as zero."""
    return nn.initializers.he_normal() if activation == "silu" else nn.initializers.lecun_normal()


@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of an `Encoder` and its mirror, the `Decoder`."""

    kind: Kind = "conv"
    """`dense`: layers over all pixels; `conv`: convolutions, 2×2 mean pooling and repetition."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Units of each hidden layer (dense, none for a linear network), or channels of each level (conv), of which every
    one after the first halves the resolution; in the encoder's order."""
    hidden: int = 256
    """Units of the dense layer between the smallest map and the code (conv alone)."""
    activation: Activation = "silu"
    """Of every hidden layer; all but `identity` are smooth, as penalties on derivatives need it."""


def check_autoencoder(name: str, config: AutoencoderConfig, height: int, width: int) -> None:
    """Raises a ValueError if option `name` has an unknown value, or takes no images of `height` × `width`."""
    check_choice(f"{name}.kind", config.kind, get_args(Kind))
    check_choice(f"{name}.activation", config.activation, get_args(Activation))
    if any(units < 1 for units in (*config.widths, config.hidden)):
        raise ValueError(f"{name}.widths={config.widths} and {name}.hidden={config.hidden} must be 1 or more")
    if config.kind == "conv":
        if not config.widths:
            raise ValueError(f"{name}.widths must name one level or more with {name}.kind=conv")
        shrink = 2 ** (len(config.widths) - 1)
        if height % shrink or width % shrink:
            raise ValueError(
                f"{name}.widths={config.widths} halve the image {len(config.widths) - 1} times, and {height}×{width} "
                f"does not divide by {shrink}: take fewer levels"
            )


class Encoder(nn.Module):
    """Images → features: the code, or the parameters of its distribution, or a classifier's logits.

    Attributes:
      config: the shape.
      features: numbers an image.
    """

    config: AutoencoderConfig
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encodes x [B, H, W, C] as [B, features]; the last layer is linear."""
        cfg, act, init = self.config, _ACTIVATIONS[self.config.activation], _init(self.config.activation)
        if cfg.kind == "dense":
            h = x.reshape(len(x), -1)
            for i, units in enumerate(cfg.widths):
                h = constrain(act(nn.Dense(units, kernel_init=init, name=f"hidden_{i}")(h)))
        else:
            h = x
            for level, channels in enumerate(cfg.widths):
                if level:
                    h = halve(h)
                h = act(Conv(channels, kernel_init=init, name=f"level_{level}_in")(h))
                h = constrain(act(Conv(channels, kernel_init=init, name=f"level_{level}_out")(h)))
            h = act(nn.Dense(cfg.hidden, kernel_init=init, name="hidden")(h.reshape(len(h), -1)))
        return nn.Dense(self.features, name="out")(h)


class Decoder(nn.Module):
    """Codes → images, or what parametrises their distribution, pixel by pixel.

    Attributes:
      config: the shape, in the encoder's order.
      size: (H, W) of an image.
      out_channels: numbers a pixel.
    """

    config: AutoencoderConfig
    size: tuple[int, int]
    out_channels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Decodes z [B, K] as [B, H, W, out_channels]; the last layer is linear."""
        cfg, act, init = self.config, _ACTIVATIONS[self.config.activation], _init(self.config.activation)
        if cfg.kind == "dense":
            h = z
            for i, units in enumerate(reversed(cfg.widths)):
                h = constrain(act(nn.Dense(units, kernel_init=init, name=f"hidden_{i}")(h)))
            h = nn.Dense(math.prod(self.size) * self.out_channels, name="out")(h)
            return h.reshape(len(z), *self.size, self.out_channels)
        shrink, channels = 2 ** (len(cfg.widths) - 1), cfg.widths[-1]
        height, width = (side // shrink for side in self.size)
        h = act(nn.Dense(cfg.hidden, kernel_init=init, name="hidden")(z))
        h = act(nn.Dense(height * width * channels, kernel_init=init, name="unfold")(h))
        h = h.reshape(len(z), height, width, channels)
        for level in reversed(range(len(cfg.widths))):
            enter = Conv if level == len(cfg.widths) - 1 else DoubleConv
            h = act(enter(cfg.widths[level], kernel_init=init, name=f"level_{level}_in")(h))
            h = constrain(act(Conv(cfg.widths[level], kernel_init=init, name=f"level_{level}_out")(h)))
        return Conv(self.out_channels, name="out")(h)
