import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxgen.diffusion import schedules as S

T = 1000


def test_linear_schedule_is_the_papers():
    schedule = S.linear_schedule(T)
    np.testing.assert_allclose(schedule.beta[1:], np.linspace(1e-4, 0.02, T), rtol=1e-9)
    np.testing.assert_allclose(schedule.alpha_bar, np.cumprod(1 - schedule.beta), rtol=1e-9)
    assert schedule.num_timesteps == T and schedule.alpha_bar[0] == 1 and schedule.beta[0] == 0
    assert schedule.alpha_bar[T] == pytest.approx(4.04e-5, rel=0.01)  # Ho et al.: 4e-5 of the signal's variance is left


@pytest.mark.parametrize("num_timesteps", [4, 10, 50, 250, 4000])
def test_linear_schedule_is_the_same_curve_at_any_number_of_steps(num_timesteps):
    schedule, paper = S.linear_schedule(num_timesteps), S.linear_schedule(T)
    assert schedule.alpha_bar[-1] == pytest.approx(paper.alpha_bar[-1])
    assert schedule.alpha_bar[num_timesteps // 2] == pytest.approx(paper.alpha_bar[T // 2])
    assert np.all((schedule.beta[1:] > 0) & (schedule.beta[1:] < 1))


def test_cosine_schedule_is_nichol_and_dhariwals():
    schedule = S.cosine_schedule(T)
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:-1], (f / f[0])[:-1], rtol=1e-9)
    assert schedule.beta.max() == 0.999  # the last step, where the unclipped β would be 1


def test_a_beta_outside_zero_to_one_is_refused():
    for betas in ([0.1, 1.0], [0.0], []):
        with pytest.raises(ValueError, match="between 0 and 1"):
            S.schedule_from_betas(betas)


def test_two_steps_add_independent_noise():
    # Erratum E1: β = (.1, .2) leaves variance .28; the lecture's (1−β_1)β_2 + β_2 is .38.
    rng = np.random.default_rng(0)
    x = np.zeros(400_000)
    for beta in (0.1, 0.2):
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.normal(size=x.shape)
    closed = S.schedule_from_betas([0.1, 0.2]).noise[2] ** 2
    assert closed == pytest.approx(0.28)
    assert x.var() == pytest.approx(closed, rel=0.01)
    assert x.var() != pytest.approx(0.38, rel=0.1)


def test_encoding_step_by_step_is_the_closed_form_from_the_clean_image():
    # Erratum E3: √ᾱ_t multiplies x_0. Read as a recursion on x_{t−1}, the lecture's line leaves Π √ᾱ_s of the signal.
    schedule = S.linear_schedule(T)
    mean, var = 1.0, 0.0
    for beta in schedule.beta[1:51]:
        mean, var = np.sqrt(1 - beta) * mean, (1 - beta) * var + beta
    assert schedule.signal[50] == pytest.approx(mean) and mean == pytest.approx(0.985, abs=1e-3)
    assert schedule.noise[50] ** 2 == pytest.approx(var)
    assert np.prod(schedule.signal[:51]) == pytest.approx(0.762, abs=1e-3)


@pytest.mark.parametrize("name", S.SCHEDULES)
def test_monte_carlo_moments_of_x_t_are_the_closed_form(name):
    schedule = S.SCHEDULES[name](50)
    rng = np.random.default_rng(1)
    x = np.full(200_000, 2.0, np.float32)
    walked = {}
    for t in range(1, 51):
        beta = schedule.beta[t]
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(x.shape, np.float32)
        walked[t] = x
    q_sample = jax.jit(lambda t, eps: S.q_sample(schedule, jnp.full((200_000, 1, 1, 1), 2.0), t, eps))
    for t in (1, 10, 25, 40, 50):
        eps = jax.random.normal(jax.random.key(t), (200_000, 1, 1, 1))
        jumped = np.asarray(q_sample(jnp.full(200_000, t), eps))
        for sample in (walked[t], jumped):
            assert sample.mean() == pytest.approx(2 * np.sqrt(schedule.alpha_bar[t]), abs=0.01)
            assert sample.var() == pytest.approx(1 - schedule.alpha_bar[t], rel=0.01)


@pytest.mark.parametrize(("t", "s"), [(500, 499), (2, 1), (1000, 900), (300, 20)])
def test_posterior_is_the_product_of_two_gaussians(t, s):
    schedule = S.linear_schedule(T)
    x_0, x_t = 1.0, 0.5
    ratio = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    grid = np.linspace(-8, 8, 2_000_001)
    log_density = -((x_t - np.sqrt(ratio) * grid) ** 2) / (2 * (1 - ratio))
    log_density -= (grid - schedule.signal[s] * x_0) ** 2 / (2 * (1 - schedule.alpha_bar[s]))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = (weights * grid).sum()
    q = S.posterior(schedule, t, s)
    assert q.from_x_0 * x_0 + q.from_x_t * x_t == pytest.approx(mean, abs=1e-6)
    assert q.variance == pytest.approx((weights * (grid - mean) ** 2).sum(), rel=1e-4)


def test_posterior_mean_in_x_0_and_in_eps_agree_where_the_lectures_do_not():
    # Erratum E5: at t = 500, x_0 = 1, x_t = .5 the lecture's (1−α_{t−1}) gives .0085; its own ε form gives .5001.
    schedule, t, x_0, x_t = S.linear_schedule(T), 500, 1.0, 0.5
    beta, alpha = schedule.beta[t], 1 - schedule.beta[t]
    eps = (x_t - schedule.signal[t] * x_0) / schedule.noise[t]
    from_eps = (x_t - beta / schedule.noise[t] * eps) / np.sqrt(alpha)
    q = S.posterior(schedule, t, t - 1)
    assert q.from_x_0 * x_0 + q.from_x_t * x_t == pytest.approx(from_eps, abs=1e-9)
    assert from_eps == pytest.approx(0.5001, abs=1e-4)
    lecture = np.sqrt(alpha) * schedule.beta[t - 1] * x_t + schedule.signal[t - 1] * beta * x_0
    assert lecture / (1 - schedule.alpha_bar[t]) == pytest.approx(0.0085, abs=1e-4)
    assert S.step_variance(schedule, t, t - 1) == pytest.approx(beta)


def test_the_parametrisations_convert_into_each_other():
    schedule = S.linear_schedule(T)
    x_0 = jax.random.uniform(jax.random.key(0), (5, 4, 4, 1), minval=-1.0)
    eps = jax.random.normal(jax.random.key(1), x_0.shape)
    t = jnp.array([50, 100, 250, 500, 1000])
    x_t = S.q_sample(schedule, x_0, t, eps)
    v = S.v_from_x0_eps(schedule, t, x_0, eps)
    back = S.x0_eps_from_v(schedule, x_t, t, v)
    np.testing.assert_allclose(back[0], x_0, atol=1e-5)
    np.testing.assert_allclose(back[1], eps, atol=1e-5)
    np.testing.assert_allclose(S.eps_from_x0(schedule, x_t, t, x_0), eps, atol=1e-5)
    np.testing.assert_allclose(S.v_from_x0(schedule, x_t, t, x_0), v, atol=1e-5)
    # From ε, rounding grows by √(1−ᾱ_t)/√ᾱ_t, which is 157 at t = T.
    for found, right in ((S.x0_from_eps(schedule, x_t, t, eps), x_0), (S.v_from_eps(schedule, x_t, t, eps), v)):
        worst = np.abs(found - right).max((1, 2, 3))
        assert np.all(worst[:4] < 1e-5) and worst[4] < 2e-4


def test_sigmoid_schedule_is_chens():
    # Chen 2023, Algorithm 1, by scipy's sigmoid; ᾱ is clipped to 1e-9 at t = T, where it would be 0.
    times = np.arange(T + 1) / T
    for tau, options in ((1.0, {}), (0.5, {"tau": 0.5})):
        start, end = special.expit(np.array([-3.0, 3.0]) / tau)
        expected = (end - special.expit((times * 6 - 3) / tau)) / (end - start)
        found = S.sigmoid_schedule(T, **options).alpha_bar
        np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-9)
        assert found[-1] == pytest.approx(1e-9)
    assert S.sigmoid_schedule(T).alpha_bar[T // 2] == pytest.approx(0.5)


def test_the_signal_to_noise_ratio_is_that_of_the_encoding():
    schedule, t = S.cosine_schedule(T), jnp.array([0, 1, 500, 1000])
    ratio = np.asarray(S.snr(schedule, t))
    assert ratio[0] == np.inf
    np.testing.assert_allclose(ratio[1:], (schedule.alpha_bar / (1 - schedule.alpha_bar + 1e-30))[t[1:]], rtol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_the_three_parametrisations_of_one_network_alike(gamma):
    schedule, t = S.cosine_schedule(T), jnp.array([100, 300, 500, 700, 900])
    x_0, eps, guess = (jax.random.normal(jax.random.key(i), (5, 4, 4, 1)) for i in range(3))
    x_t = S.q_sample(schedule, x_0, t, eps)
    pairs = {
        "x_0": (x_0, guess),
        "eps": (eps, S.eps_from_x0(schedule, x_t, t, guess)),
        "v": (S.v_from_x0_eps(schedule, t, x_0, eps), S.v_from_x0(schedule, x_t, t, guess)),
    }
    expected = np.minimum(np.asarray(S.snr(schedule, t)), gamma) * np.square(guess - x_0).mean((1, 2, 3))
    assert (S.snr(schedule, t) > gamma).any() and (S.snr(schedule, t) < gamma).any()
    for prediction, (target, output) in pairs.items():
        loss = S.min_snr_weight(schedule, t, prediction, gamma) * jnp.square(output - target).mean((1, 2, 3))
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_min_snr_leaves_the_error_of_eps_alone_below_gamma_and_refuses_unknown_predictions():
    schedule, t = S.cosine_schedule(T), jnp.array([1, 700, 1000])
    weights = S.min_snr_weight(schedule, t, "eps", 5.0)
    np.testing.assert_allclose(weights[1:], 1.0, rtol=1e-6)
    assert float(weights[0]) == pytest.approx(5 / float(S.snr(schedule, t)[0]))
    with pytest.raises(ValueError, match="unknown prediction 'epsilon' .did you mean eps"):
        S.min_snr_weight(schedule, t, "epsilon")


@pytest.mark.parametrize("times", [np.arange(T, -1, -1), np.array([1000, 700, 300, 10, 0])])
def test_the_logarithm_of_the_last_steps_variance_is_that_of_the_step_before(times):
    schedule = S.linear_schedule(T)
    small, large = S.log_variances(schedule, times)
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        assert large[i] == pytest.approx(np.log(1 - np.prod(1 - schedule.beta[s + 1 : t + 1])))
        if s > 0:
            assert small[i] == pytest.approx(np.log(S.posterior(schedule, t, s).variance))
    assert small[-1] == small[-2] and np.all(small[:-1] < large[:-1])
    single = S.log_variances(schedule, times[[0, -1]])
    assert single[0] == single[1] == pytest.approx(np.log(1 - schedule.alpha_bar[T]))
