"""The games' theory: best critics, divergences, gradients, by quadrature on the line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.gans.losses import LOSSES, js_bound

X = np.linspace(-9, 10, 4001)
DX = X[1] - X[0]
P, Q = (np.exp(-0.5 * ((X - m) / s) ** 2) / (s * np.sqrt(2 * np.pi)) for m, s in ((0.0, 1.0), (1.5, 1.2)))
SURE = 1e6  # a score at which the other half of a loss is 0


def value(name, score):
    """E_p C(f(x), ·) + E_q C(·, f(x)) for a critic with these scores at X."""
    critic, sure = LOSSES[name].critic, jnp.full_like(score, SURE)
    on_real = critic(score, {"least_squares": jnp.zeros_like(score)}.get(name, -sure))
    on_fake = critic({"least_squares": jnp.ones_like(score)}.get(name, sure), score)
    return DX * (jnp.asarray(P, jnp.float32) * on_real + jnp.asarray(Q, jnp.float32) * on_fake).sum()


BEST = {
    "saturating": np.log(P / Q),  # sigmoid(log p/q) = p / (p + q)
    "least_squares": P / (P + Q),  # with the targets 1 and 0 (Mao et al., equation 5)
    "hinge": np.sign(P - Q),
}


@pytest.mark.parametrize("name", BEST)
def test_no_critic_is_better_than_the_one_in_closed_form(name):
    best = jnp.asarray(BEST[name], jnp.float32)
    low = float(value(name, best))
    for seed in range(5):
        other = best + 0.1 * jax.random.normal(jax.random.key(seed), best.shape)
        assert value(name, other) > low
    if name != "hinge":  # whose best critic stands on a corner
        np.testing.assert_allclose(jax.grad(lambda s: value(name, s))(best), 0, atol=1e-8)


def test_the_best_critics_loss_is_the_jensen_shannon_divergence():
    """E16: of means, C* = −2 log 2 + 2 JS."""
    middle = (P + Q) / 2
    js = DX * 0.5 * (P * np.log(P / middle) + Q * np.log(Q / middle)).sum()
    assert js == pytest.approx(
        float(js_bound(value("saturating", jnp.asarray(BEST["saturating"], jnp.float32)))), abs=1e-5
    )
    assert float(js_bound(value("saturating", jnp.zeros(len(X))))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("offset", [1.0, 2.0, 4.0])
def test_the_jensen_shannon_divergence_is_not_the_symmetric_kl(offset):
    """E12: Jeffreys' KL(p‖q) + KL(q‖p) of N(0, 1) and N(d, 1) is d²; what the critic finds stays below log 2."""
    p, q = (np.exp(-0.5 * (X - m) ** 2) / np.sqrt(2 * np.pi) for m in (0.0, offset))
    jeffreys = DX * ((p - q) * np.log(p / q)).sum()
    assert jeffreys == pytest.approx(offset**2, rel=1e-2)
    score = jnp.asarray(np.log(p / q), jnp.float32)
    critic, sure = LOSSES["saturating"].critic, jnp.full_like(score, SURE)
    loss = DX * (jnp.asarray(p, jnp.float32) * critic(score, -sure) + jnp.asarray(q, jnp.float32) * critic(sure, score))
    js = float(js_bound(loss.sum()))
    assert js == pytest.approx(DX * 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum(), abs=1e-5)
    assert js < np.log(2) < jeffreys


def test_the_hinge_game_measures_total_variation():
    """2 − 2 TV at the best critic (Lim & Ye 2017, arXiv 1705.02894)."""
    tv = 0.5 * DX * np.abs(P - Q).sum()
    assert float(value("hinge", jnp.asarray(BEST["hinge"], jnp.float32))) == pytest.approx(2 - 2 * tv, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("saturating", -4.5e-5), ("non_saturating", -1), ("least_squares", -11), ("hinge", -1), ("wasserstein", -1)],
)
def test_a_generator_that_is_seen_through_has_a_gradient_but_for_the_saturating_loss(name, slope):
    """E17, by hand at the score −10: −σ(−10), −σ(10), −10 − 1."""
    found = jax.grad(lambda s: LOSSES[name].gen(s))(jnp.float32(-10.0))
    assert float(found) == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_both_sides_want_what_they_should(name):
    """The critic gains by high scores of real examples and low ones of generated ones; the generator raises these."""
    critic, gen = LOSSES[name]
    real, fake = jnp.float32(-0.3), jnp.float32(0.2)
    assert jax.grad(critic, 0)(real, fake) < 0 < jax.grad(critic, 1)(real, fake)
    assert jax.grad(gen)(fake) < 0


def test_the_margin_loss_is_the_papers():
    logit = lambda p: np.log(p / (1 - p)).astype(np.float32)
    found = LOSSES["margin"].critic(logit(np.array([0.7, 0.95])), logit(np.array([0.3, 0.05])))
    np.testing.assert_allclose(found, [0.2**2 + 0.5 * 0.2**2, 0], rtol=1e-3, atol=1e-7)
