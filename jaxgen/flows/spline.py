"""Monotone rational-quadratic splines (Durkan, Bekasov, Murray & Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_LEAST = 1e-3  # of a bin's share of the interval, and of a knot's derivative


def num_parameters(num_bins: int) -> int:
    """Numbers that describe one spline: widths, heights, and the derivatives of the inner knots."""
    return 3 * num_bins - 1


def _knots(raw: jax.Array, bound: float) -> jax.Array:
    """Unconstrained [..., K] → K + 1 increasing knots from -bound to bound."""
    shares = _LEAST + (1.0 - _LEAST * raw.shape[-1]) * jax.nn.softmax(raw)
    inner = 2.0 * bound * jnp.cumsum(shares, -1)[..., :-1] - bound
    edge = jnp.full_like(inner[..., :1], bound)
    return jnp.concatenate([-edge, inner, edge], -1)


def rational_quadratic(
    x: jax.Array, raw: jax.Array, bound: float, inverse: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Maps each number by its own spline of [-bound, bound] onto itself, and by the identity outside (section 3.1).

    Args:
      x: numbers of any shape [...].
      raw: unconstrained parameters [..., 3K - 1]; all zeros make the identity.
      bound: half the length of the interval.
      inverse: whether the inverse is taken (equations 6 to 8).

    Returns:
      `(y [...], log dy/dx [...])`.
    """
    num = (raw.shape[-1] + 1) // 3
    xs, ys = _knots(raw[..., :num], bound), _knots(raw[..., num : 2 * num], bound)
    slopes = _LEAST + jax.nn.softplus(raw[..., 2 * num :] + math.log(math.expm1(1.0 - _LEAST)))
    one = jnp.ones_like(xs[..., :1])
    slopes = jnp.concatenate([one, slopes, one], -1)

    # The function outside is another one; a clipped x keeps this one's gradients finite there.
    inside, clipped = jnp.abs(x) < bound, jnp.clip(x, -bound, bound)
    bins = (clipped[..., None] >= (ys if inverse else xs)[..., 1:-1]).sum(-1, keepdims=True)
    at = lambda values, shift: jnp.take_along_axis(values, bins + shift, -1)[..., 0]
    x_k, y_k, d_k, d_next = at(xs, 0), at(ys, 0), at(slopes, 0), at(slopes, 1)
    width, height = at(xs, 1) - x_k, at(ys, 1) - y_k
    s = height / width
    bend = d_k + d_next - 2.0 * s

    if inverse:
        rise = clipped - y_k
        a, b, c = height * (s - d_k) + rise * bend, height * d_k - rise * bend, -s * rise
        theta = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
        y = x_k + theta * width
    else:
        theta = (clipped - x_k) / width
    mix = theta * (1.0 - theta)
    denominator = s + bend * mix
    if not inverse:
        y = y_k + height * (s * theta**2 + d_k * mix) / denominator
    slope = d_next * theta**2 + 2.0 * s * mix + d_k * (1.0 - theta) ** 2
    log_slope = 2.0 * jnp.log(s) + jnp.log(slope) - 2.0 * jnp.log(denominator)
    return jnp.where(inside, y, x), jnp.where(inside, -log_slope if inverse else log_slope, 0.0)
