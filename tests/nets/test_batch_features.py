import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import batch_features
from jaxgen.nets.batch_features import Discrimination


def test_closeness_is_the_papers_sum_within_each_group():
    h = jax.random.normal(jax.random.key(0), (6, 5))
    layer = Discrimination(size=3, num_kernels=2, dim=4)
    params = layer.init(jax.random.key(1), h)
    found = np.asarray(layer.apply(params, h))
    np.testing.assert_array_equal(found[:, :5], h)
    kernels = np.asarray(h @ params["params"]["kernels"]["kernel"]).reshape(6, 2, 4)
    for i in range(6):
        others = [j for j in range(6) if j // 3 == i // 3 and j != i]
        want = [sum(np.exp(-np.abs(kernels[i, b] - kernels[j, b]).sum()) for j in others) for b in range(2)]
        np.testing.assert_allclose(found[i, 5:], want, rtol=1e-4, atol=1e-6)


def test_deviation_is_the_mean_standard_deviation_of_each_group():
    h = jax.random.normal(jax.random.key(0), (6, 5))
    found = np.asarray(batch_features.with_deviation(h, 3))
    for i in range(6):
        np.testing.assert_allclose(found[i, 5], np.asarray(h)[i // 3 * 3 :][:3].std(0).mean(), rtol=1e-4)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="group_size"):
        batch_features.grouped(jnp.ones((6, 2)), 4)
