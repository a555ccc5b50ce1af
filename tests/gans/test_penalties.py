import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.gans.networks import Critic, CriticConfig
from jaxgen.gans.penalties import between, clip_weights, penalty, slopes

REAL, FAKE = (jax.random.normal(key, (4, 8, 8, 2)) for key in jax.random.split(jax.random.key(0)))
MIX = jnp.array([0.0, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    "config", [CriticConfig(widths=(4, 4)), CriticConfig("resnet", (4,), norm="layer")], ids=["dcgan", "resnet"]
)
def test_slopes_are_each_examples_own(config):
    critic = Critic(config)

    @jax.jit
    def both(key):
        params = critic.init(key, REAL)
        one = lambda x: jnp.linalg.norm(jax.grad(lambda x: critic.apply(params, x[None])[0])(x))
        return slopes(lambda x: critic.apply(params, x), REAL), jax.lax.map(one, REAL)

    found, own = both(jax.random.key(1))
    np.testing.assert_allclose(found, own, rtol=1e-4)


def linear(norm):
    direction = np.full((8, 8, 2), norm / np.sqrt(128), np.float32)
    return lambda x: (x * direction[None]).sum((1, 2, 3))


@pytest.mark.parametrize("norm", [0.5, 1.0, 3.0])
def test_penalties_of_a_linear_critic_by_hand(norm):
    found = {kind: penalty(kind, linear(norm), REAL, FAKE, MIX) for kind in ("two_sided", "one_sided", "r1")}
    np.testing.assert_allclose(found["two_sided"], np.full(4, (norm - 1) ** 2), atol=1e-5)
    np.testing.assert_allclose(found["one_sided"], np.full(4, max(0, norm - 1)), atol=1e-5)
    np.testing.assert_allclose(found["r1"], np.full(4, 0.5 * norm**2), rtol=1e-5)


def test_each_penalty_looks_where_it_should():
    """A critic that is steep at real examples alone."""
    steep = lambda x: jnp.where((x == REAL).all((1, 2, 3)), 5.0, 1.0) * linear(1.0)(x)
    assert (penalty("r1", steep, REAL, FAKE, MIX) > 12).all()
    np.testing.assert_allclose(penalty("two_sided", steep, REAL, FAKE, MIX), [0, 0, 0, 16], atol=1e-4)
    np.testing.assert_allclose(between(REAL, FAKE, MIX)[1], 0.25 * REAL[1] + 0.75 * FAKE[1], rtol=1e-5)


def test_a_flat_critic_has_a_finite_gradient_of_its_penalty():
    grads = jax.grad(lambda w: penalty("two_sided", lambda x: w * x.sum((1, 2, 3)), REAL, FAKE, MIX).mean())(0.0)
    assert np.isfinite(grads)


def test_clipped_weights_lie_within_the_bound():
    params = clip_weights({"a": jnp.array([-3.0, 0.005]), "b": jnp.array([0.02])}, 0.01)
    np.testing.assert_allclose(params["a"], [-0.01, 0.005])
    np.testing.assert_allclose(params["b"], [0.01])
