import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from closed_forms import gaussian, pair
from jaxgen.diffusion import denoisers, samplers
from jaxgen.diffusion.schedules import cosine_schedule, linear_schedule

T = 1000


def test_clipping_bounds_the_guess_and_keeps_it_consistent_with_x_t():
    schedule = linear_schedule(T)
    wide = gaussian(schedule, 0.0, 3.0)
    predict = denoisers.clip_x0(lambda x, t, before: wide(x, t, before)._replace(variance_mix=0.3 * x), schedule)
    x_t, t = jnp.linspace(-3, 3, 9).reshape(9, 1, 1, 1), jnp.full(9, 300)
    x_0, eps, mix = predict(x_t, t, jnp.zeros_like(x_t))
    assert float(x_0.max()) == 1.0 and float(x_0.min()) == -1.0 and float(jnp.abs(x_0).min()) < 0.1
    np.testing.assert_allclose(schedule.signal[300] * x_0 + schedule.noise[300] * eps, x_t, atol=1e-5)
    np.testing.assert_array_equal(mix, 0.3 * x_t)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS.values(), ids=samplers.SAMPLERS)
def test_every_sampler_ends_on_the_known_pixels_exactly(sampler):
    schedule = cosine_schedule(T)
    known = jax.random.uniform(jax.random.key(0), (3, 4, 4, 2), minval=-1.0)
    mask = jax.random.bernoulli(jax.random.key(1), 0.5, (3, 4, 4, 1)).astype(jnp.float32)
    predict = denoisers.inpaint(gaussian(schedule, 0.0, 0.5), schedule, known, mask)
    run = jax.jit(lambda x, key: sampler(predict, schedule, x, key, 7))
    x = run(jax.random.normal(jax.random.key(2), known.shape), jax.random.key(3))
    drawn = np.broadcast_to(mask > 0, known.shape)
    np.testing.assert_array_equal(x[~drawn], known[~drawn])
    assert (x[drawn] != known[drawn]).all()


def test_a_guess_that_knows_part_of_the_image_is_consistent_with_x_t():
    schedule, t = cosine_schedule(T), jnp.array([10, 500, 999])
    x_t, known = (jax.random.normal(jax.random.key(i), (3, 2, 2, 1)) for i in (0, 1))
    mask = jnp.ones((3, 2, 2, 1)).at[:, 0].set(0.0)
    perfect = gaussian(schedule, 0.0, 0.5)
    guess, blind = (f(x_t, t, x_t) for f in (denoisers.inpaint(perfect, schedule, known, mask), perfect))
    np.testing.assert_array_equal(guess.x_0, jnp.where(mask > 0, blind.x_0, known))
    np.testing.assert_array_equal(guess.eps[:, 1], blind.eps[:, 1])
    signal, noise = (jnp.asarray(a, jnp.float32)[t][:, None, None, None] for a in (schedule.signal, schedule.noise))
    np.testing.assert_allclose(signal * guess.x_0 + noise * guess.eps, x_t, atol=1e-5)


@pytest.mark.parametrize("resample", [1, 3])
def test_the_known_regions_states_are_an_encoding_of_it(resample):
    # Of q(x_t, x_s | x_0): mean √ᾱ x_0, variance 1−ᾱ, and covariance √(ᾱ_t/ᾱ_s) (1−ᾱ_s) between neighbours.
    schedule, num, known = linear_schedule(T), 100_000, 1.5
    shape = num, 1, 1, 1
    predict = denoisers.inpaint(gaussian(schedule, 0.0, 1.0), schedule, jnp.full(shape, known), jnp.zeros(shape))
    x_T = jax.random.normal(jax.random.key(0), shape)
    run = lambda x, key: samplers.ancestral(predict, schedule, x, key, 5, path=True, resample=resample)
    path = np.asarray(harness.optimised(run)(x_T, jax.random.key(1)))
    path, times = path.reshape(6, num), samplers.time_steps(T, 5)
    for i in range(1, 5):
        t, s = times[i], times[i + 1]
        var = 1 - schedule.alpha_bar[t]
        assert path[i].mean() == pytest.approx(schedule.signal[t] * known, abs=0.02)
        assert path[i].var() == pytest.approx(var, rel=0.02)
        if resample == 1:  # more passes leave the state where the step began behind
            covariance = schedule.signal[t] / schedule.signal[s] * (1 - schedule.alpha_bar[s])
            assert np.cov(path[i], path[i + 1])[0, 1] == pytest.approx(covariance, abs=0.01)


def inpainted(num, steps, **options):
    """Mean and standard deviation of a pixel that correlates by 0.9 with another, which is known to be 1.5."""
    schedule = linear_schedule(T)
    known, mask = jnp.full((num, 1, 2, 1), 1.5), jnp.zeros((num, 1, 2, 1)).at[:, :, 1].set(1.0)
    predict = denoisers.inpaint(pair(schedule, 0.9), schedule, known, mask)
    x_T = jax.random.normal(jax.random.key(0), known.shape)
    run = harness.optimised(lambda x, key: samplers.ancestral(predict, schedule, x, key, steps, **options))
    x = np.asarray(run(x_T, jax.random.key(1)))
    return x[:, 0, 1, 0].mean(), x[:, 0, 1, 0].std()


def test_resampling_brings_the_drawn_pixels_to_their_conditional_distribution():
    """N(1.35, 0.436²) is right. At 1000 evaluations each; the noisy known region alone pulls too weakly."""
    right = 0.9 * 1.5, np.sqrt(1 - 0.9**2)
    plain, resampled = inpainted(10_000, 1000), inpainted(10_000, 100, resample=10, variance="beta")
    assert plain == pytest.approx((0.94, 0.59), abs=0.02)
    assert resampled == pytest.approx(right, abs=0.05)


def test_guidance_is_ho_and_salimans():
    cond, uncond = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])
    w = 0.7
    np.testing.assert_allclose(denoisers.guide(cond, uncond, 1 + w), (1 + w) * cond - w * uncond, rtol=1e-6)
    np.testing.assert_allclose(denoisers.guide(cond, uncond, 1.0), cond)
    np.testing.assert_allclose(denoisers.guide(cond, uncond, 0.0), uncond)


def test_guided_sampling_of_gaussians_moves_their_mean_at_one_call_a_step():
    # Scores of N(m, 1) at weight `scale` and N(0, 1) at 1 − scale add up to that of N(scale · m, 1).
    schedule, calls = linear_schedule(T), []
    cond, uncond = gaussian(schedule, 0.6, 1.0), gaussian(schedule, 0.0, 1.0)

    def both(x, t, before):
        calls.append(x.shape)
        rows = cond(x[::2], t[::2], before[::2]), uncond(x[1::2], t[1::2], before[1::2])
        guess = jax.tree.map(lambda *both: jnp.stack(both, 1).reshape(x.shape), *rows)
        return guess._replace(variance_mix=jnp.arange(8.0)[:, None, None, None] * jnp.ones_like(x))

    x_t = jax.random.normal(jax.random.key(0), (4, 2, 2, 1))
    predict, expected = denoisers.guided(both, 3.0), gaussian(schedule, 3 * 0.6, 1.0)
    t = jnp.array([1, 50, 500, 1000])
    found, right = (f(x_t, t, jnp.zeros_like(x_t)) for f in (predict, expected))
    np.testing.assert_allclose(found.x_0, right.x_0, atol=1e-5)
    np.testing.assert_allclose(found.eps, right.eps, atol=1e-5)
    np.testing.assert_array_equal(found.variance_mix[:, 0, 0, 0], 2 * jnp.arange(4.0))  # the conditional rows'
    assert calls == [(8, 2, 2, 1)]
    draw = lambda f: samplers.ddim(f, schedule, x_t, jax.random.key(1), 10)
    np.testing.assert_allclose(*jax.jit(lambda: (draw(predict), draw(expected)))(), atol=1e-4)
