"""Noise schedules and the Gaussian algebra of diffusion (Ho et al. 2020, arXiv 2006.11239, section 2).

Time is t ∈ {0, 1, …, T} as in the paper and the lecture: t = 0 is the clean image, t = T almost pure noise, and arrays
are indexed by t itself (β_0 = 0, ᾱ_0 = 1). With ε ~ N(0, I):

  one step   x_t = √(1−β_t) x_{t−1} + √β_t ε       all at once   x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε,    ᾱ_t = Π_{s≤t} (1−β_s)

Lecture errata corrected here. E1: the two noises of a double step are independent, so their variances add to (1−β_2)β_1
+ β_2 = 1 − (1−β_1)(1−β_2), not to (1−β_1)β_2 + β_2. E2, E3: α_t = 1−β_t, ᾱ_t is its running product, and the closed
form starts at x_0, not at x_{t−1}. E5: the posterior's mean has (1−ᾱ_{t−1}) where the lecture prints (1−α_{t−1}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import closest

Prediction = Literal["v", "eps", "x_0"]
"""What a network's output means."""


class Schedule(NamedTuple):
    """A variance-preserving noise schedule; NumPy arrays [T+1] indexed by t, computed in float64.

    Attributes:
      beta: β_t, the variance that step t adds; β_0 = 0.
      alpha_bar: ᾱ_t, the variance of the signal that is left; ᾱ_0 = 1.
      signal: √ᾱ_t.
      noise: √(1−ᾱ_t), rounded once (1 − ᾱ_1 in float32 would lose three digits).
    """

    beta: np.ndarray
    alpha_bar: np.ndarray
    signal: np.ndarray
    noise: np.ndarray

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.beta) - 1


def schedule_from_betas(betas: np.ndarray) -> Schedule:
    """The schedule of β_1 … β_T [T].

    Raises:
      ValueError: a β outside (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not len(betas) or not np.all((betas > 0) & (betas < 1)):
        raise ValueError("a schedule needs at least one β, all between 0 and 1")
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return Schedule(
        np.concatenate([[0.0], betas]),
        np.exp(log_alpha_bar),
        np.exp(0.5 * log_alpha_bar),
        np.sqrt(-np.expm1(log_alpha_bar)),
    )


def linear_schedule(num_timesteps: int) -> Schedule:
    """β from 1e-4 to 0.02 in equal steps at T = 1000 (Ho et al. 2020, section 4).

    For another T, log ᾱ is that curve read at t/T, so that the last step is as noisy and every β stays below 1.
    """
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-np.linspace(1e-4, 0.02, 1000)))])
    times = np.arange(num_timesteps + 1) * (1000 / num_timesteps)
    return schedule_from_betas(-np.expm1(np.diff(np.interp(times, np.arange(1001), log_alpha_bar))))


def cosine_schedule(num_timesteps: int) -> Schedule:
    """ᾱ_t = cos²(π/2 · (t/T + s)/(1 + s)) / its value at 0, s = 0.008, with β_t ≤ 0.999.

    Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17.
    """
    times = np.arange(num_timesteps + 1) / num_timesteps
    alpha_bar = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    return schedule_from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999))


def sigmoid_schedule(num_timesteps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """ᾱ_t = (g(1) − g(t/T)) / (g(1) − g(0)) with g(u) = sigmoid((start + u (end − start)) / tau), ᾱ_t ≥ 1e-9.

    Jabri et al. 2022 (arXiv 2212.11972), as in Chen 2023 (arXiv 2301.10972, Algorithm 1). A larger `tau` brings ᾱ
    closer to a straight line.
    """
    times = np.arange(num_timesteps + 1) / num_timesteps
    g = 1 / (1 + np.exp(-(start + times * (end - start)) / tau))
    alpha_bar = np.maximum((g[-1] - g) / (g[-1] - g[0]), 1e-9)
    return schedule_from_betas(1 - alpha_bar[1:] / alpha_bar[:-1])


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "sigmoid": sigmoid_schedule,
}


def levels_at(schedule: Schedule, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """√ᾱ_t and √(1−ᾱ_t) of t [B], each as float32 [B, 1, 1, 1] to stand before images."""
    signal, noise = (jnp.asarray(a, jnp.float32)[t][:, None, None, None] for a in (schedule.signal, schedule.noise))
    return signal, noise


def q_sample(schedule: Schedule, x_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x_t of q(x_t | x_0), Ho et al., equation 4: x_0 [B,H,W,C], t [B] in 0…T, normal eps [B,H,W,C] → [B,H,W,C]."""
    signal, noise = levels_at(schedule, t)
    return signal * x_0 + noise * eps


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(from_x_0 · x_0 + from_x_t · x_t, variance · I), s < t; scalars or arrays of one shape."""

    from_x_0: np.ndarray
    from_x_t: np.ndarray
    variance: np.ndarray


def posterior(schedule: Schedule, t: np.ndarray, s: np.ndarray) -> Posterior:
    """q(x_s | x_t, x_0) for 0 ≤ s < t ≤ T, integers or arrays of them; s = t − 1 is Ho et al., equations 6 and 7.

    Multiplies N(x_t; √(ᾱ_t/ᾱ_s) x_s, β_{t|s}) by N(x_s; √ᾱ_s x_0, 1−ᾱ_s), with β_{t|s} = 1 − ᾱ_t/ᾱ_s:
    mean (√ᾱ_s β_{t|s} x_0 + √(ᾱ_t/ᾱ_s) (1−ᾱ_s) x_t) / (1−ᾱ_t), variance (1−ᾱ_s)/(1−ᾱ_t) · β_{t|s}.
    """
    var_t, var_s = schedule.noise[t] ** 2, schedule.noise[s] ** 2
    beta = step_variance(schedule, t, s)
    from_x_t = schedule.signal[t] / schedule.signal[s] * var_s / var_t
    return Posterior(schedule.signal[s] * beta / var_t, from_x_t, beta * var_s / var_t)


def step_variance(schedule: Schedule, t: np.ndarray, s: np.ndarray) -> np.ndarray:
    """β_{t|s} = 1 − ᾱ_t/ᾱ_s, the noise that the steps s+1 … t add together; β_t for s = t − 1."""
    return 1 - schedule.alpha_bar[t] / schedule.alpha_bar[s]


def log_variances(schedule: Schedule, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log β̃ and log β_{t|s} of the steps between falling `times` [n+1] that end at 0: two arrays [n].

    β̃ = 0 in the last step, whose logarithm is clipped to that of the step before, as in the code of Nichol & Dhariwal
    (2021, arXiv 2102.09672); a single step has none before, and takes log β. `np.arange(T, -1, -1)` gives every step.
    """
    t, s = times[:-1], times[1:]
    log_beta, small = np.log(step_variance(schedule, t, s)), posterior(schedule, t, s).variance
    log_small = np.log(small[:-1])
    return np.append(log_small, log_small[-1:] if len(log_small) else log_beta), log_beta


def x0_from_eps(schedule: Schedule, x_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """(x_t − √(1−ᾱ_t) ε) / √ᾱ_t; divides by √ᾱ_t, so errors of ε grow towards t = T."""
    signal, noise = levels_at(schedule, t)
    return (x_t - noise * eps) / signal


def eps_from_x0(schedule: Schedule, x_t: jax.Array, t: jax.Array, x_0: jax.Array) -> jax.Array:
    """(x_t − √ᾱ_t x_0) / √(1−ᾱ_t); t ≥ 1."""
    signal, noise = levels_at(schedule, t)
    return (x_t - signal * x_0) / noise


def v_from_x0_eps(schedule: Schedule, t: jax.Array, x_0: jax.Array, eps: jax.Array) -> jax.Array:
    """v = √ᾱ_t ε − √(1−ᾱ_t) x_0 (Salimans & Ho 2022, arXiv 2202.00512, section 4)."""
    signal, noise = levels_at(schedule, t)
    return signal * eps - noise * x_0


def x0_eps_from_v(schedule: Schedule, x_t: jax.Array, t: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x_0 = √ᾱ_t x_t − √(1−ᾱ_t) v and ε = √(1−ᾱ_t) x_t + √ᾱ_t v: a rotation back, which divides by nothing."""
    signal, noise = levels_at(schedule, t)
    return signal * x_t - noise * v, noise * x_t + signal * v


def v_from_x0(schedule: Schedule, x_t: jax.Array, t: jax.Array, x_0: jax.Array) -> jax.Array:
    """(√ᾱ_t x_t − x_0) / √(1−ᾱ_t); t ≥ 1."""
    signal, noise = levels_at(schedule, t)
    return (signal * x_t - x_0) / noise


def v_from_eps(schedule: Schedule, x_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """(ε − √(1−ᾱ_t) x_t) / √ᾱ_t; divides by √ᾱ_t, so errors of ε grow towards t = T."""
    signal, noise = levels_at(schedule, t)
    return (eps - noise * x_t) / signal


def _snr(schedule: Schedule) -> np.ndarray:
    """ᾱ_t/(1−ᾱ_t), [T+1] in float64; infinite at t = 0."""
    return np.append(np.inf, (schedule.signal[1:] / schedule.noise[1:]) ** 2)


def snr(schedule: Schedule, t: jax.Array) -> jax.Array:
    """The signal-to-noise ratio ᾱ_t/(1−ᾱ_t) of t [B] in 0…T → float32 [B]; infinite at t = 0."""
    return jnp.asarray(_snr(schedule), jnp.float32)[t]


def min_snr_weight(schedule: Schedule, t: jax.Array, prediction: Prediction, gamma: float = 5.0) -> jax.Array:
    """The factor [B] of each example's squared error that weighs the error of x_0 by min(SNR, γ).

    Hang et al. 2023 (arXiv 2303.09556). ‖ε − ε̂‖² is SNR ‖x_0 − x̂_0‖² and ‖v − v̂‖² is (SNR + 1) ‖x_0 − x̂_0‖²: the
    factor is min(SNR, γ) for "x_0", min(SNR, γ)/SNR for "eps", min(SNR, γ)/(SNR + 1) for "v".

    Args:
      schedule: the noise levels.
      t: time steps [B] in 1…T.
      prediction: the target whose squared error is weighed.
      gamma: γ, the largest weight of the error of x_0; infinity weighs the error of ε evenly.

    Raises:
      ValueError: an unknown `prediction`.
    """
    if prediction not in get_args(Prediction):
        raise ValueError(f"unknown prediction {prediction!r}{closest(prediction, get_args(Prediction))}")
    ratio = _snr(schedule)[1:]
    error = {"x_0": np.ones_like(ratio), "eps": ratio, "v": ratio + 1}[prediction]
    return jnp.asarray(np.append(np.nan, np.minimum(ratio, gamma) / error), jnp.float32)[t]
