"""All pairs of two sets, block by block: device memory holds the sets and one block of pairs, never N × M numbers.

Squared distances are |a|² + |b|² − 2 a·b in float64, about a `shift` that should be near the data's mean: the rounding
is then some 1e-13 of the squared spread, where float32 would mix up near neighbours and see distances between copies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 1024  # rows of a block: 8 MB of distances
NONE = np.iinfo(np.int32).max


def _cut(x: np.ndarray, size: int) -> np.ndarray:
    """[N, ...] → [blocks, size, ...], filled up with zeros."""
    num = -(-len(x) // size)
    padding = np.zeros((num * size - len(x), *x.shape[1:]), x.dtype)
    return np.concatenate([x, padding]).reshape(num, size, *x.shape[1:])


def _all_pairs(reduce: Callable[..., Any], queries: tuple, references: tuple, chunk: int) -> Any:
    """The results [N, ...] of `reduce(queries [C, ...], references [blocks, C, ...])` over blocks of the queries."""
    num = len(queries[0])
    size = min(chunk, max(num, len(references[0])))
    cut = [_cut(x, size) for x in queries]
    parts = []
    with jax.enable_x64(True):
        stacked = jax.device_put(tuple(_cut(x, size) for x in references))
        for i in range(len(cut[0])):
            parts.append(jax.device_get(reduce(tuple(x[i] for x in cut), stacked)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *parts)


def _rows(x: np.ndarray) -> np.ndarray:
    return np.arange(len(x), dtype=np.int32) + 1  # 0 marks the padding


def _centred(x: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x [C, D] about `shift` [D], and the squared norms [C]."""
    x = x.astype(jnp.float64) - shift[None]
    return x, jnp.square(x).sum(1)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="num")
def _smallest(queries, references, shift, num):
    a, norm_a = _centred(queries[0], shift)

    def step(best, block):
        b, norm_b = _centred(block[0], shift)
        norm_b = jnp.where(block[1] > 0, norm_b, jnp.inf)
        fresh = norm_a[:, None] + norm_b[None, :] - 2 * _dot(a, b)  # [C, C]
        squares = jnp.concatenate([best[0], fresh], 1)
        rows = jnp.concatenate([best[1], jnp.broadcast_to(block[1][None] - 1, fresh.shape)], 1)
        found = []
        for _ in range(num):  # XLA's argmin and top_k on CPUs take 5 and 25 times as long as this
            least = squares.min(1, keepdims=True)
            row = jnp.where(squares == least, rows, NONE).min(1, keepdims=True)
            found.append((least, row))
            squares = jnp.where(rows == row, jnp.inf, squares)
        return tuple(jnp.concatenate(x, 1) for x in zip(*found, strict=True)), None

    start = jnp.full((len(a), num), jnp.inf), jnp.full((len(a), num), NONE, jnp.int32)
    return jax.lax.scan(step, start, references)[0]


def smallest(
    queries: np.ndarray, references: np.ndarray, num: int, shift: np.ndarray, chunk: int = CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """The `num` ≤ M least squared distances [N, num] of queries [N, D] to references [M, D], rising, and their rows.

    The squares have rounding errors of at most about D · 2⁻⁵² times the squared norms about `shift` [D], and may be
    that far below 0; references whose distances differ by less come in any order.
    """
    reduce = partial(_smallest, shift=shift, num=num)
    return _all_pairs(reduce, (queries,), (references, _rows(references)), chunk)


@jax.jit
def _inside(queries, references, shift):
    a, norm_a = _centred(queries[0], shift)
    # A point on the edge of a ball, its centre's copy where the radius is 0 above all, must not fall to rounding.
    slack = 1 - 4 * a.shape[1] * jnp.finfo(jnp.float64).eps

    def step(counts, block):
        b, norm_b = _centred(block[0], shift)
        norm_b = jnp.where(block[1] > 0, norm_b, jnp.inf)
        squares = slack * (norm_a[:, None] + norm_b[None, :]) - 2 * _dot(a, b)  # [C, C]
        own, others = squares <= queries[1][:, None], squares <= block[2][None, :]
        return (counts[0] + own.sum(1), counts[1] + others.sum(1)), None

    zeros = jnp.zeros(len(a), jnp.int64)
    return jax.lax.scan(step, (zeros, zeros), references)[0]


def inside(
    queries: np.ndarray,
    references: np.ndarray,
    query_radii: np.ndarray,
    reference_radii: np.ndarray,
    shift: np.ndarray,
    chunk: int = CHUNK,
) -> tuple[np.ndarray, np.ndarray]:
    """For each query, the references inside its ball [N], and the references inside whose balls it lies [N].

    Balls are closed; the radii [N] and [M] come squared, as `smallest` gives them.
    """
    reduce = partial(_inside, shift=shift)
    return _all_pairs(reduce, (queries, query_radii), (references, _rows(references), reference_radii), chunk)


@jax.jit
def _kernel_sums(queries, references):
    a = queries[0].astype(jnp.float64)

    def step(total, block):
        kernel = (_dot(a, block[0].astype(jnp.float64)) / a.shape[1] + 1) ** 3  # [C, C]
        return total + jnp.where(block[1][None] > 0, kernel, 0).sum(1), None

    return jax.lax.scan(step, jnp.zeros(len(a)), references)[0]


def kernel_sums(queries: np.ndarray, references: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """Σ_j (a_i·b_j/D + 1)³ for each of the queries a [N, D] over the references b [M, D]: [N]."""
    return _all_pairs(_kernel_sums, (queries,), (references, _rows(references)), chunk)
