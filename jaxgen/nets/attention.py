"""Softmax attention: the one door to `jax.nn.dot_product_attention`, and a blocked form for CPUs.

On a CPU, self-attention that is causal or parted into segments goes block by block of queries over the keys that the
block can see, and keeps of its weights no more than their logarithmic sums (Dao et al. 2022, arXiv 2205.14135): the
backward pass computes them anew. Two to three times as fast there as products over all pairs. The price is forward
mode, as for `nets.conv`: `jax.jvp` and its like raise; reverse over reverse works.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxgen.kernels import backend

BLOCKS, LEAST = 4, 32  # blocks of queries at most, and queries in a block at least, but for the last


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    causal: bool = False,
    segment: jax.Array | None = None,
    window: int | None = None,
) -> jax.Array:
    """softmax(q kᵀ / √D) v, by cuDNN's flash kernel where that can, blocked on a CPU, and by XLA elsewhere.

    Args:
      q: queries [B, T, N, D].
      k: keys [B, S, K, D]; N is a multiple of K (grouped queries).
      v: values [B, S, K, D].
      mask: True where a query may look, broadcast to [B, N, T, S].
      causal: whether query t sees only the keys up to t; T = S.
      segment: int [B, T], with T = S: a query sees only the keys of its own number.
      window: with `causal`: a query sees itself and the `window` - 1 keys before it.

    Returns:
      [B, T, N, D] in q's dtype.

    Raises:
      ValueError: a window without `causal`, which has no one meaning.
    """
    if window is not None and not causal:
        raise ValueError(f"window={window} needs causal=True: it counts keys before a query")
    if backend() == "cpu" and mask is None and (causal or segment is not None):
        return _blocked_heads(q, k, v, segment, causal, window)
    if segment is not None:
        same = segment[:, None, :, None] == segment[:, None, None, :]
        mask = same if mask is None else mask & same
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        is_causal=causal,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn" if _cudnn_can(q, k, mask) else "xla",  # JAX's default never picks cuDNN
    )


def _cudnn_can(q: jax.Array, k: jax.Array, mask: jax.Array | None) -> bool:
    """Whether cuDNN's flash kernel takes q, k and mask, with gradients too; JAX raises where it does not.

    It takes half precision on NVIDIA's GPUs from Ampere (compute capability 8.0) on; heads of a multiple of 8 up to
    128, from Hopper (9.0) on up to 256; with a mask even lengths alone, for the sake of its gradients (JAX's
    `check_is_flash_attention`).
    """
    if backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:  # AMD's
        return False
    capability = tuple(int(part) for part in device.compute_capability.split("."))
    dim, most = q.shape[-1], 256 if capability >= (9, 0) else 128
    even = mask is None or (q.shape[1] % 2 == 0 and k.shape[1] % 2 == 0)
    return capability >= (8, 0) and dim % 8 == 0 and dim <= most and even


def attend_cached(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """Attention of one query an example over cached keys.

    Args:
      q: [B, N, D].
      k: keys [B, K, S, D]: heads lead, so that a head's keys lie side by side.
      v: values, the same.
      visible: bool [B, S].

    Returns:
      [B, N, D] in q's dtype.
    """
    batch, heads, dim = q.shape
    grouped = q.reshape(batch, k.shape[1], -1, dim) * dim**-0.5
    scores = jnp.einsum("bkgd,bksd->bkgs", grouped, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, -jnp.inf), -1).astype(v.dtype)
    return jnp.einsum("bkgs,bksd->bkgd", weights, v).reshape(batch, heads, dim)


def _blocked_heads(q, k, v, segment, causal, window):
    batch, length, heads, dim = q.shape
    grouped = q.reshape(batch, length, k.shape[2], -1, dim).transpose(0, 2, 3, 1, 4)  # [B, K, G, T, D]
    out = _blocked(grouped, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), segment, causal, window)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _blocked(q, k, v, segment, causal: bool, window: int | None) -> jax.Array:
    """q [B, K, G, T, D], k and v [B, K, T, D], segment [B, T] or None → [B, K, G, T, D]."""
    return _blocked_forward(q, k, v, segment, causal, window)[0]


def _spans(length: int, causal: bool, window: int | None) -> Iterator[tuple[slice, slice]]:
    """The blocks of queries, of which the last may be shorter, and the keys that each can see."""
    size = max(LEAST, -(-length // BLOCKS))
    for start in range(0, length, size):
        first, stop = 0 if window is None else max(0, start - window + 1), min(start + size, length)
        yield slice(start, stop), slice(first, stop if causal else length)


def _scores(q, k, segment, rows: slice, columns: slice, causal: bool, window: int | None) -> jax.Array:
    """The scaled products [B, K, G, t, s] of a block of queries and the keys that it can see, -inf where it cannot."""
    scores = jnp.einsum("bkgtd,bksd->bkgts", q[..., rows, :], k[:, :, columns], preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    i, j = jnp.arange(rows.start, rows.stop)[:, None], jnp.arange(columns.start, columns.stop)[None]
    seen = (i >= j if causal else i >= 0)[None]
    if window is not None:
        seen = seen & (i - j < window)[None]
    if segment is not None:
        seen = seen & (segment[:, rows, None] == segment[:, None, columns])
    return jnp.where(seen[:, None, None], scores, -jnp.inf)


def _blocked_forward(q, k, v, segment, causal, window):
    outs, sums = [], []
    for rows, columns in _spans(q.shape[3], causal, window):
        scores = _scores(q, k, segment, rows, columns, causal, window)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        sums.append(top + jnp.log(total))
        out = jnp.einsum("bkgts,bksd->bkgtd", weights.astype(v.dtype), v[:, :, columns])
        outs.append((out / total).astype(q.dtype))
    out, logsum = jnp.concatenate(outs, 3), jnp.concatenate(sums, 3)
    return out, (q, k, v, segment, out, logsum)


def _blocked_backward(causal, window, residuals, dout):
    q, k, v, segment, out, logsum = residuals
    delta = jnp.sum(dout.astype(jnp.float32) * out, -1, keepdims=True)
    dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for rows, columns in _spans(q.shape[3], causal, window):
        weights = jnp.exp(_scores(q, k, segment, rows, columns, causal, window) - logsum[..., rows, :])
        dout_rows = dout[..., rows, :]
        dv = dv.at[:, :, columns].add(jnp.einsum("bkgts,bkgtd->bksd", weights.astype(v.dtype), dout_rows))
        dweights = jnp.einsum("bkgtd,bksd->bkgts", dout_rows, v[:, :, columns], preferred_element_type=jnp.float32)
        dscores = (weights * (dweights - delta[..., rows, :]) * q.shape[-1] ** -0.5).astype(q.dtype)
        dq.append(jnp.einsum("bkgts,bksd->bkgtd", dscores, k[:, :, columns]))
        dk = dk.at[:, :, columns].add(jnp.einsum("bkgts,bkgtd->bksd", dscores, q[..., rows, :]))
    return jnp.concatenate(dq, 3), dk.astype(k.dtype), dv.astype(v.dtype), None


_blocked.defvjp(_blocked_forward, _blocked_backward)
