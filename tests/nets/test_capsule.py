import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.capsule import CapsuleCritic, route, squash


def test_squash_keeps_directions_and_sets_lengths():
    s = np.array([[3.0, 4.0], [0.03, -0.04]], np.float32)
    v = np.asarray(squash(jnp.asarray(s)))
    lengths = np.linalg.norm(v, axis=1)
    np.testing.assert_allclose(lengths, [25 / 26, 0.0025 / 1.0025], rtol=1e-3)
    np.testing.assert_allclose(v / lengths[:, None], s / np.linalg.norm(s, axis=1)[:, None], rtol=1e-5)


def test_routing_follows_the_procedure_of_the_paper():
    votes = np.random.default_rng(0).standard_normal((2, 5, 2, 3)).astype(np.float32)
    for n in range(2):
        b = np.zeros((5, 2))
        for _ in range(3):
            c = np.exp(b) / np.exp(b).sum(1, keepdims=True)
            s = np.einsum("ij,ijd->jd", c, votes[n])
            norm = np.linalg.norm(s, axis=1, keepdims=True)
            v = norm**2 / (1 + norm**2) * s / norm
            b = b + np.einsum("ijd,jd->ij", votes[n], v)
        np.testing.assert_allclose(route(jnp.asarray(votes), 3)[n], s, rtol=1e-4, atol=1e-5)


def test_agreeing_votes_outweigh_scattered_ones():
    rng = np.random.default_rng(1)
    scattered = rng.standard_normal((1, 16, 1, 4))
    scattered *= 2 / np.linalg.norm(scattered, axis=-1, keepdims=True)
    agreeing = np.broadcast_to([2.0, 0, 0, 0], scattered.shape)
    found = route(jnp.asarray(np.concatenate([agreeing, scattered], 2), jnp.float32), 3)
    once = np.concatenate([agreeing, scattered], 2).sum(1) / 2  # both outputs with the same weight
    lengths, first = (np.linalg.norm(np.asarray(s)[0], axis=-1) for s in (found, once))
    assert lengths[0] > 1.5 * first[0]  # votes move to the capsule that has found agreement


def test_the_critic_scores_each_image_by_itself():
    critic, x = CapsuleCritic((4, 8)), jax.random.normal(jax.random.key(0), (3, 8, 8, 1))

    @jax.jit
    def both(key):
        found, params = critic.init_with_output(key, x)
        return found, critic.apply(params, x[1:])

    found, part = both(jax.random.key(1))
    assert found.shape == (3,) and not np.allclose(found[1], found[2])
    np.testing.assert_allclose(found[1:], part, rtol=1e-4, atol=1e-5)
