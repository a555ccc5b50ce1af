"""Samplers of diffusion models: pure functions of one signature, each one `lax.scan`.

`sampler(predict, schedule, x_T, key, steps, …) -> x_0`, where `predict(x_t, t) -> (x0_hat, eps_hat)` is any denoiser (a
network of either parametrisation, guided or not, or a closed form), x_t [B,H,W,C] and t [B] in 1…T. Clipping and
guidance wrap `predict`, so that a sampler holds its own arithmetic only.

Lecture erratum E6: Algorithm 2 divides by √(1−α_t); it is √(1−ᾱ_t). With the lecture's divisor and a perfect predictor,
N(0, 1) data come out with standard deviation 0.303. The lecture leaves σ_t open: σ_t² = β_t and β̃_t are the paper's
two choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.schedules import Schedule, eps_from_x0, posterior, step_variance

Predict = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""`(x_t [B,H,W,C], t [B]) -> (x0_hat, eps_hat)`, each [B,H,W,C]."""


def time_steps(num_timesteps: int, steps: int) -> np.ndarray:
    """`steps` + 1 falling times, evenly spaced from T to 0 and rounded: [steps+1], all different.

    Both ends are exact: a spacing that misses T starts from an image too noisy for its label (Lin et al. 2023,
    arXiv 2305.08891).

    Raises:
      ValueError: `steps` outside 1…T.
    """
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"sample.steps={steps} must lie in 1…{num_timesteps} (num_timesteps)")
    return np.round(np.linspace(num_timesteps, 0, steps + 1)).astype(np.int32)


def clip_x0(predict: Predict, schedule: Schedule) -> Predict:
    """`predict` with x0_hat clipped to [-1, 1] and eps_hat made consistent with it.

    Images lie in that range, and early steps stray far out of it.
    """

    def clipped(x_t: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_0 = jnp.clip(predict(x_t, t)[0], -1.0, 1.0)
        return x_0, eps_from_x0(schedule, x_t, t, x_0)

    return clipped


def _walk(predict: Predict, x_T: jax.Array, key: jax.Array, times: np.ndarray, coefficients: np.ndarray) -> jax.Array:
    """Scans x ← a x0_hat + b x + c eps_hat + σ z over `times`; `coefficients` [steps, 4] holds (a, b, c, σ)."""

    def step(x, inputs):
        t, (a, b, c, sigma), key_z = inputs
        x_0, eps = predict(x, jnp.full(x.shape[:1], t))
        return a * x_0 + b * x + c * eps + sigma * jax.random.normal(key_z, x.shape, x.dtype), None

    rows = jnp.asarray(coefficients, x_T.dtype)
    keys = jax.random.split(key, len(rows))
    return jax.lax.scan(step, x_T, (jnp.asarray(times[:-1]), (rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]), keys))[0]


def ancestral(
    predict: Predict,
    schedule: Schedule,
    x_T: jax.Array,
    key: jax.Array,
    steps: int,
    *,
    variance: Literal["beta", "posterior"] = "posterior",
) -> jax.Array:
    """Draws each x_s from a Gaussian with the mean of q(x_s | x_t, x0_hat) (Ho et al. 2020, Algorithm 2).

    Fewer steps than T skip times. In the paper's form the mean is (x_t − β_t/√(1−ᾱ_t) eps_hat) / √(1−β_t), the same
    number. No noise is added in the last step.

    Args:
      predict: see the module.
      schedule: the noise levels.
      x_T: standard normal [B,H,W,C].
      key: drives the noise of all steps.
      steps: number of evaluations of `predict`, 1…T.
      variance: σ² is β_{t|s} ("beta", right for x_0 ~ N(0, I)) or β̃ ("posterior", right for a single x_0).

    Returns:
      x_0 [B,H,W,C].
    """
    times = time_steps(schedule.num_timesteps, steps)
    t, s = times[:-1], times[1:]
    q = posterior(schedule, t, s)
    var = {"beta": step_variance(schedule, t, s), "posterior": q.variance}[variance]
    sigma = np.where(s > 0, np.sqrt(var), 0.0)
    return _walk(predict, x_T, key, times, np.stack([q.from_x_0, q.from_x_t, 0.0 * sigma, sigma], axis=1))


def ddim(
    predict: Predict, schedule: Schedule, x_T: jax.Array, key: jax.Array, steps: int, *, eta: float = 0.0
) -> jax.Array:
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, equations 12 and 16).

    x_s = √ᾱ_s x0_hat + √(1−ᾱ_s−σ²) eps_hat + σ z with σ² = η² β̃.

    Args:
      predict: see the module.
      schedule: the noise levels.
      x_T: standard normal [B,H,W,C].
      key: drives the noise; it plays no part at `eta` = 0, where x_0 is a function of x_T.
      steps: number of evaluations of `predict`, 1…T.
      eta: η in [0, 1]; 1 is `ancestral` with the posterior's variance.

    Returns:
      x_0 [B,H,W,C].
    """
    times = time_steps(schedule.num_timesteps, steps)
    t, s = times[:-1], times[1:]
    sigma = eta * np.sqrt(posterior(schedule, t, s).variance)
    direction = np.sqrt(np.maximum(schedule.noise[s] ** 2 - sigma**2, 0.0))
    return _walk(predict, x_T, key, times, np.stack([schedule.signal[s], 0.0 * sigma, direction, sigma], axis=1))
