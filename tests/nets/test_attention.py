"""Blocked attention against products over all pairs, of values and gradients."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import attention as module
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


@pytest.mark.parametrize(("case", "length"), [*((case, LENGTH) for case in CASES), ("packed window", 77)])
def test_blocks_equal_all_pairs(case, length):
    q, k, v, g, segment = arrays(length=length)
    i, j = np.arange(length)[:, None], np.arange(length)[None]
    options = dict(CASES[case])
    seen = np.ones((2, length, length), bool)
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


@pytest.mark.parametrize(("length", "sizes"), [(128, [32] * 4), (257, [65, 65, 65, 62]), (77, [32, 32, 13]), (8, [8])])
def test_blocks_cover_every_query_once(length, sizes):
    spans = list(module._spans(length, True, None))
    assert [rows.stop - rows.start for rows, _ in spans] == sizes
    assert [number for rows, _ in spans for number in range(length)[rows]] == list(range(length))
    assert all(columns == slice(0, rows.stop) for rows, columns in spans)


def test_a_window_needs_an_order():
    q, k, v, _, segment = arrays(length=8)
    for given in (None, jnp.asarray(segment)):
        with pytest.raises(ValueError, match="window=3 needs causal=True"):
            attention(q, k, v, window=3, segment=given)


@pytest.mark.parametrize(
    ("capability", "client", "dtype", "dim", "lengths", "masked", "takes"),
    [
        ("8.0", "cuda 12090", "bfloat16", 128, (64, 64), True, True),
        ("8.0", "cuda 12090", "float16", 64, (63, 65), False, True),
        ("8.0", "cuda 12090", "bfloat16", 64, (63, 64), True, False),  # gradients with a mask: even lengths
        ("8.0", "cuda 12090", "bfloat16", 64, (64, 65), True, False),
        ("8.9", "cuda 12090", "bfloat16", 256, (64, 64), False, False),
        ("9.0", "cuda 12090", "bfloat16", 256, (64, 64), False, True),
        ("10.0", "cuda 12090", "bfloat16", 264, (64, 64), False, False),
        ("10.0", "cuda 12090", "bfloat16", 256, (64, 64), False, True),
        ("9.0", "cuda 12090", "bfloat16", 60, (64, 64), False, False),
        ("7.5", "cuda 12090", "float16", 64, (64, 64), False, False),
        ("9.0", "cuda 12090", "float32", 64, (64, 64), False, False),
        ("gfx942", "rocm 60400", "bfloat16", 64, (64, 64), False, False),
    ],
)
def test_cudnn_is_asked_for_what_it_can(capability, client, dtype, dim, lengths, masked, takes, monkeypatch):
    """What JAX's `check_is_flash_attention` accepts for a forward and a backward pass."""
    device = types.SimpleNamespace(
        compute_capability=capability, client=types.SimpleNamespace(platform_version=f"PJRT\n{client}")
    )
    monkeypatch.setattr(module, "backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    q, k = (jax.ShapeDtypeStruct((2, length, 4, dim), dtype) for length in lengths)
    assert module._cudnn_can(q, k, jnp.ones((1, 1, 1, 1), bool) if masked else None) == takes
    monkeypatch.setattr(module, "backend", lambda: "plain")
    assert not module._cudnn_can(q, k, None)


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
