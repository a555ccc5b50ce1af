import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.gans.networks import Critic, CriticConfig, Generator, GeneratorConfig, check_networks, one_hots

Y = jnp.array([[0, 1], [2, 0]])
SIZES = (3, 2)


def both(net, x):
    """A function of a key: what a network makes of x under the condition Y, and under another."""

    @jax.jit
    def run(key):
        found, params = net.init_with_output(key, x, Y)
        return found, net.apply(params, x, Y[::-1])

    return run


def test_one_hots_stand_side_by_side():
    np.testing.assert_array_equal(one_hots(Y, SIZES), [[1, 0, 0, 0, 1], [0, 0, 1, 1, 0]])


@pytest.mark.parametrize("kind", ["dcgan", "resnet", "mlp"])
def test_every_generator_draws_in_range_and_sees_its_condition(kind):
    gen, z = Generator(GeneratorConfig(kind, (4, 4), norm="layer"), (8, 8, 3), SIZES), jnp.ones((2, 5))
    x, other = both(gen, z)(jax.random.key(0))
    assert x.shape == (2, 8, 8, 3) and jnp.abs(x).max() <= 1
    assert not np.allclose(x, other)


@pytest.mark.parametrize(
    ("kind", "conditioning"),
    [
        ("dcgan", "projection"),
        ("dcgan", "concatenation"),
        ("mlp", "concatenation"),
        ("resnet", "projection"),
        ("capsule", "projection"),
    ],
)
def test_every_critic_sees_its_condition(kind, conditioning):
    critic = Critic(CriticConfig(kind, (4, 8), conditioning=conditioning), SIZES)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    score, other = both(critic, x)(jax.random.key(0))
    assert score.shape == (2,)
    assert (score != other).all()


def test_a_projection_is_the_scalar_product_with_the_features():
    """f(x, y) − f(x, y') = (V (y − y')) · h(x) is linear in the one-hots: two changes add up."""
    critic = Critic(CriticConfig("mlp", (4,)), SIZES)
    x = jax.random.normal(jax.random.key(1), (4, 6))
    y = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    x = jnp.broadcast_to(x[:1], x.shape)
    a, b, c, d = jax.jit(critic.init_with_output)(jax.random.key(0), x, y)[0]
    assert float(d - c) == pytest.approx(float(b - a), abs=1e-5)
    assert abs(float(b - a)) > 1e-3


@pytest.mark.parametrize(
    ("gen", "critic", "shape", "message"),
    [
        ({"kind": "dcgn"}, {}, (8, 8, 1), "did you mean dcgan"),
        ({"norm": "bach"}, {}, (8, 8, 1), "did you mean batch"),
        ({"widths": (8, 8, 8)}, {}, (28, 28, 1), "does not divide by 8"),
        ({}, {"widths": ()}, (8, 8, 1), "positive widths"),
        ({}, {}, (2,), "kind=mlp"),
        ({}, {"kind": "capsule", "widths": (4, 4)}, (8, 8, 1), "multiple of 8"),
        ({}, {"kind": "capsule", "batch_features": "deviation"}, (8, 8, 1), "batch_features=none"),
        ({}, {"group_size": 1}, (8, 8, 1), "group_size"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(gen, critic, shape, message):
    with pytest.raises(ValueError, match=message):
        check_networks(GeneratorConfig(**gen), CriticConfig(**critic), shape)
