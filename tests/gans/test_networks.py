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
    """f(x, y) = w · h(x) + b + (V y) · h(x), by hand from the parameters."""
    critic = Critic(CriticConfig("mlp", (4,)), SIZES)
    x, y = jax.random.normal(jax.random.key(1), (4, 6)), jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    scores, variables = jax.jit(critic.init_with_output)(jax.random.key(0), x, y)
    p = variables["params"]
    h = jax.nn.leaky_relu(x @ p["net"]["hidden_0"]["kernel"] + p["net"]["hidden_0"]["bias"][None], 0.2)
    each = (one_hots(y, SIZES) @ p["condition"]["kernel"] * h).sum(1)
    np.testing.assert_allclose(scores, h @ p["out"]["kernel"][:, 0] + p["out"]["bias"] + each, atol=1e-5)
    assert (jnp.abs(each) > 1e-3).all()


@pytest.mark.parametrize("side", [16, 28, 32, 64])
@pytest.mark.parametrize("kind", ["dcgan", "resnet", "capsule"])
def test_networks_of_every_size(kind, side):
    critic = Critic(CriticConfig(kind, (8, 8)))
    gen = Generator(GeneratorConfig("dcgan" if kind == "capsule" else kind, (8, 8)), (side, side, 3))

    def run(key):
        x = gen.init_with_output(key, jnp.zeros((2, 4)))[0]
        return x, critic.init_with_output(key, x)[0]

    image, score = jax.eval_shape(run, jax.random.key(0))
    assert image.shape == (2, side, side, 3) and score.shape == (2,)


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
