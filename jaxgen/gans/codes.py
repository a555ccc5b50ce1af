"""Arithmetic with codes: averages by the values of attributes, moves along their differences, errors of a part."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

RIDGE = 1e-4  # one-hot vectors of two attributes are dependent
TIMES = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # how often an average is moved by a difference of averages


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


def moved_until(
    z: jax.Array,
    direction: jax.Array,
    start: jax.Array,
    end: jax.Array,
    judge: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
) -> jax.Array:
    """z [B, K] moved along `direction` [B, K] to where start + s (end − start) lies on it, s the least that is enough.

    Args:
      z: codes.
      direction: along which they move.
      start, end: averages [B, K] of what they show and of what is wanted.
      judge: codes → how likely they show it [B], and whether that is enough, bool [B].

    Returns:
      For the first s of `TIMES` that is enough, or else for the likeliest, [B, K].
    """

    def turn(carry, times):
        best, likely, done = carry
        candidate = jnp.where(times > 0, moved(z, direction, start + times * (end - start)), z)
        found, enough = judge(candidate)
        better = ~done & (enough | (found > likely))
        best = jnp.where(better[:, None], candidate, best)
        return (best, jnp.where(better, found, likely), done | enough), None

    carry = z, jnp.full(len(z), -1.0), jnp.zeros(len(z), bool)
    return jax.lax.scan(turn, carry, jnp.array(TIMES))[0][0]


def seen_error(x: jax.Array, known: jax.Array, seen: jax.Array) -> jax.Array:
    """The mean squared error [B] over what is `seen` [B, H, W, 1] (1, or 0 for hidden) of x and known [B, H, W, C]."""
    total = (jnp.square(x - known) * seen).sum((1, 2, 3))
    return total / jnp.maximum(seen.sum((1, 2, 3)) * x.shape[3], 1.0)
