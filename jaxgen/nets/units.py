"""Normalisations and activations by name, for networks whose experiments differ in them."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.norm import GroupNorm

Norm = Literal["none", "batch", "layer"]
Activation = Literal["relu", "leaky_relu", "tanh", "gated"]


def normalise(kind: Norm, h: jax.Array, train: bool, name: str) -> jax.Array:
    """h [B, ..., C] normalised by a layer `name` of the module that calls.

    `batch` (Ioffe & Szegedy 2015, arXiv 1502.03167): over all examples and pixels of a channel; in training by the
    global batch's own moments, on any number of devices, and by their running average in `batch_stats` otherwise.
    `layer` (Ba et al. 2016, arXiv 1607.06450): over all channels and pixels of an example, scaled by channel.
    """
    if kind == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)(h)
    return GroupNorm(1, name=name)(h) if kind == "layer" else h


def units(kind: Activation, features: int) -> int:
    """Channels that `activate` needs for so many features."""
    return 2 * features if kind == "gated" else features


def activate(kind: Activation, h: jax.Array) -> jax.Array:
    """h [..., units(kind, C)] → [..., C].

    `leaky_relu` has the slope 0.2 of DCGAN; `gated` is tanh(a) σ(b) of the two halves of the channels (van den Oord
    et al. 2016, arXiv 1606.05328, equation 2).
    """
    if kind == "gated":
        a, b = jnp.split(h, 2, -1)
        return jnp.tanh(a) * nn.sigmoid(b)
    return {"relu": nn.relu, "leaky_relu": lambda h: nn.leaky_relu(h, 0.2), "tanh": jnp.tanh}[kind](h)
