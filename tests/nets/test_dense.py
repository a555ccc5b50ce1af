"""The dense layer against flax's: values, gradients of first and second order, half precision."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxgen.nets.dense import Dense


def scalar(layer: nn.Module):
    return lambda params, x: jnp.sum(layer.apply(params, x).astype(jnp.float32) ** 3)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_equals_flax(shape):
    ours, theirs = Dense(4), nn.Dense(4)
    x = jax.random.normal(jax.random.key(0), shape)
    params = theirs.init(jax.random.key(1), x)
    chex.assert_trees_all_equal(ours.init(jax.random.key(1), x), params)

    def both_orders(layer):
        gradient = jax.grad(scalar(layer), (0, 1))
        squares = lambda *args: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient(*args)))
        return layer.apply(params, x), gradient(params, x), jax.grad(squares, (0, 1))(params, x)

    chex.assert_trees_all_close(both_orders(ours), both_orders(theirs), rtol=1e-5)


def test_half_precision_keeps_its_types():
    layer = Dense(4, dtype=jnp.bfloat16)
    x = jnp.ones((2, 3, 5), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    gradient = jax.grad(scalar(layer), (0, 1))(params, x)
    assert layer.apply(params, x).dtype == gradient[1].dtype == jnp.bfloat16
    assert gradient[0]["params"]["kernel"].dtype == jnp.float32
