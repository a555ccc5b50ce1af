import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import samplers
from jaxgen.diffusion.schedules import cosine_schedule, linear_schedule, posterior

T = 1000


def perfect(schedule, mean, std):
    """The best denoiser there is for data N(mean, std²): E[x_0 | x_t], and the ε that belongs to it."""
    signal, noise = jnp.asarray(schedule.signal, jnp.float32), jnp.asarray(schedule.noise, jnp.float32)

    def predict(x, t):
        a, b = (level[t][:, None, None, None] for level in (signal, noise))
        excess = (x - a * mean) / (a**2 * std**2 + b**2)
        return mean + std**2 * a * excess, b * excess

    return predict


def draw(sampler, schedule, mean=0.0, std=1.0, num=20_000, steps=T, **options):
    key_x, key = jax.random.split(jax.random.key(0))
    x_T = jax.random.normal(key_x, (num, 1, 1, 1))
    run = jax.jit(lambda x, key: sampler(perfect(schedule, mean, std), schedule, x, key, steps, **options))
    return np.asarray(x_T).ravel(), np.asarray(run(x_T, key)).ravel()


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


@pytest.mark.parametrize("sampler", [samplers.ddim, samplers.ancestral])
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
    _, x = draw(samplers.ancestral, schedule, num=200_000, steps=2)
    t, s = T, 500
    q = posterior(schedule, t, s)
    var = (q.from_x_0 * schedule.signal[t] + q.from_x_t) ** 2 + q.variance
    assert x.var() == pytest.approx(schedule.signal[s] ** 2 * var, rel=0.01)


def test_clipping_bounds_the_guess_and_keeps_it_consistent_with_x_t():
    schedule = linear_schedule(T)
    predict = samplers.clip_x0(perfect(schedule, 0.0, 3.0), schedule)
    x_t, t = jnp.linspace(-3, 3, 9).reshape(9, 1, 1, 1), jnp.full(9, 300)
    x_0, eps = predict(x_t, t)
    assert float(x_0.max()) == 1.0 and float(x_0.min()) == -1.0 and float(jnp.abs(x_0).min()) < 0.1
    np.testing.assert_allclose(schedule.signal[300] * x_0 + schedule.noise[300] * eps, x_t, atol=1e-5)
