"""Arithmetic with codes: averages by the values of attributes, moves along their differences, errors of a part."""

from __future__ import annotations

import jax
import jax.numpy as jnp

RIDGE = 1e-4  # one-hot vectors of two attributes are dependent


def mean_codes(moments: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Averages m and regression weights w of codes for each value, [V, K] each.

    A difference of averages also moves what goes along with the attribute in the data; one of weights holds the others.

    Args:
      moments: of one-hot vectors h and codes z: `hh`, E h hᵀ [V, V], and `hz`, E h zᵀ [V, K].
    """
    shares = jnp.maximum(jnp.diag(moments["hh"]), 1e-6)
    weights = jnp.linalg.solve(moments["hh"] + RIDGE * jnp.eye(len(shares)), moments["hz"])
    return moments["hz"] / shares[:, None], weights


def moved(z: jax.Array, direction: jax.Array, target: jax.Array) -> jax.Array:
    """z [B, K] moved along `direction` [B, K] to where `target` [B, K] lies on it; never back.

    A direction of 0 moves nothing.
    """
    way = jnp.maximum(((target - z) * direction).sum(1, keepdims=True), 0.0)
    return z + way * direction / jnp.maximum(jnp.square(direction).sum(1, keepdims=True), 1e-12)


def seen_error(x: jax.Array, known: jax.Array, seen: jax.Array) -> jax.Array:
    """The mean squared error [B] over what is `seen` [B, H, W, 1] (1, or 0 for hidden) of x and known [B, H, W, C]."""
    total = (jnp.square(x - known) * seen).sum((1, 2, 3))
    return total / jnp.maximum(seen.sum((1, 2, 3)) * x.shape[3], 1.0)
