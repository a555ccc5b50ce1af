"""Samplers of diffusion models: pure functions of one signature, each one `lax.scan`.

`sampler(predict, schedule, x_T, key, steps, *, path=False, …) -> x_0`, where `predict` is any denoiser: a network of
any parametrisation or a closed form, clipped, guided, or told a part of the image (see `denoisers`). A sampler holds
its own arithmetic only, the coefficients of its steps, computed in float64.

Lecture erratum E6: Algorithm 2 divides by √(1−α_t); it is √(1−ᾱ_t). With the lecture's divisor and a perfect predictor,
N(0, 1) data come out with standard deviation 0.303. The lecture leaves σ_t open: σ_t² = β_t and β̃_t are the paper's
two choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import closest
from jaxgen.diffusion.denoisers import Denoised, Predict
from jaxgen.diffusion.schedules import Schedule, log_variances, posterior, step_variance

Variance = Literal["posterior", "beta", "learned"]


def time_steps(num_timesteps: int, steps: int) -> np.ndarray:
    """`steps` + 1 falling times, evenly spaced from T to 0 and rounded: [steps+1], all different.

    Both ends are exact: a spacing that misses T starts from an image too noisy for its label (Lin et al. 2023,
    arXiv 2305.08891).

    Raises:
      ValueError: `steps` outside 1…T.
    """
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps={steps} must lie in 1…{num_timesteps} (num_timesteps)")
    return np.round(np.linspace(num_timesteps, 0, steps + 1)).astype(np.int32)


def check_noise(eta: float = 0.0, noise_scale: float = 1.0, resample: int = 1) -> None:
    """Raises a ValueError for an option of `ddim` or `ancestral` that is out of range."""
    for fine, message in (
        (0 <= eta <= 1, f"eta={eta} must lie in 0…1"),
        (noise_scale >= 0, f"noise_scale={noise_scale} must be 0 or more"),
        (resample >= 1, f"resample={resample} must be 1 (no going back) or more"),
    ):
        if not fine:
            raise ValueError(message)


class _Terms(NamedTuple):
    """Coefficients of each evaluation, [evaluations] or scalars: x ← x_0 · x̂_0 + x · x + eps · ε̂ + … + noise.

    The noise's variance is variance · exp(log_ratio · variance_mix) + fresh; without a learned variance, log_ratio is
    None.
    """

    x_0: np.ndarray
    x: np.ndarray | float = 0.0
    eps: np.ndarray | float = 0.0
    x_0_before: np.ndarray | float = 0.0
    eps_before: np.ndarray | float = 0.0
    variance: np.ndarray | float = 0.0
    log_ratio: np.ndarray | None = None
    fresh: np.ndarray | float = 0.0


def _walk(
    predict: Predict,
    x_T: jax.Array,
    key: jax.Array,
    times: np.ndarray,
    terms: _Terms,
    path: bool,
    ends: np.ndarray | slice = np.s_[:],
) -> jax.Array:
    """Scans over the evaluations of `predict` at `times`; `ends` are those that end a step, all by default."""
    noisy = np.any(terms.variance) or np.any(terms.fresh)

    def evaluate(carry, inputs):
        x, before = carry
        t, row, key_z = inputs
        guess = predict(x, jnp.full(x.shape[:1], t), before.x_0)
        x = row.x_0 * guess.x_0 + row.x * x + row.eps * guess.eps
        x += row.x_0_before * before.x_0 + row.eps_before * before.eps
        if noisy:
            variance = row.variance
            if row.log_ratio is not None:
                if guess.variance_mix is None:
                    raise ValueError('variance="learned" needs a network that predicts its variance, unlike this one')
                variance = variance * jnp.exp(row.log_ratio * guess.variance_mix)
            x += jnp.sqrt(variance + row.fresh) * jax.random.normal(key_z, x.shape, x.dtype)
        return (x, Denoised(guess.x_0, guess.eps)), x if path else None

    rows = jax.tree.map(lambda column: jnp.asarray(np.broadcast_to(column, times.shape), x_T.dtype), terms)
    start = x_T, Denoised(jnp.zeros_like(x_T), jnp.zeros_like(x_T))
    inputs = jnp.asarray(times), rows, jax.random.split(key, len(times))
    (x_0, _), states = jax.lax.scan(evaluate, start, inputs)
    return jnp.concatenate([x_T[None], states[ends]]) if path else x_0


def ancestral(
    predict: Predict,
    schedule: Schedule,
    x_T: jax.Array,
    key: jax.Array,
    steps: int,
    *,
    path: bool = False,
    variance: Variance = "posterior",
    noise_scale: float = 1.0,
    resample: int = 1,
) -> jax.Array:
    """Draws each x_s from a Gaussian with the mean of q(x_s | x_t, x̂_0) (Ho et al. 2020, Algorithm 2).

    Fewer steps than T skip times. In the paper's form the mean is (x_t − β_t/√(1−ᾱ_t) ε̂) / √(1−β_t), the same number.
    No noise is added in the last step.

    Args:
      predict: see the module.
      schedule: the noise levels.
      x_T: standard normal [B,H,W,C].
      key: drives the noise of all steps.
      steps: number of steps, 1…T.
      path: whether to return the states after each step, x_T first.
      variance: σ² is β_{t|s} ("beta", right for x_0 ~ N(0, I)), β̃ ("posterior", right for a single x_0), or lies
        between them as the network says ("learned", see `Denoised`).
      noise_scale: factor of σ. A network is less sure of x_0 than its data are: its guesses are means, a little too
        near the data's, and what it denoises has a little too much removed. Somewhat more noise than is right for a
        perfect network gives the detail back (Karras et al. 2022, arXiv 2206.00364, section 4, S_noise).
      resample: passes over each step, all but the last of which go back to x_t by adding the noise again; for `inpaint`
        (RePaint, Algorithm 1). Each costs an evaluation of `predict`.

    Returns:
      x_0 [B,H,W,C], or with `path` all states [steps+1, B,H,W,C].

    Raises:
      ValueError: an unknown `variance`, or one that `predict` does not give; `noise_scale` below 0, `resample` below 1,
        `steps` out of range.
    """
    if variance not in get_args(Variance):
        raise ValueError(f"unknown variance {variance!r}{closest(str(variance), get_args(Variance))}")
    check_noise(noise_scale=noise_scale, resample=resample)
    times = time_steps(schedule.num_timesteps, steps)
    log_small, log_large = log_variances(schedule, times)
    log_variance = log_large if variance == "beta" else log_small
    t, s = (np.repeat(part, resample) for part in (times[:-1], times[1:]))
    again = np.arange(len(t)) % resample < resample - 1
    # Going back is x ← √(ᾱ_t/ᾱ_s) x + √β_{t|s} z, here in one with the step before it.
    back = np.where(again, schedule.signal[t] / schedule.signal[s], 1.0)
    fresh = np.where(again, step_variance(schedule, t, s), 0.0)
    q = posterior(schedule, t, s)
    var = noise_scale**2 * np.where(s > 0, np.exp(np.repeat(log_variance, resample)), 0.0)
    log_ratio = np.repeat(log_large - log_small, resample) if variance == "learned" else None
    terms = _Terms(q.from_x_0 * back, q.from_x_t * back, variance=var * back**2, log_ratio=log_ratio, fresh=fresh)
    return _walk(predict, x_T, key, t, terms, path, np.s_[resample - 1 :: resample])


def ddim(
    predict: Predict,
    schedule: Schedule,
    x_T: jax.Array,
    key: jax.Array,
    steps: int,
    *,
    path: bool = False,
    eta: float = 0.0,
) -> jax.Array:
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, equations 12 and 16).

    x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s−σ²) ε̂ + σ z with σ² = η² β̃.

    Args:
      predict, schedule, x_T, path: see `ancestral`.
      key: drives the noise; it plays no part at `eta` = 0, where x_0 is a function of x_T.
      steps: number of steps, each an evaluation of `predict`, 1…T.
      eta: η in [0, 1]; 1 is `ancestral` with the posterior's variance.

    Returns:
      x_0 [B,H,W,C], or with `path` all states [steps+1, B,H,W,C].

    Raises:
      ValueError: `eta` or `steps` out of range.
    """
    check_noise(eta)
    times = time_steps(schedule.num_timesteps, steps)
    t, s = times[:-1], times[1:]
    variance = eta**2 * posterior(schedule, t, s).variance
    direction = np.sqrt(np.maximum(schedule.noise[s] ** 2 - variance, 0.0))
    return _walk(predict, x_T, key, t, _Terms(schedule.signal[s], eps=direction, variance=variance), path)


def dpm_solver(
    predict: Predict, schedule: Schedule, x_T: jax.Array, key: jax.Array, steps: int, *, path: bool = False
) -> jax.Array:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2): second order at one evaluation a step.

    With λ = log(√ᾱ/√(1−ᾱ)), h = λ_s − λ_t and r = h_before/h, x_s = √(1−ᾱ_s)/√(1−ᾱ_t) x_t − √ᾱ_s (e^{−h} − 1) D with
    D = (1 + 1/2r) x̂_0 − 1/2r x̂_0,before. The first step knows no guess before its own, and in the last, to s = 0, h is
    infinite: both are of first order (D = x̂_0), so that the last returns x̂_0. x_0 is a function of x_T: `key` plays no
    part. For the rest see `ddim`.
    """
    times = time_steps(schedule.num_timesteps, steps)
    t, s = times[:-1], times[1:]
    from_x_t = schedule.noise[s] / schedule.noise[t]
    from_x_0 = schedule.signal[s] - from_x_t * schedule.signal[t]  # e^{−h} = √(1−ᾱ_s)/√ᾱ_s · √ᾱ_t/√(1−ᾱ_t)
    h = np.diff(np.log(schedule.signal[t] / schedule.noise[t]))  # all but the last
    ahead = np.zeros(steps)
    ahead[1:-1] = h[1:] / (2 * h[:-1])
    terms = _Terms(from_x_0 * (1 + ahead), from_x_t, x_0_before=-from_x_0 * ahead)
    return _walk(predict, x_T, key, t, terms, path)


def heun(
    predict: Predict, schedule: Schedule, x_T: jax.Array, key: jax.Array, steps: int, *, path: bool = False
) -> jax.Array:
    """Heun's method (Karras et al. 2022, arXiv 2206.00364, Algorithm 1, no churn): second order, 2·steps−1 evaluations.

    It solves dx̄/dσ = ε̂ in x̄ = x/√ᾱ, σ = √(1−ᾱ)/√ᾱ. An Euler step is x̄_s = x̄_t + (σ_s − σ_t) ε̂_t, which is `ddim`'s;
    Heun adds (σ_s − σ_t)/2 (ε̂_s − ε̂_t) with the guess at its end, except in the last step. A turn of the scan is one
    evaluation. x_0 is a function of x_T: `key` plays no part. For the rest see `ddim`.

    Deviation: no correction where σ falls to less than a twentieth. The cosine and the sigmoid schedule end at σ = 2e4
    and 3e4, and half of such a step would be ε̂_s, which holds for a far shorter one: perfectly denoised N(0, 1) data
    come out of 20 steps with standard deviation 5.8 and 36 by the letter, 1.00 and 0.99 this way.
    """
    times = time_steps(schedule.num_timesteps, steps)
    t, s = times[:-1], times[1:]
    sigma_t, sigma_s = (schedule.noise[time] / schedule.signal[time] for time in (t, s))
    half = np.where(sigma_t < 20 * sigma_s, schedule.signal[s] * (sigma_s - sigma_t) / 2, 0.0)
    # Turns try a step at its start t and correct it at its end s, but for the last: T, s_1, s_1, s_2, s_2, …
    weave = lambda tried, corrected: np.stack(np.broadcast_arrays(tried, corrected, t)[:2], axis=1).ravel()[:-1]
    terms = _Terms(
        x_0=weave(schedule.signal[s], 0.0),
        x=weave(0.0, 1.0),
        eps=weave(schedule.noise[s], half),
        eps_before=weave(0.0, -half),
    )
    ends = np.append(np.arange(1, 2 * steps - 2, 2), 2 * steps - 2)
    return _walk(predict, x_T, key, weave(t, s), terms, path, ends)


SAMPLERS: dict[str, Callable[..., jax.Array]] = {
    "ddim": ddim,
    "ancestral": ancestral,
    "dpm_solver": dpm_solver,
    "heun": heun,
}
