"""The bound of the diffusion models against the joint density: by Monte Carlo, and by quadrature for one pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.diffusion import bound
from jaxgen.diffusion.bound import draw_times, prior_term
from jaxgen.diffusion.denoisers import Denoised
from jaxgen.diffusion.schedules import cosine_schedule, linear_schedule, posterior, q_sample, schedule_from_betas

LEVELS = 8


def step_terms(schedule, x_0, x_t, t, guess, variance, levels):
    return jax.jit(lambda *args: bound.step_terms(schedule, *args, variance, levels))(x_0, x_t, t, guess)


def guess_x0(x_t, t):
    """Some denoiser; any one gives a bound."""
    return np.tanh(0.8 * x_t + 0.1 * t) * 0.9


def mix_of(x_t):
    return 0.5 + 0.4 * np.sin(x_t)


def decoder(schedule, x_t, t, variance):
    """Mean and standard deviation of p(x_{t−1}|x_t), in float64."""
    q = posterior(schedule, t, t - 1)
    # β̃_1 = 0 gives way to β̃_2 (Nichol & Dhariwal 2021).
    small, large = np.log(posterior(schedule, max(t, 2), max(t, 2) - 1).variance), np.log(schedule.beta[t])
    log_var = {"posterior": small, "beta": large, "learned": mix_of(x_t) * large + (1 - mix_of(x_t)) * small}[variance]
    return q.from_x_0 * guess_x0(x_t, t) + q.from_x_t * x_t, np.exp(0.5 * log_var) * np.ones_like(x_t)


def log_pixel(x_0, mean, std):
    """log P of the bin that holds x_0."""
    half = 1 / (LEVELS - 1)
    upper = np.where(x_0 > 1 - half, np.inf, (x_0 + half - mean) / std)
    lower = np.where(x_0 < -1 + half, -np.inf, (x_0 - half - mean) / std)
    mirrored = stats.norm.sf(lower) - stats.norm.sf(upper)
    return np.log(np.where(lower > 0, mirrored, stats.norm.cdf(upper) - stats.norm.cdf(lower)))


def estimate(schedule, variance, num):
    """A function of x_0, the times t [num] and a key: draws of the terms at t [num], and the prior's, bits per dim."""

    def ours(x_0, t, key):
        x = jnp.broadcast_to(x_0, (num, *x_0.shape))
        x_t = q_sample(schedule, x, t, jax.random.normal(key, x.shape))
        x_0_hat = jnp.tanh(0.8 * x_t + 0.1 * t[:, None, None, None]) * 0.9
        guess = Denoised(x_0_hat, jnp.zeros_like(x_t), 0.5 + 0.4 * jnp.sin(x_t))
        return bound.step_terms(schedule, x, x_t, t, guess, variance, LEVELS), prior_term(schedule, x_0[None])[0]

    return jax.jit(ours)


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
def test_the_three_terms_are_the_bound_of_the_chain(variance):
    """Σ of the terms = E_q [log q(x_1:T|x_0) − log p(x_0:T)] by ancestral sampling of q and plain densities."""
    schedule, rng, num = schedule_from_betas(np.array([0.1, 0.2, 0.4, 0.7])), np.random.default_rng(0), 200_000
    x_0 = np.array([-1.0, 3 / 7, 1.0]).reshape(3, 1, 1)
    ratio, x = np.zeros(num), np.broadcast_to(x_0, (num, *x_0.shape))
    T, total = schedule.num_timesteps, lambda a: a.sum((1, 2, 3))
    for t in range(1, T + 1):
        mean, std = np.sqrt(1 - schedule.beta[t]) * x, np.sqrt(schedule.beta[t])
        before, x = x, mean + std * rng.normal(size=x.shape)
        back, spread = decoder(schedule, x, t, variance)
        log_p = log_pixel(before, back, spread) if t == 1 else stats.norm.logpdf(before, back, spread)
        ratio += total(stats.norm.logpdf(x, mean, std) - log_p)
    ratio -= total(stats.norm.logpdf(x))
    expected, error = ratio.mean() / 3 / np.log(2), ratio.std() / np.sqrt(num) / 3 / np.log(2)

    t = jnp.repeat(jnp.arange(1, T + 1), 20_000)
    terms, prior = estimate(schedule, variance, len(t))(jnp.asarray(x_0, jnp.float32), t, jax.random.key(0))
    value = float(terms.reshape(T, -1).mean(1).sum() + prior)
    assert error < 0.003 * expected
    assert value == pytest.approx(expected, rel=0.01)


def test_the_bound_lies_below_log_p_and_not_only_below_p():
    """One pixel, T = 2: P(x_0) by quadrature sums to one. The lecture (E4) drops the logarithms."""
    schedule = schedule_from_betas(np.array([0.3, 0.6]))
    grid = np.linspace(-7, 7, 1401)
    mean, std = decoder(schedule, grid, 2, "posterior")
    x_1 = np.trapezoid(stats.norm.pdf(grid[:, None], mean, std) * stats.norm.pdf(grid), grid)  # p(x_1)
    pixels, log_p = np.linspace(-1, 1, LEVELS), []
    for x_0 in pixels:
        log_p.append(np.log(np.trapezoid(np.exp(log_pixel(x_0, *decoder(schedule, grid, 1, "posterior"))) * x_1, grid)))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-4)

    num, bounds = 20_000, []
    t, ours = jnp.repeat(jnp.array([1, 2]), num), estimate(schedule, "posterior", 2 * num)
    for i, x_0 in enumerate(pixels):
        terms, prior = ours(jnp.full((1, 1, 1), x_0, jnp.float32), t, jax.random.key(i))
        bounds.append(-np.log(2) * float(terms.reshape(2, -1).mean(1).sum() + prior))
    assert np.all(np.array(bounds) < np.array(log_p) + 0.01)
    assert np.all(np.array(bounds) > np.array(log_p) - 3), "a bound so loose says nothing"


def test_a_perfect_guess_costs_nothing_before_the_last_step():
    """With x̂_0 = x_0 and the posterior's variance every KL is zero."""
    schedule = linear_schedule(20)
    x_0 = jax.random.uniform(jax.random.key(0), (19, 2, 2, 1), minval=-1, maxval=1)
    t = jnp.arange(2, 21)
    x_t = q_sample(schedule, x_0, t, jax.random.normal(jax.random.key(1), x_0.shape))
    terms = step_terms(schedule, x_0, x_t, t, Denoised(x_0, x_0), "posterior", 256)
    np.testing.assert_allclose(terms, 0, atol=1e-6)
    assert float(step_terms(schedule, x_0, x_t, t, Denoised(x_0, x_0), "beta", 256)[0]) > 0.1


def test_learned_variances_span_the_two_fixed_ones():
    schedule = linear_schedule(20)
    x_0 = jnp.zeros((20, 2, 2, 1))
    t = jnp.arange(1, 21)
    x_t = q_sample(schedule, x_0, t, jax.random.normal(jax.random.key(1), x_0.shape))
    for mix, variance in ((0.0, "posterior"), (1.0, "beta")):
        guess = Denoised(0.5 * x_t, x_t, jnp.full_like(x_t, mix))
        fixed, learned = (step_terms(schedule, x_0, x_t, t, guess, v, 256) for v in (variance, "learned"))
        np.testing.assert_allclose(learned, fixed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
def test_drawn_times_estimate_means_over_time(make):
    """Without bias for any function of t, with weights of at most 2, and often where the signal is hardly touched."""
    schedule, f = make(1000), np.random.default_rng(0).normal(size=1001)
    draw = jax.jit(jax.vmap(lambda key: draw_times(schedule, key, 3, 2)))
    t, weight = map(np.asarray, draw(jax.random.split(jax.random.key(0), 20_000)))
    assert t.shape == (20_000, 2, 3) and t.min() == 2 and t.max() == 1000 and weight.max() <= 2
    values = weight * f[t]
    first = values[:, :, 0].mean(1)  # one example's estimates
    assert abs(first.mean() - f[2:].mean()) < 4 * first.std() / np.sqrt(len(first))
    assert (t <= 21).mean() > 3 * 20 / 999  # three times as often as by chance, or more
