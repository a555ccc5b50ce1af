import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import conv as module
from jaxgen.nets.conv import Conv, conv


def plain(x, kernel, stride=1, padding="SAME"):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


def assert_close(ours, theirs, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("height", "width", "channels", "size", "stride", "padding"),
    [
        (6, 5, (2, 4), 3, 1, "SAME"),
        (6, 5, (2, 4), 4, 1, "VALID"),
        (5, 6, (2, 4), 3, 1, ((2, 0), (1, 3))),
        (5, 6, (1, 5), 3, 1, ((2, 0), (1, 3))),  # few channels
        (5, 6, (5, 1), 3, 1, ((2, 0), (1, 3))),  # few features
        (6, 6, (2, 4), 1, 1, "SAME"),
        (4, 5, (5, 1), 1, 1, ((0, 1), (2, 0))),
        (8, 6, (2, 4), 3, 2, "SAME"),
        (7, 5, (2, 4), 3, 2, "SAME"),
        (8, 8, (2, 4), 4, 2, ((1, 1), (1, 1))),
        (6, 8, (32, 16), 4, 2, ((1, 1), (1, 1))),  # many channels, once blocks are channels
        (9, 8, (2, 4), 3, 3, "VALID"),
        (5, 5, (2, 4), 1, 2, "SAME"),
    ],
)
def test_values_and_gradients_of_first_and_second_order_are_those_of_lax_conv(
    height, width, channels, size, stride, padding
):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (3, height, width, channels[0]))
    kernel = jax.random.normal(keys[1], (size, size, *channels))
    weight = jax.random.normal(keys[2], plain(x, kernel, stride, padding).shape)

    def loss(f):
        # Cubic, so that second derivatives involve the data.
        return lambda x, kernel: jnp.sum(weight * f(x, kernel, stride, padding) ** 3)

    def slope(f):
        # The squared norm of both gradients: its own gradient passes twice through every backward rule.
        grads = jax.grad(loss(f), (0, 1))
        return lambda x, kernel: sum(jnp.sum(g**2) for g in grads(x, kernel))

    def all_orders(f):
        first, second = jax.grad(loss(f), (0, 1)), jax.grad(slope(f), (0, 1))
        return jax.jit(lambda x, kernel: (f(x, kernel, stride, padding), first(x, kernel), second(x, kernel)))

    assert_close(all_orders(conv)(x, kernel), all_orders(plain)(x, kernel))


@pytest.mark.parametrize("channels", [(2, 4), (1, 5)])
def test_gradients_of_kernels_add_up_over_parts_of_the_batch(channels, monkeypatch):
    monkeypatch.setattr(module, "_PIXELS", 40)
    monkeypatch.setattr(module, "_SIZE", 40 * 9)
    x, kernel = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(6, 4, 5, channels[0]), (3, 3, *channels)])
    )
    slope = lambda f: jax.jit(jax.grad(lambda kernel: jnp.sum(f(x, kernel) ** 2)))
    assert "length=3" in str(jax.make_jaxpr(slope(conv))(kernel))
    assert_close(slope(conv)(kernel), slope(plain)(kernel))


def critic(f, params, x):
    for kernel in params[:-1]:
        x = jnp.tanh(f(x, kernel))
    return f(x, params[-1]).sum((1, 2, 3))


def penalty(f, params, x):
    """E (‖∇_x critic‖ − 1)², the gradient penalty of WGAN-GP."""
    slopes = jax.grad(lambda x: critic(f, params, x).sum())(x)
    return jnp.mean((jnp.sqrt(jnp.sum(slopes**2, (1, 2, 3))) - 1) ** 2)


def descents(f, params, batches):
    def step(params, x):
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(penalty, 1)(f, params, x)), None

    return jax.lax.scan(step, params, batches)[0]


def critic_inputs():
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = [(3, 3, 2, 4), (3, 3, 4, 4), (1, 1, 4, 1)]
    params = [0.3 * jax.random.normal(k, s) for k, s in zip(keys[:3], shapes, strict=True)]
    return params, jax.random.normal(keys[3], (3, 2, 6, 6, 2))


def test_a_scanned_gradient_penalty_descends_as_with_plain_convolutions():
    params, batches = critic_inputs()
    ours = jax.jit(lambda p, b: descents(conv, p, b))(params, batches)
    slope = jax.jit(lambda p, x: jax.grad(penalty, 1)(plain, p, x))
    theirs = params
    for x in batches:
        theirs = jax.tree.map(lambda p, g: p - 0.01 * g, theirs, slope(theirs, x))
    assert_close(ours, theirs)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the slow path is the CPU's")
def test_every_convolution_of_a_scanned_gradient_penalty_is_in_the_layout_of_the_fast_kernel():
    params, batches = critic_inputs()
    params = [params[0], params[1], jnp.ones((3, 3, 4, 2))]
    text = jax.jit(lambda p, b: descents(conv, p, b)).lower(params, batches).compile().as_text()
    found = re.findall(r"(\{[\d,]*\}) convolution\(.*?dim_labels=(\S+?)[,\s]", text)
    assert len(found) >= 8  # forward, the gradients of images, and the backward of those; those of kernels are products
    assert set(found) == {("{3,2,1,0}", "b01f_01io->b01f")}


def test_forward_mode_is_refused_rather_than_wrong():
    x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: conv(x, kernel), (x,), (x,))


def test_shapes_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match="same C"):
        conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 1)))
    with pytest.raises(ValueError, match="does not fit"):
        conv(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1)), padding="VALID")


def test_layer_is_the_convolution_plus_bias_in_the_asked_type():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    layer = Conv(5, stride=2, kernel_init=nn.initializers.normal())
    params = layer.init(jax.random.key(1), x)["params"]
    assert jax.tree.map(jnp.shape, params) == {"kernel": (3, 3, 3, 5), "bias": (5,)}
    params = {**params, "bias": jnp.arange(5.0)}
    expected = plain(x, params["kernel"], 2) + jnp.arange(5.0)[None, None, None, :]
    assert_close(layer.apply({"params": params}, x), expected)
    half = Conv(5, stride=2, dtype=jnp.bfloat16).apply({"params": params}, x)
    assert half.dtype == jnp.bfloat16
    assert_close(half.astype(jnp.float32), expected, tolerance=0.02)


def test_gradients_in_half_precision_are_those_of_the_full_one():
    x, kernel = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(4, 6, 6, 3), (3, 3, 3, 5)]))
    slope = jax.jit(jax.grad(lambda x, kernel: jnp.sum(conv(x, kernel).astype(jnp.float32) ** 2), (0, 1)))
    half = slope(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert all(g.dtype == jnp.bfloat16 for g in half)
    assert_close(jax.tree.map(lambda g: g.astype(jnp.float32), half), slope(x, kernel), tolerance=0.03)


def test_zero_initialised_layer_outputs_zero():
    x = jnp.ones((1, 4, 4, 2))
    y, params = Conv(3, kernel_init=nn.initializers.zeros, use_bias=False).init_with_output(jax.random.key(0), x)
    assert list(params["params"]) == ["kernel"]
    assert not y.any()
