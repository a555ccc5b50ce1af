"""What the players do when they play: critics that find the ratio of densities, descents that circle a saddle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.gans.losses import LOSSES
from jaxgen.gans.networks import Critic, CriticConfig
from jaxgen.method import descend


def bilinear(simultaneous, num, rate):
    """The course [num, 2] of min_a max_b a·b by plain descents from (1, 0)."""
    tx = optax.sgd(rate)
    one = lambda sign, own, other: descend(
        tx, lambda own, other: (sign * jnp.sum(own * other), {}), own, tx.init(own), other
    )[0]

    def turn(state, _):
        a, b = state
        new_b = one(-1.0, b, a)
        a = one(1.0, a, b if simultaneous else new_b)
        return (a, new_b), jnp.concatenate([a, new_b])

    return np.asarray(jax.jit(lambda: jax.lax.scan(turn, (jnp.ones(1), jnp.zeros(1)), length=num)[1])())


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_simultaneous_descent_spirals_outwards_at_the_predicted_rate(rate):
    course = bilinear(True, 200, rate)
    radius = np.linalg.norm(course, axis=1)
    np.testing.assert_allclose(radius, (1 + rate**2) ** (np.arange(1, 201) / 2), rtol=1e-3)


def test_alternating_descent_circles_and_its_average_converges():
    """As a step of `gan` does: it neither grows nor arrives, but the mean of what it passes is the saddle."""
    course = bilinear(False, 4000, 0.1)
    radius = np.linalg.norm(course, axis=1)
    assert 0.9 < radius.min() and radius.max() < 1.1
    mean = np.cumsum(course, 0) / np.arange(1, 4001)[:, None]
    assert np.abs(mean[-1]).max() < 0.01
    assert np.abs(mean[100:]).max() > 5 * np.abs(mean[3000:]).max()


def test_a_trained_discriminator_is_the_ratio_of_densities():
    """σ(f) = p / (p + q) for N(0, 1) against N(1.5, 1.2²), to a mean square of 1e-3."""
    critic, tx = Critic(CriticConfig("mlp", (32, 32))), optax.adam(optax.linear_schedule(1e-2, 1e-4, 800))

    def turn(carry, key):
        real, fake = jax.random.normal(key, (2, 512, 1))
        score = lambda params, x: critic.apply(params, x)
        loss = lambda params, *pair: (LOSSES["saturating"].critic(*(score(params, x) for x in pair)).mean(), {})
        return descend(tx, loss, *carry, real, 1.5 + 1.2 * fake)[:2], None

    @jax.jit
    def run():
        params = critic.init(jax.random.key(0), jnp.zeros((1, 1)))
        params = jax.lax.scan(turn, (params, tx.init(params)), jax.random.split(jax.random.key(1), 800))[0][0]
        return jax.nn.sigmoid(critic.apply(params, jnp.linspace(-3, 5, 200)[:, None]))

    x = np.linspace(-3, 5, 200)
    p, q = (np.exp(-0.5 * ((x - m) / s) ** 2) / s for m, s in ((0, 1), (1.5, 1.2)))
    error = np.square(np.asarray(run()) - p / (p + q))
    assert np.average(error, weights=p + q) <= 1e-3
