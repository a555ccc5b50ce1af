from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial, stats

import harness
from closed_forms import gaussian, mixture
from jaxgen.diffusion import samplers
from jaxgen.diffusion.drawing import Sampler, slerp
from jaxgen.diffusion.schedules import (
    cosine_schedule,
    linear_schedule,
    posterior,
    schedule_from_betas,
    sigmoid_schedule,
)

T = 1000
EVERY = pytest.mark.parametrize("sampler", samplers.SAMPLERS.values(), ids=samplers.SAMPLERS)


def draw(sampler, schedule, mean=0.0, std=1.0, num=20_000, steps=T, **options):
    key_x, key = jax.random.split(jax.random.key(0))
    x_T = jax.random.normal(key_x, (num, 1, 1, 1))
    run = harness.optimised(lambda x, key: sampler(gaussian(schedule, mean, std), schedule, x, key, steps, **options))
    return np.asarray(x_T).ravel(), np.asarray(run(x_T, key)).ravel()


def test_the_option_names_every_sampler():
    assert get_args(Sampler) == tuple(samplers.SAMPLERS)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 1000])
def test_times_fall_from_T_to_the_clean_image(steps):
    times = samplers.time_steps(T, steps)
    assert times[0] == T and times[-1] == 0 and len(times) == steps + 1
    assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match="1…1000"):
        samplers.time_steps(T, steps)


@pytest.mark.parametrize(("variance", "expected"), [("beta", 1.0), ("posterior", 0.9955)])
def test_ancestral_sampling_with_a_perfect_predictor_returns_the_data(variance, expected):
    _, x = draw(samplers.ancestral, linear_schedule(T), num=40_000, variance=variance)
    assert x.std() == pytest.approx(expected, abs=0.01)
    assert x.mean() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(("mean", "std", "sound", "lecture"), [(0.0, 1.0, 1.000, 0.303), (2.0, 0.5, 0.5008, 0.175)])
def test_the_lectures_sampling_step_shrinks_the_data(mean, std, sound, lecture):
    # Erratum E6. With a perfect predictor every step is affine, x ← c x + d + σ z, so the final variance is exact. The
    # lecture divides ε by √(1−α_t), the paper by √(1−ᾱ_t).
    schedule = linear_schedule(T)

    def final_std(divisor):
        var = 1.0
        for t in range(T, 0, -1):
            beta, a, b = schedule.beta[t], schedule.signal[t], schedule.noise[t]
            slope = (1 - beta / divisor(t) * b / (a**2 * std**2 + b**2)) / np.sqrt(1 - beta)
            var = slope**2 * var + (beta if t > 1 else 0.0)
        return np.sqrt(var)

    assert final_std(lambda t: schedule.noise[t]) == pytest.approx(sound, abs=1e-3)
    assert final_std(lambda t: np.sqrt(schedule.beta[t])) == pytest.approx(lecture, abs=0.002)
    _, x = draw(samplers.ancestral, schedule, mean, std, variance="beta")
    assert x.std() == pytest.approx(sound, rel=0.02)
    assert x.mean() == pytest.approx(mean, abs=0.03)


@pytest.mark.parametrize("steps", [1, 5, 50])
@pytest.mark.parametrize("schedule", [linear_schedule(T), cosine_schedule(T)], ids=["linear", "cosine"])
def test_ddim_with_a_perfect_predictor_of_standard_normal_data_turns_by_the_angle_of_each_step(schedule, steps):
    # With signal = cos φ and noise = sin φ, x_s = (cos φ_s cos φ_t + sin φ_s sin φ_t) x_t = cos(φ_t − φ_s) x_t.
    x_T, x = draw(samplers.ddim, schedule, num=50, steps=steps)
    angles = np.arctan2(schedule.noise, schedule.signal)[samplers.time_steps(T, steps)]
    np.testing.assert_allclose(x, np.prod(np.cos(np.diff(angles))) * x_T, atol=1e-4)


@EVERY
def test_one_known_image_is_returned_exactly(sampler):
    _, x = draw(sampler, cosine_schedule(T), mean=0.7, std=0.0, num=50, steps=20)
    np.testing.assert_allclose(x, 0.7, atol=1e-5)


@pytest.mark.parametrize("steps", [T, 20])
def test_ddim_at_eta_one_is_ancestral_sampling_with_the_posteriors_variance(steps):
    schedule = linear_schedule(T)
    _, ancestral = draw(samplers.ancestral, schedule, 0.3, 0.5, num=100, steps=steps, variance="posterior")
    _, ddim = draw(samplers.ddim, schedule, 0.3, 0.5, num=100, steps=steps, eta=1.0)
    np.testing.assert_allclose(ddim, ancestral, atol=2e-3)
    _, eta_0 = draw(samplers.ddim, schedule, 0.3, 0.5, num=100, steps=steps, eta=0.0)
    assert np.abs(eta_0 - ancestral).max() > 0.1


def test_skipping_times_uses_the_variance_of_the_whole_jump():
    # One jump T → s, then s → 0: Var x_0 by hand from the two affine steps, for data N(0, 1) and σ² = β̃.
    schedule = linear_schedule(T)
    t, s = T, 500
    q = posterior(schedule, t, s)
    for scale in (1.0, 1.5):
        _, x = draw(samplers.ancestral, schedule, num=200_000, steps=2, noise_scale=scale)
        var = (q.from_x_0 * schedule.signal[t] + q.from_x_t) ** 2 + scale**2 * q.variance
        assert x.var() == pytest.approx(schedule.signal[s] ** 2 * var, rel=0.01)


REFERENCES = {
    "ddpm_posterior": (samplers.ancestral, {"variance": "posterior"}),
    "ddpm_beta": (samplers.ancestral, {"variance": "beta"}),
    "ddpm_learned": (samplers.ancestral, {"variance": "learned"}),
    "ddim_0": (samplers.ddim, {"eta": 0.0}),
    "ddim_1": (samplers.ddim, {"eta": 1.0}),
    "dpm_solver": (samplers.dpm_solver, {}),
    "heun": (samplers.heun, {}),
}


@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_state_is_that_of_diffusers(name, steps, monkeypatch):
    """On a mixture of Gaussians, with the same noise; references/make.py says what was run.

    Measured: at most 2.5e-6 apart. Settings that make both the same: trailing spacing, no clipping, a last step to
    σ = 0 (of first order in DPM-Solver++). What remains: their ᾱ is a float32 product, which moves states by 2e-6;
    their DDPM adds noise in its last step unless that is from timestep 0 (it is given zeros here); their pipeline would
    start Heun at σ_T x_T, and here it starts at √(1+σ_T²) x_T, which is x_T exactly.
    """
    with np.load(Path(__file__).parent / "references" / "trajectories.npz") as saved:
        x_T, noise, expected = saved["x_T"], saved["noise"], saved[f"{name}_{steps}"]
    schedule, (sampler, options) = linear_schedule(T), REFERENCES[name]
    predict = mixture(schedule, [0.3, 0.5, 0.2], [-1.0, 0.2, 0.9], [0.1, 0.3, 0.2])
    monkeypatch.setattr(jax.random, "split", lambda key, num: jnp.arange(num))  # the key of a step is its number
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.asarray(noise, dtype)[key])
    run = jax.jit(lambda x: sampler(predict, schedule, x, None, steps, path=True, **options))
    path = run(jnp.asarray(x_T, jnp.float32))
    assert path.shape == (steps + 1, 4, 2, 2, 1)
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2), ("heun", 2)])
def test_the_order_of_convergence_on_the_probability_flow_of_a_mixture(name, order):
    """In one dimension the flow keeps every quantile, so that x_0 = F_0⁻¹(F_T(x_T)) exactly.

    Measured slopes, 20 to 160 steps: -0.99 (DDIM), -2.04 (DPM-Solver++), -2.08 (Heun); errors at 160 steps: 1.1e-2,
    2.4e-4, 3.6e-4. Times are evenly spaced in log σ from 50 to 1e-3; on schedules whose σ falls to the last step like
    √t or t, that step, of first order, takes its share.
    """
    weights, means, stds = (np.array(x)[:, None] for x in ([0.4, 0.6], [-1.0, 0.7], [0.4, 0.3]))
    sigma = np.append(0.0, 1e-3 * 5e4 ** (np.arange(1, 641) / 640))
    alpha_bar = 1 / (1 + sigma**2)
    schedule = schedule_from_betas(1 - alpha_bar[1:] / alpha_bar[:-1])

    def cdf(x, t):
        signal, noise = schedule.signal[t], schedule.noise[t]
        return (weights * stats.norm.cdf(x, signal * means, np.sqrt((signal * stds) ** 2 + noise**2))).sum(0)

    x_T = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    low, high = np.full(200, -9.0), np.full(200, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = cdf(middle, 0) < cdf(x_T, 640)
        low, high = np.where(below, middle, low), np.where(below, high, middle)

    predict = mixture(schedule, weights[:, 0], means[:, 0], stds[:, 0])
    start, steps = jnp.asarray(x_T, jnp.float32)[:, None, None, None], np.array([20, 40, 80, 160])
    run = jax.jit(
        lambda x, num: samplers.SAMPLERS[name](predict, schedule, x, jax.random.key(0), num), static_argnums=1
    )
    ends = [run(start, num) for num in steps.tolist()]
    errors = [np.sqrt(np.mean((np.asarray(x_0).ravel() - low) ** 2)) for x_0 in ends]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.1)
    assert errors[-1] < (0.015 if order == 1 else 5e-4)


@pytest.mark.parametrize("schedule", [cosine_schedule(T), sigmoid_schedule(T)], ids=["cosine", "sigmoid"])
@pytest.mark.parametrize("name", ["dpm_solver", "heun"])
def test_second_order_samplers_survive_schedules_that_start_at_enormous_noise(name, schedule):
    # By the letter, Heun's first step from σ = 2e4 (or 3e4) to 13 blows the standard deviation up to 5.8 (or 36).
    x_T, x = draw(samplers.SAMPLERS[name], schedule, num=50, steps=20)
    np.testing.assert_allclose(x, x_T, atol=0.05)


@pytest.mark.parametrize(("mix", "variance"), [(0.0, "posterior"), (1.0, "beta")])
def test_a_learned_variance_lies_between_the_two_fixed_ones(mix, variance):
    schedule, x_T = linear_schedule(T), jax.random.normal(jax.random.key(0), (50, 1, 1, 1))
    perfect = gaussian(schedule, 0.3, 0.5)
    predict = lambda x, t, before: perfect(x, t, before)._replace(variance_mix=jnp.full_like(x, mix))
    run = lambda x, key, name: samplers.ancestral(predict, schedule, x, key, 10, variance=name, path=True)
    learned, fixed = (jax.jit(run, static_argnums=2)(x_T, jax.random.key(1), name) for name in ("learned", variance))
    np.testing.assert_allclose(learned, fixed, atol=1e-5)
    with pytest.raises(ValueError, match="predicts its variance"):
        samplers.ancestral(perfect, schedule, x_T, jax.random.key(2), 10, variance="learned")


@EVERY
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_each_evaluation_sees_the_guess_before_it(sampler, steps):
    seen, schedule = [], cosine_schedule(T)
    perfect = gaussian(schedule, 0.3, 0.5)

    def predict(x, t, before):
        guess = perfect(x, t, before)
        seen.append((int(t[0]), np.asarray(before), np.asarray(guess.x_0)))
        return guess

    x_T = jax.random.normal(jax.random.key(0), (5, 1, 1, 1))
    with jax.disable_jit():
        path = sampler(predict, schedule, x_T, jax.random.key(1), steps, path=True)
    times, before, guesses = zip(*seen, strict=True)
    expected = samplers.time_steps(T, steps)[:-1]
    # Heun: twice at every time but the first, 2·steps − 1 in all.
    assert list(times) == (np.repeat(expected, 2)[1:] if sampler is samplers.heun else expected).tolist()
    np.testing.assert_array_equal(np.stack(before), np.stack([0 * guesses[0], *guesses[:-1]]))
    np.testing.assert_array_equal(path[0], x_T)
    np.testing.assert_allclose(path[-1], guesses[-1], atol=1e-6)  # every sampler ends on its last guess


@EVERY
def test_the_path_ends_where_the_sampler_does_and_any_number_of_steps_compiles_one_evaluation(sampler):
    traced, schedule = [], cosine_schedule(T)

    def predict(x, t, before):
        traced.append(t)
        return gaussian(schedule, 0.3, 0.5)(x, t, before)

    x_T, counts = jax.random.normal(jax.random.key(0), (5, 1, 1, 1)), []
    for steps in (3, 40):
        traced.clear()
        run = lambda x, key, path, steps=steps: sampler(predict, schedule, x, key, steps, path=path)
        run = jax.jit(run, static_argnums=2)
        path = run(x_T, jax.random.key(1), True)
        counts.append(len(traced))
        assert path.shape == (steps + 1, 5, 1, 1, 1)
        np.testing.assert_array_equal(path[-1], run(x_T, jax.random.key(1), False))
    assert counts[0] == counts[1] <= 2


def test_going_back_over_a_step_leaves_a_perfect_denoisers_samples_alone():
    # On N(0, 1) data with σ² = β, every step and every way back keep N(0, 1); the last step has no noise.
    for resample in (1, 3):
        _, x = draw(samplers.ancestral, linear_schedule(T), num=40_000, steps=100, variance="beta", resample=resample)
        assert x.std() == pytest.approx(linear_schedule(T).signal[10], abs=0.01)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (samplers.ancestral, {"variance": "bet"}, "did you mean beta"),
        (samplers.ancestral, {"resample": 0}, "resample=0 must be 1"),
        (samplers.ddim, {"eta": 1.5}, "eta=1.5 must lie in 0…1"),
        (samplers.ancestral, {"noise_scale": -1.0}, "noise_scale=-1.0 must be 0 or more"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(sampler, options, message):
    schedule = linear_schedule(T)
    with pytest.raises(ValueError, match=message):
        sampler(gaussian(schedule, 0.0, 1.0), schedule, jnp.zeros((1, 1, 1, 1)), jax.random.key(0), 10, **options)


def test_slerp_is_scipys_on_the_sphere_and_interpolates_norms():
    a, b = 3 * jax.random.normal(jax.random.key(0), (2, 2, 3, 1)), jax.random.normal(jax.random.key(1), (2, 2, 3, 1))
    weights = jnp.linspace(0.0, 1.0, 5)
    mixed = np.asarray(jax.jit(slerp)(a, b, weights))
    assert mixed.shape == (5, 2, 2, 3, 1)
    for i in range(2):
        u, v = (np.asarray(x[i], np.float64).ravel() for x in (a, b))
        norms = np.linalg.norm(u) * (1 - weights) + np.linalg.norm(v) * weights
        circle = spatial.geometric_slerp(u / np.linalg.norm(u), v / np.linalg.norm(v), np.asarray(weights, np.float64))
        np.testing.assert_allclose(mixed[:, i].reshape(5, -1), circle * np.asarray(norms)[:, None], atol=1e-5)


def test_slerp_of_almost_equal_noises_is_a_straight_line():
    a = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    for b in (a, a + 1e-5, 2 * a):
        mixed = jax.jit(slerp)(a, b, jnp.array([0.0, 0.25, 1.0]))
        np.testing.assert_allclose(mixed, jnp.stack([a, 0.75 * a + 0.25 * b, b]), atol=1e-5)
