import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.norm import GroupNorm


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_is_flaxs_layer_with_its_parameters(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 4, 6, 8)) * 2 + 0.5, dtype)
    ours, theirs = GroupNorm(4, dtype=dtype), nn.GroupNorm(4, dtype=dtype)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), theirs.init(jax.random.key(0), x)
    )
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, params)

    def loss(layer, params, x):
        y = layer.apply(params, x)
        return (y.astype(jnp.float32) ** 3).mean(), y

    (_, y), grads = jax.value_and_grad(lambda *args: loss(ours, *args), (0, 1), has_aux=True)(params, x)
    (_, want), gradients = jax.value_and_grad(lambda *args: loss(theirs, *args), (0, 1), has_aux=True)(params, x)
    assert y.dtype == want.dtype == dtype
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 2e-2, "atol": 2e-2}
    full = lambda tree: jax.tree.map(lambda v: v.astype(jnp.float32), tree)
    chex.assert_trees_all_close(full((y, grads)), full((want, gradients)), **close)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="num_groups=3 does not divide 8 channels"):
        GroupNorm(3).init(jax.random.key(0), jnp.ones((1, 2, 2, 8)))
