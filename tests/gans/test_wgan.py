"""Wasserstein critics against distances known by hand, and what the lecture's clipping does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Toy
from jaxgen.gans import gan, wgan
from jaxgen.gans.adversarial import make_game
from jaxgen.gans.losses import LOSSES, js_bound
from jaxgen.gans.networks import Critic, CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig
from jaxgen.gans.penalties import between, slopes

TINY = Experiment(
    wgan.Config(
        code=4,
        num_critic=2,
        gen=GeneratorConfig("mlp", (16,), norm="none"),
        critic=CriticConfig("mlp", (16,), spectral=False),
        ema_decay=0.9,
    ),
    Toy("ring", size=512),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec
CRITIC = Critic(CriticConfig("mlp", (64, 64)))


def trained(draw, tx, num, loss="wasserstein", weight=0.0, clip=None):
    """A critic trained for `num` steps to tell the pairs (real, fake) [B, 2] that `draw(key)` gives."""
    cfg = gan.Config(loss=loss, penalty="two_sided" if weight else "none", penalty_weight=weight, clip=clip)
    game = make_game(cfg, None, CRITIC, None, tx)

    def step(carry, key):
        key_pair, key_noise = jax.random.split(key)
        real, fake = draw(key_pair)
        return game.train_critic(*carry, real, fake, None, game.draw(key_noise, len(real)))[:2], None

    critic = dict(CRITIC.init(jax.random.key(0), jnp.zeros((1, 2))))
    return jax.lax.scan(step, (critic, tx.init(critic["params"])), jax.random.split(jax.random.key(1), num))[0][0]


def lines(theta):
    """Example 1 of Arjovsky et al.: the segment {0} × [0, 1] against {θ} × [0, 1]."""

    def draw(key):
        y = jax.random.uniform(key, (2, 128))
        return jnp.stack([jnp.zeros(128), y[0]], 1), jnp.stack([jnp.full(128, theta), y[1]], 1)

    return draw


THETAS = np.array([0.1, 0.5, 1.0, 2.0], np.float32)


@pytest.fixture(scope="module")
def disjoint():
    """At each offset: the JS estimate, W₁'s, and the generator's gradients dL/dθ by loss."""

    def at(theta):
        draw, tx = lines(theta), optax.adam(1e-2, b1=0.5)
        logistic = trained(draw, tx, 1000, "non_saturating")
        lipschitz = trained(draw, optax.adam(3e-3, b1=0.0, b2=0.9), 600, weight=10.0)
        real, fake = draw(jax.random.key(2))
        score = lambda x, params=logistic: CRITIC.apply(params, x)
        js = js_bound(LOSSES["non_saturating"].critic(score(real), score(fake)).mean())
        distance = (score(real, lipschitz) - score(fake, lipschitz)).mean()
        moved = lambda name, t, params: LOSSES[name].gen(CRITIC.apply(params, lines(t)(jax.random.key(2))[1])).mean()
        slope = lambda name, params: jnp.abs(jax.grad(lambda t: moved(name, t, params))(theta))
        found = {name: slope(name, logistic) for name in ("saturating", "non_saturating")}
        return {"js": js, "w": distance, **found, "wasserstein": slope("wasserstein", lipschitz)}

    return jax.device_get(jax.jit(jax.vmap(at))(jnp.asarray(THETAS)))


def test_of_disjoint_lines_js_is_log_2_at_every_offset_and_w_is_the_offset(disjoint):
    np.testing.assert_allclose(disjoint["js"], np.log(2), rtol=0.01)
    np.testing.assert_allclose(disjoint["w"], THETAS, rtol=0.2)
    assert (np.diff(disjoint["w"]) > 0).all()


def test_the_saturating_gradient_vanishes_and_the_wasserstein_gradient_is_one(disjoint):
    """E17."""
    assert (disjoint["saturating"] < 0.05).all() and (disjoint["saturating"][1:] < 1e-3).all()
    assert (disjoint["non_saturating"] > 3).all()
    np.testing.assert_allclose(disjoint["wasserstein"], 1, atol=0.25)


def test_clipping_gradients_diverges_clipping_weights_bounds_and_a_penalty_measures():
    """E10: N((3, 0), I) against N(0, I), whose W₁ is 3."""

    def draw(key):
        real, fake = jax.random.normal(key, (2, 256, 2))
        return real + jnp.array([[3.0, 0.0]]), fake

    def measured(params):
        real, fake = draw(jax.random.key(2))
        score = lambda x: CRITIC.apply(params, x)
        slope = slopes(score, between(real, fake, jax.random.uniform(jax.random.key(3), (256,))))
        return (score(real) - score(fake)).mean(), slope

    @jax.jit
    def run():
        rmsprop = optax.rmsprop(1e-3, decay=0.99)
        literal = optax.chain(optax.clip(0.01), optax.sgd(0.3))  # Θ ← Θ + η clip(∇)
        soon, lecture = trained(draw, literal, 300), trained(draw, literal, 600)
        clipped = trained(draw, rmsprop, 600, clip=0.01)
        penalised = trained(draw, optax.adam(3e-3, b1=0.0, b2=0.9), 600, weight=10.0)
        largest = jnp.stack([jnp.abs(w).max() for w in jax.tree.leaves(clipped)]).max()
        return measured(soon), measured(lecture), measured(clipped), largest, measured(penalised)

    (early, _), (wild, _), (small, slope), largest, (distance, norm) = jax.device_get(run())
    assert wild > 100 * 3 and wild > 2 * early, (early, wild)  # and it would go on
    assert largest == np.float32(0.01) and slope.max() < 0.01 * np.sqrt(64) * (0.01 * 64) * 0.01 * np.sqrt(128)
    assert 0 < small < 0.03  # no distance but up to a factor
    assert distance == pytest.approx(3, rel=0.2)
    assert norm.mean() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    "change",
    [{"penalty": "none", "clip": 0.01}, {"penalty": "none", "critic": CriticConfig("mlp", (16,), spectral=True)}],
    ids=["clip", "spectral"],
)
def test_critics_are_kept_smooth_in_the_method(change):
    cfg = dataclasses.replace(TINY.method, critic_optimizer=PlayerConfig("rmsprop", 0.1, b2=0.9), **change)
    method = wgan.make(cfg, SPEC)
    x = TINY.data.load().read("train", np.arange(16), ("x", "label"))
    batch = jax.tree.map(jnp.asarray, x)
    state, step = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.step)
    for i in range(5):
        state, metrics = step(state, batch, jax.random.key(i))
        if cfg.clip:
            assert max(float(jnp.abs(w).max()) for w in jax.tree.leaves(state["critic"]["params"])) <= np.float32(
                cfg.clip
            )
    found = jax.jit(method.evaluate)(state, batch, jax.random.key(9))["wasserstein"]
    assert np.isfinite(np.asarray(found)).all() and (found[1] >= 0).all()
    if cfg.critic.spectral:  # the product of norms below 1, and of slopes of the activation
        assert metrics["critic/wasserstein"] < 4 and found[1].max() < 1.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "choose the method gan"),
        ({"penalty": "none"}, "not 0 of them"),
        ({"clip": 0.01}, "not 2 of them"),
        ({"penalty": "none", "critic": CriticConfig("mlp", (16,), norm="layer", spectral=True)}, "kernels alone"),
        (
            {"penalty": "none", "critic": CriticConfig("mlp", (16,), batch_features="deviation", spectral=True)},
            "kernels alone",
        ),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        wgan.make(dataclasses.replace(TINY.method, **change), SPEC)
