"""Transposed convolutions as matrix products, beside XLA's; the shapes of the networks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.dcgan import DcganCritic, DcganGenerator, transposed_conv
from jaxgen.nets.resgan import ResnetCritic, ResnetGenerator


def by_xla(x, kernel):
    """The gradient of a convolution of stride 2, which torch calls ConvTranspose2d(4, 2, 1), or (5, 2, 2, 1)."""
    dims = ("NHWC", "HWIO", "NHWC")
    flipped = jnp.flip(kernel, (0, 1))
    pads = ((2, len(kernel) - 2), (2, len(kernel) - 2))
    return jax.lax.conv_general_dilated(x, flipped, (1, 1), pads, lhs_dilation=(2, 2), dimension_numbers=dims)


@pytest.mark.parametrize("side", [4, 5])
def test_transposed_convolution_and_its_second_gradients_are_xlas(side):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 3, 5, 4), (side, side, 4, 3)))

    def slope(function):
        """The gradient of a squared gradient, by both arguments."""
        inner = lambda x, kernel: jnp.square(jax.grad(lambda x: jnp.tanh(function(x, kernel)).sum())(x)).sum()
        return jax.jit(jax.grad(inner, (0, 1)))(x, kernel)

    y = transposed_conv(x, kernel)
    assert y.shape == (2, 6, 10, 3)
    np.testing.assert_allclose(y, by_xla(x, kernel), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(slope(transposed_conv), slope(by_xla), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gated"])
@pytest.mark.parametrize("layers", ["strided", "strided_5x5", "pooled"])
@pytest.mark.parametrize(("size", "widths"), [((16, 16), (6, 5)), ((28, 28), (6, 5)), ((64, 64), (4, 4, 4, 4))])
def test_dcgan_doubles_to_every_size_and_halves_back(size, widths, layers, activation):
    gen = DcganGenerator(widths, size, 3, activation=activation, layers=layers)
    critic = DcganCritic(widths[::-1], activation=activation, layers=layers)
    z, x = jnp.ones((2, 7)), jnp.ones((2, *size, 3))
    image, features = (
        jax.eval_shape(lambda v, net=net: net.init_with_output(jax.random.key(0), v)[0], v)
        for net, v in ((gen, z), (critic, x))
    )
    assert image.shape == x.shape
    assert features.shape == (2, widths[0] * size[0] * size[1] // 4 ** len(widths))


def test_residual_networks_have_their_blocks():
    gen, critic = ResnetGenerator((4, 4), (16, 16), 1, num_blocks=3), ResnetCritic((4, 4), num_blocks=3)
    image, variables = jax.eval_shape(lambda z: gen.init_with_output(jax.random.key(0), z), jnp.ones((2, 3)))
    assert image.shape == (2, 16, 16, 1)
    assert sum(name.startswith("up_") for name in variables["params"]) == 6
    features = jax.eval_shape(lambda x: critic.init_with_output(jax.random.key(0), x)[0], jnp.ones((2, 16, 16, 1)))
    assert features.shape == (2, 4 * 4 * 4)
