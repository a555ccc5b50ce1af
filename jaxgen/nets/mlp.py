"""A multilayer perceptron."""

from __future__ import annotations

import flax.linen as nn
import jax

from jaxgen.nets.units import Activation, Norm, activate, normalise, units
from jaxgen.sharding import constrain


class Mlp(nn.Module):
    """Dense layers, each normalised and activated: [B, D] → [B, widths[-1]].

    Attributes:
      widths: units of each layer.
      norm: see `units.normalise`.
      activation: see `units.activate`.
    """

    widths: tuple[int, ...]
    norm: Norm = "none"
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the layers to x [B, D]."""
        h, init = x, nn.initializers.he_normal() if "relu" in self.activation else nn.initializers.lecun_normal()
        for i, width in enumerate(self.widths):
            h = nn.Dense(units(self.activation, width), kernel_init=init, name=f"hidden_{i}")(h)
            h = constrain(activate(self.activation, normalise(self.norm, h, train, f"norm_{i}")))
        return h
