"""The variational bound of diffusion models, in bits per dimension (Ho et al. 2020, arXiv 2006.11239, equation 5).

  −log p(x_0) ≤ KL(q(x_T|x_0) ‖ N(0, I))                                           prior
              + Σ_{t=2…T} E_q KL(q(x_{t−1}|x_t, x_0) ‖ p(x_{t−1}|x_t))              diffusion
              − E_q log p(x_0|x_1)                                                  reconstruction

The decoder p(x_0|x_1) is a Gaussian over the bins of the pixels' values, so that the bound holds for the discrete image
(equation 13). Lecture erratum E4: the bound holds for log P(x).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.denoisers import Denoised
from jaxgen.diffusion.samplers import Variance
from jaxgen.diffusion.schedules import Schedule, log_variances, posterior
from jaxgen.numerics import discretized_gaussian, gaussian_kl, nats_to_bits


def draw_times(schedule: Schedule, key: jax.Array, size: int, num: int) -> tuple[jax.Array, jax.Array]:
    """Time steps t [num, size] in 2…T and weights w [num, size], so that the mean of w f(t) is that of f over 2…T.

    The diffusion term is nearly even in log SNR, of which the first few of T steps hold most: half of the draws are
    even in it, the other half in t, which bounds the weights by 2. Each example draws once in every `num`-th part of
    that distribution, the examples spread evenly over the part and rotated together by one random number.
    """
    t = np.arange(2, schedule.num_timesteps + 1)
    log_snr = 2 * np.log(schedule.signal[1:] / schedule.noise[1:])
    share = 0.5 / len(t) + 0.5 * np.diff(log_snr) / (log_snr[-1] - log_snr[0])
    place = (jnp.arange(size) / size + jax.random.uniform(key)) % 1.0
    parts = (jnp.arange(num)[:, None] + place[None, :]) / num
    index = jnp.searchsorted(jnp.asarray(np.cumsum(share)[:-1], jnp.float32), parts, side="right")
    return index + 2, jnp.asarray(1 / (len(t) * share), jnp.float32)[index]


def step_terms(
    schedule: Schedule,
    x_0: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    guess: Denoised,
    variance: Variance,
    levels: int,
) -> jax.Array:
    """Each example's term of the bound at its t: the KL for t ≥ 2, the reconstruction for t = 1.

    Args:
      schedule: the noise levels, T ≥ 2.
      x_0: pixels [B,H,W,C] in [-1, 1].
      x_t: of q(x_t | x_0), [B,H,W,C].
      t: [B] in 1…T.
      guess: the denoiser's guess at (x_t, t).
      variance: that of p(x_{t−1}|x_t): β̃_t, β_t, or between the two as `guess.variance_mix` says.
      levels: number of values of a pixel.

    Returns:
      [B], bits per dimension.
    """
    times = np.arange(schedule.num_timesteps, -1, -1)
    q = posterior(schedule, times[:-1], times[1:])
    columns = (q.from_x_0, q.from_x_t, *log_variances(schedule, times))
    # From falling times to arrays indexed by t - 1.
    from_x_0, from_x_t, small, large = (jnp.asarray(a[::-1], jnp.float32)[t - 1][:, None, None, None] for a in columns)
    log_var = large if variance == "beta" else small
    if variance == "learned":
        assert guess.variance_mix is not None
        log_var = guess.variance_mix * large + (1 - guess.variance_mix) * small
    mean = from_x_0 * guess.x_0 + from_x_t * x_t
    kl = gaussian_kl(from_x_0 * x_0 + from_x_t * x_t, small, mean, log_var)
    reconstruction = -discretized_gaussian(x_0, mean, jnp.broadcast_to(log_var, mean.shape), levels)
    return nats_to_bits(jnp.where((t == 1)[:, None, None, None], reconstruction, kl).mean((1, 2, 3)))


def prior_term(schedule: Schedule, x_0: jax.Array) -> jax.Array:
    """KL(q(x_T|x_0) ‖ N(0, I)) of each x_0 [B,H,W,C], [B] in bits per dimension."""
    log_var = jnp.float32(2 * np.log(schedule.noise[-1]))
    kl = gaussian_kl(jnp.float32(schedule.signal[-1]) * x_0, log_var, jnp.float32(0), jnp.float32(0))
    return nats_to_bits(kl.mean((1, 2, 3)))
