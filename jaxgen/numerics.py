"""Pixels as numbers, log-densities, divergences and units that several families share; nats unless a name says bits."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def to_unit(image: jax.Array, levels: int) -> jax.Array:
    """Pixels 0 … levels-1 of any type → float32 in [-1, 1]."""
    return image.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0


def to_fraction(image: jax.Array, levels: int) -> jax.Array:
    """Pixels 0 … levels-1 of any type → float32 in [0, 1]."""
    return image.astype(jnp.float32) / (levels - 1)


def to_pixels(x: jax.Array, levels: int) -> jax.Array:
    """[-1, 1], clipped, → the nearest of 0 … levels-1, uint8."""
    return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * ((levels - 1) / 2.0)).astype(jnp.uint8)


def dequantize(image: jax.Array, u: jax.Array | float, levels: int) -> jax.Array:
    """Pixels 0 … levels-1 and u in [0, 1) → float32 in [-½, ½), spread evenly over each pixel's bin."""
    return (image.astype(jnp.float32) + u) / levels - 0.5


def quantize(x: jax.Array, levels: int) -> jax.Array:
    """The pixel in whose bin x lies, uint8; beyond [-½, ½) the first and the last."""
    return jnp.clip(jnp.floor((x + 0.5) * levels), 0, levels - 1).astype(jnp.uint8)


def gaussian_kl(mean_p: jax.Array, log_var_p: jax.Array, mean_q: jax.Array, log_var_q: jax.Array) -> jax.Array:
    """KL(N(mean_p, e^log_var_p) ‖ N(mean_q, e^log_var_q)), element by element, in nats; the arguments broadcast."""
    ratio = log_var_p - log_var_q
    return 0.5 * (jnp.exp(ratio) - 1.0 - ratio + jnp.square(mean_p - mean_q) * jnp.exp(-log_var_q))


def discretized_gaussian(x: jax.Array, mean: jax.Array, log_var: jax.Array, levels: int) -> jax.Array:
    """log P of a pixel whose bin N(mean, e^log_var) hits (Ho et al. 2020, arXiv 2006.11239, equation 13), in nats.

    The `levels` pixel values stand at equal distances in [-1, 1]; a bin reaches half-way to its neighbours, the first
    and the last to infinity, so that the probabilities of all values sum to 1. Computed in logarithms: exact far in
    the tails.

    Args:
      x: pixel values in [-1, 1], of any shape.
      mean, log_var: of the Gaussian, broadcast to x's shape.
      levels: number of values of a pixel.
    """
    half, scale = 1.0 / (levels - 1), jnp.exp(-0.5 * log_var)
    upper = jnp.where(x > 1.0 - half, jnp.inf, (x - mean + half) * scale)
    lower = jnp.where(x < -1.0 + half, -jnp.inf, (x - mean - half) * scale)
    # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): the side on which both are small keeps the digits.
    mirror = lower > 0
    a, b = jnp.where(mirror, -upper, lower), jnp.where(mirror, -lower, upper)
    # No gradient passes through an infinite bound, which is 0 · ∞ = NaN otherwise.
    a_safe, b_safe = jnp.where(jnp.isinf(a), 0.0, a), jnp.where(jnp.isinf(b), 0.0, b)
    log_a = jnp.where(jnp.isinf(a), -jnp.inf, jax.scipy.special.log_ndtr(a_safe))
    log_b = jnp.where(jnp.isinf(b), 0.0, jax.scipy.special.log_ndtr(b_safe))
    gap = jnp.where(jnp.isinf(log_a), -jnp.inf, log_a - log_b)
    gap_safe = jnp.where(jnp.isinf(gap), -1.0, jnp.minimum(gap, -1e-30))
    return log_b + jnp.where(jnp.isinf(gap), 0.0, jnp.log(-jnp.expm1(gap_safe)))


def discretized_logistic(x: jax.Array, mean: jax.Array, log_scale: jax.Array, levels: int) -> jax.Array:
    """log P of a pixel whose bin a logistic variable hits (Kingma et al. 2016, arXiv 1606.04934, section 5), in nats.

    The bins are those of `discretized_gaussian`. By σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a−b)) exact far in the tails.

    Args:
      x: pixel values in [-1, 1], of any shape.
      mean, log_scale: of the logistic distribution, broadcast to x's shape.
      levels: number of values of a pixel.
    """
    half, inverse = 1.0 / (levels - 1), jnp.exp(-log_scale)
    below = jax.nn.log_sigmoid((x - mean + half) * inverse)
    above = jax.nn.log_sigmoid((mean - x + half) * inverse)
    inner = below + above + jnp.log(-jnp.expm1(-2.0 * half * inverse))
    return jnp.where(x > 1.0 - half, above, jnp.where(x < half - 1.0, below, inner))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log softmax(logits)[label], in nats [...], of logits [..., V] and labels int [...].

    The label's logit is taken by a sum over a mask: one pass with the others, forward and backward, and no gather of
    logits that are split over devices.
    """
    hot = labels[..., None] == jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)
    return jax.nn.logsumexp(logits, -1) - jnp.where(hot, logits, 0.0).sum(-1)


def nats_to_bits(nats: jax.Array) -> jax.Array:
    """Nats in bits."""
    return nats / math.log(2.0)


def bits_per_dim(log_prob: jax.Array, dim: int, levels: int = 1) -> jax.Array:
    """−log₂ p / D + log₂ levels, from log p in nats: bits per number of a pixel whose bin is 1 / levels wide."""
    return -nats_to_bits(log_prob) / dim + math.log2(levels)
