import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.conv import Conv
from jaxgen.nets.resample import DoubleConv, double, halve


def test_halve_undoes_double_which_repeats_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    np.testing.assert_array_equal(double(x), np.repeat(np.repeat(x, 2, 1), 2, 2))
    np.testing.assert_allclose(halve(double(x)), x, rtol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [(3, 4), (3, 1), (1, 4), (5, 4)])
def test_a_doubling_convolution_and_its_gradients_are_those_of_the_repeated_image(size, channels):
    """Against XLA's convolution of the large image, to the second order; both take the same parameters."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, channels))
    layer = DoubleConv(5, kernel_size=size, kernel_init=nn.initializers.normal(1.0))
    params = layer.init(jax.random.key(1), x)
    params["params"]["bias"] += jnp.arange(5.0)
    weight = jax.random.normal(jax.random.key(2), (2, 6, 8, 5))

    def plain(params, x):
        large, kernel = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), params["params"]["kernel"]
        y = jax.lax.conv_general_dilated(large, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + params["params"]["bias"][None, None, None]

    def all_orders(f):
        loss = lambda params, x: jnp.sum(weight * f(params, x) ** 3)
        first = jax.grad(loss, (0, 1))
        slope = lambda params, x: sum(jnp.sum(g**2) for g in jax.tree.leaves(first(params, x)))
        return jax.jit(lambda params, x: (f(params, x), first(params, x), jax.grad(slope, (0, 1))(params, x)))

    ours, theirs = (jax.tree.leaves(all_orders(f)(params, x)) for f in (layer.apply, plain))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, Conv(5, size).init(jax.random.key(1), x))


def test_a_doubling_convolution_makes_no_large_image_of_its_input():
    x, layer = jnp.ones((1, 4, 4, 7)), DoubleConv(5)
    params = layer.init(jax.random.key(0), x)
    text = str(jax.make_jaxpr(layer.apply)(params, x))
    assert "8,8,5" in text and "8,8,7" not in text
