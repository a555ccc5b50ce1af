import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.gans.networks import Critic, CriticConfig
from jaxgen.nets import spectral

VECTORS = jax.jit(lambda params: spectral.init_vectors(params, num=300))


@pytest.fixture(scope="module")
def params():
    critic = Critic(CriticConfig(widths=(8, 16)), sizes=(3,))
    return jax.jit(critic.init)(jax.random.key(0), jnp.ones((2, 8, 8, 2)), jnp.zeros((2, 1), jnp.int32))["params"]


def largest(kernel):
    return np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def test_every_kernel_gets_the_norm_one_and_nothing_else_changes(params):
    vectors = VECTORS(params)
    found = jax.jit(spectral.normalised)(params, vectors)
    kernels = 0
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(found), strict=True):
        if path[-1].key == "kernel":
            kernels += 1
            np.testing.assert_allclose(new, old / largest(old), rtol=1e-3, atol=1e-6)
        else:
            np.testing.assert_array_equal(new, old)
    assert kernels == len(jax.tree.leaves(vectors)) == 4  # two convolutions, the score, the condition


def test_the_gradient_is_that_of_dividing_by_the_largest_singular_value(params):
    kernel = params["net"]["down_1"]["conv"]["kernel"]
    vectors = VECTORS({"kernel": kernel})
    weights = jax.random.normal(jax.random.key(1), kernel.shape)

    def exact(kernel):
        norm = jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        return (weights * kernel / norm).sum()

    ours = lambda kernel: (weights * spectral.normalised({"kernel": kernel}, vectors)["kernel"]).sum()
    found, want = jax.jit(lambda kernel: (jax.grad(ours)(kernel), jax.grad(exact)(kernel)))(kernel)
    np.testing.assert_allclose(found, want, rtol=1e-2, atol=2e-3)
