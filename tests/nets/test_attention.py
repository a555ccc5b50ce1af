"""Blocked attention against products over all pairs, of values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.attention import attend_cached, attention

LENGTH = 128  # four blocks


def brute_force(q, k, v, seen):
    """Softmax over the visible keys, head by head, of arrays [B, T, N, D] and [B, T, K, D], seen [B, T, T]."""
    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], 2) for x in (k, v))
    scores = jnp.einsum("btnd,bsnd->bnts", q, k) / np.sqrt(q.shape[-1])
    weights = jnp.where(seen[:, None], jnp.exp(scores), 0.0)
    return jnp.einsum("bnts,bsnd->btnd", weights / weights.sum(-1, keepdims=True), v)


def arrays(kv_heads=2, length=LENGTH):
    keys = jax.random.split(jax.random.key(0), 4)
    q, g = (jax.random.normal(key, (2, length, 4, 8)) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, length, kv_heads, 8)) for key in keys[2:])
    segment = np.sort(np.random.default_rng(0).integers(0, 4, (2, length)), 1)
    return q, k, v, g, segment


CASES = {
    "causal": {"causal": True},
    "window": {"causal": True, "window": 21},
    "packed": {"causal": True, "segment": True},
    "both ways": {"segment": True},
    "packed window": {"causal": True, "segment": True, "window": 40},
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_equal_all_pairs(case):
    q, k, v, g, segment = arrays()
    i, j = np.arange(LENGTH)[:, None], np.arange(LENGTH)[None]
    options = dict(CASES[case])
    seen = np.ones((2, LENGTH, LENGTH), bool)
    if options.get("causal"):
        seen &= (i >= j)[None]
    if "window" in options:
        seen &= (i - j < options["window"])[None]
    if options.get("segment"):
        seen &= segment[:, :, None] == segment[:, None]
        options["segment"] = jnp.asarray(segment)

    def both(function):
        return jax.jit(jax.value_and_grad(lambda q, k, v: jnp.sum(g * function(q, k, v)), (0, 1, 2)))(q, k, v)

    ours, theirs = both(lambda *x: attention(*x, **options)), both(lambda *x: brute_force(*x, seen))
    assert ours[0] == pytest.approx(float(theirs[0]), rel=1e-4)
    for a, b in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_gradients_of_the_second_order():
    q, k, v, g, _ = arrays(length=8)
    seen = np.tril(np.ones((1, 8, 8), bool))

    def twice(function):
        inner = jax.grad(lambda q: jnp.sum(g * function(q, k, v)))
        return jax.jit(jax.grad(lambda q: jnp.sum(inner(q) ** 2)))(q)

    np.testing.assert_allclose(
        twice(lambda *x: attention(*x, causal=True)), twice(lambda *x: brute_force(*x, seen)), atol=1e-5
    )


def test_a_query_over_cached_keys_is_the_last_row():
    q, k, v, _, _ = arrays(length=8)
    seen = np.ones((2, 8), bool)
    seen[1, :3] = False
    found = attend_cached(q[:, -1], k.swapaxes(1, 2), v.swapaxes(1, 2), jnp.asarray(seen))
    np.testing.assert_allclose(found, brute_force(q, k, v, seen[:, None].repeat(8, 1))[:, -1], atol=1e-6)
