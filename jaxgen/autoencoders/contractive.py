"""Contractive autoencoders (Rifai et al. 2011, ICML): codes that resist all changes of the image but the data's own.

  L(θ) = E_x [‖x − g(f(x))‖² + λ ‖∂f/∂x‖²_F] / D

The reconstruction keeps the encoder sensitive along the manifold, the penalty makes it deaf across it: the Jacobian's
few large singular values span the tangents (`tangents`). It is exact for small codes, K vector-Jacobian products, or
estimated without bias by few: ‖J‖²_F = E ‖Jᵀu‖² for u with E uuᵀ = I (Hutchinson 1990).

Deviations: encoder and decoder are deep and share no weights, where Rifai et al. tie them; a decoder could then undo a
code that shrinks as a whole, against which there is weight decay. The spectrum's shape tells more than its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.autoencoders import ae
from jaxgen.autoencoders.tangents import jacobian
from jaxgen.method import Method
from jaxgen.optimizer import AdamWConfig

if TYPE_CHECKING:
    from jaxgen.data import Spec

Encode = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Config(ae.Config):
    """Contractive autoencoder."""

    weight: float = 0.1
    """λ, the weight of the penalty beside the squared error, both summed over the image."""
    num_probes: int = 1
    """Random directions of the code by which the penalty is estimated; 0 for the exact one."""
    optimizer: AdamWConfig = AdamWConfig(weight_decay=1e-2)
    """AdamW."""


def exact_penalty(encode: Encode, x: jax.Array) -> jax.Array:
    """‖∂f/∂x‖²_F [B] of `encode`, images [B, ...] → codes [B, K]; K vector-Jacobian products."""
    return jnp.square(jacobian(encode, x)).sum((1, 2))


def estimated_penalty(encode: Encode, x: jax.Array, keys: jax.Array, num: int) -> jax.Array:
    """An estimate [B] of `exact_penalty`: the mean of ‖Jᵀu‖² over `num` vectors u of random signs for each key [B]."""
    codes, pull = jax.vjp(encode, x)
    draw = lambda key: jax.random.rademacher(key, (num, codes.shape[1]), codes.dtype)
    probes = jax.vmap(draw, out_axes=1)(keys)  # [num, B, K]
    pulled = jax.vmap(lambda u: pull(u)[0])(probes)
    return jnp.square(pulled).reshape(num, len(x), -1).sum(2).mean(0)


def make(cfg: Config, spec: Spec) -> Method:
    """A contractive autoencoder of the images of `spec`; see `ae.build`.

    Raises:
      ValueError: a weight or a number of probes below 0, and see `ae.build`.
    """
    for name, value in (("weight", cfg.weight), ("num_probes", cfg.num_probes)):
        if not value >= 0:
            raise ValueError(f"method.{name}={value} must be 0 or more")

    def penalty(encode, x, keys):
        if cfg.num_probes:
            return estimated_penalty(encode, x, keys, cfg.num_probes)
        return exact_penalty(encode, x)

    return ae.build(cfg, spec, penalty=penalty, weight=cfg.weight)
