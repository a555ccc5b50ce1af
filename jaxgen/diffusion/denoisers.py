"""Denoisers, what samplers walk by, and what may be laid round them: clipping, inpainting, guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.diffusion.schedules import Schedule, eps_from_x0


class Denoised(NamedTuple):
    """A denoiser's guess.

    Attributes:
      x_0: the clean image [B,H,W,C].
      eps: the noise [B,H,W,C], consistent with it: x_t = √ᾱ_t x_0 + √(1−ᾱ_t) eps.
      variance_mix: None, or the learned variance of a step to s as a mix [B,H,W,C] in [0, 1]: log σ² =
        mix · log β_{t|s} + (1−mix) · log β̃ (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15).
    """

    x_0: jax.Array
    eps: jax.Array
    variance_mix: jax.Array | None = None


Predict = Callable[[jax.Array, jax.Array, jax.Array], Denoised]
"""`(x_t [B,H,W,C], t [B] in 1…T, x_0_before [B,H,W,C]) -> Denoised`.

`x_0_before` is the guess of the evaluation before, zeros in the first, for networks that are conditioned on it (Chen et
al. 2022, arXiv 2208.04202); others ignore it.
"""


def clip_x0(predict: Predict, schedule: Schedule) -> Predict:
    """`predict` with x_0 clipped to [-1, 1] and eps made consistent with it.

    Images lie in that range, and early steps stray far out of it.
    """

    def clipped(x_t: jax.Array, t: jax.Array, x_0_before: jax.Array) -> Denoised:
        guess = predict(x_t, t, x_0_before)
        x_0 = jnp.clip(guess.x_0, -1.0, 1.0)
        return guess._replace(x_0=x_0, eps=eps_from_x0(schedule, x_t, t, x_0))

    return clipped


def inpaint(predict: Predict, schedule: Schedule, known: jax.Array, mask: jax.Array) -> Predict:
    """`predict` that knows part of the image: x_0 is `known` there, and eps made consistent with it.

    With this guess the mean of an `ancestral` step is that of q(x_s | x_t, x_0 = known), so that with the posterior's
    variance the known region's states are one exact draw of the encoding of `known`, walked backwards (but for x_T,
    which is pure noise and lacks √ᾱ_T of it). RePaint (Lugmayr et al. 2022, arXiv 2201.09865) draws each state anew
    from q(x_s | x_0 = known): the same distribution at each time, but noise that jumps from step to step. Every sampler
    ends on `known` exactly.

    Either way the rest is drawn given the *noisy* known region of its step alone, and sees too late what it has to fit
    to. Of two pixels N(0, 1) with correlation 0.9, one known to be 1.5, a perfect denoiser's other has mean 0.94 and
    standard deviation 0.60 (linear schedule, 1000 ancestral steps; 0.67 and 0.7 by the deterministic samplers) where
    1.35 and 0.44 are right. RePaint's cure is `ancestral`'s `resample`: 10 passes over 100 steps with variance "beta",
    at the same cost, give 1.32 and 0.43.

    Args:
      predict: the denoiser.
      schedule: the noise levels.
      known: the image [B,H,W,C]; what stands in the region to be drawn does not matter.
      mask: [B,H,W,1], 1 where a pixel is to be drawn, 0 where it is known.
    """

    def knowing(x_t: jax.Array, t: jax.Array, x_0_before: jax.Array) -> Denoised:
        guess = predict(x_t, t, x_0_before)
        eps = eps_from_x0(schedule, x_t, t, known)
        return guess._replace(x_0=jnp.where(mask > 0, guess.x_0, known), eps=jnp.where(mask > 0, guess.eps, eps))

    return knowing


def guide(eps_cond: jax.Array, eps_uncond: jax.Array, scale: float) -> jax.Array:
    """eps_uncond + scale · (eps_cond − eps_uncond), classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

    `scale` 1 is the conditional model as it is, 0 the unconditional one; the paper's w (equation 6) is scale − 1. The
    same combination of the two x_0 is consistent with that of the two eps, for both belong to one x_t.
    """
    return eps_uncond + scale * (eps_cond - eps_uncond)


def guided(predict_both: Predict, scale: float) -> Predict:
    """Classifier-free guidance at one call of the network a step, see `guide`; the conditional half's variance is kept.

    Args:
      predict_both: the denoiser of a doubled batch [2B,H,W,C], every other row with its condition, the next without:
        interleaved, both rows of an example stay on its device.
      scale: the guidance scale.
    """

    def predict(x_t: jax.Array, t: jax.Array, x_0_before: jax.Array) -> Denoised:
        both = predict_both(*(jnp.repeat(x, 2, 0) for x in (x_t, t, x_0_before)))
        cond, uncond = (jax.tree.map(lambda x, i=i: x[i::2], both) for i in (0, 1))
        return cond._replace(x_0=guide(cond.x_0, uncond.x_0, scale), eps=guide(cond.eps, uncond.eps, scale))

    return predict
