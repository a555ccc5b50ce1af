"""Principal components as functions of arrays: three solvers, and the way there and back.

Sources and objective stand in `pca`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.classical.rows import matmul, over_rows
from jaxgen.classical.subspace import orient, random_directions, subspace

BLOCKS = 4  # rows of blocks in a symmetric product, where D is 64 · BLOCKS or more: 10 of 16 blocks are computed


class Components(NamedTuple):
    """A fitted subspace.

    Attributes:
      mean: m [D].
      directions: V [K, D], orthonormal rows, the most telling first; of each the largest entry is positive.
      variances: Λ [K], the data's variance along each.
      total: [], the variance in all D directions; `variances / total` is the explained share.
    """

    mean: jax.Array
    directions: jax.Array
    variances: jax.Array
    total: jax.Array


def transform(found: Components, x: jax.Array, whiten: bool = False) -> jax.Array:
    """The codes z = V (x − m), [n, D] → [n, K]; whitened, each of variance 1 over the data."""
    z = matmul(x - found.mean[None], found.directions.T)
    return z / _scale(found)[None] if whiten else z


def inverse(found: Components, z: jax.Array, whiten: bool = False) -> jax.Array:
    """m + Vᵀ z, [n, K] → [n, D]; `whiten` as in `transform`."""
    return matmul(z * _scale(found)[None] if whiten else z, found.directions) + found.mean[None]


def _scale(found: Components) -> jax.Array:
    return jnp.sqrt(jnp.maximum(found.variances, jnp.finfo(found.variances.dtype).tiny))


def moments(
    rows: jax.Array, shift: jax.Array, read: Callable[[jax.Array], jax.Array] = lambda x: x
) -> tuple[jax.Array, jax.Array]:
    """Σ (x − shift) [D] and Σ (x − shift)(x − shift)ᵀ [D, D] over rows [N, …], where x = read(rows) [n, D].

    With a `shift` [D] near the mean nothing cancels when the covariance is made of them. Of the symmetric product, only
    blocks on and above the diagonal are computed, and put together once, at the end.
    """
    dim = shift.shape[0]
    num = BLOCKS if dim >= 64 * BLOCKS else 1
    edges = [round(dim * i / num) for i in range(num + 1)]

    def add(rows, shift):
        x = read(rows) - shift[None]
        return (x.sum(0), [matmul(x[:, a:b].T, x[:, a:]) for a, b in zip(edges, edges[1:], strict=False)]), ()

    (first, blocks), _ = over_rows(add, rows, shift)
    padded = [jnp.pad(block, ((0, 0), (a, 0))) for a, block in zip(edges, blocks, strict=False)]
    upper = jnp.triu(jnp.concatenate(padded))
    return first, upper + jnp.triu(upper, 1).T


def exact(x: jax.Array, num: int) -> Components:
    """The first `num` components of x [N, D], num ≤ min(N, D), by its singular values; variances have N − 1 below."""
    mean = x.mean(0)
    triangle = jnp.linalg.qr(x - mean[None], mode="r")  # has the data's singular values and right singular vectors
    _, values, directions = jnp.linalg.svd(triangle, full_matrices=False)
    variances = values**2 / (x.shape[0] - 1)
    return Components(mean, orient(directions[:num]), variances[:num], variances.sum())


def from_moments(shift: jax.Array, count: int | jax.Array, first: jax.Array, second: jax.Array, num: int) -> Components:
    """The first `num` components by the eigenvectors of the covariance; arguments: see `moments`, of `count` rows.

    Squaring the data costs half the digits: a variance below 1e-7 of the largest is noise in float32.
    """
    first = first / count
    covariance = (second - count * first[:, None] * first[None]) / jnp.maximum(count - 1, 1)
    values, vectors = jnp.linalg.eigh(covariance)
    variances = jnp.maximum(values[::-1][:num], 0)
    return Components(shift + first, orient(vectors.T[::-1][:num]), variances, jnp.trace(covariance))


def from_covariance(x: jax.Array, num: int) -> Components:
    """The same in one pass over x [N, D]; quick where D is small."""
    shift = x[:1024].mean(0)
    return from_moments(shift, x.shape[0], *moments(x, shift), num)


def randomized(key: jax.Array, x: jax.Array, num: int, oversampling: int = 10, num_iters: int = 4) -> Components:
    """The first `num` components of x [N, D] by subspace iteration from num + oversampling random directions.

    One pass over the data an iteration, D (num + oversampling) numbers of memory.
    """
    count, dim = x.shape
    mean = over_rows(lambda rows: (rows.sum(0), ()), x)[0] / count

    def centered(rows, directions, mean):
        rows = rows - mean[None]
        return (matmul(matmul(rows, directions.T).T, rows), jnp.sum(rows**2)), ()

    apply = lambda directions: over_rows(centered, x, directions, mean)[0][0] / (count - 1)
    first = random_directions(key, min(num + oversampling, count, dim), dim, x.dtype)
    directions, values = subspace(apply, first, num_iters)
    total = over_rows(centered, x, first[:1], mean)[0][1] / (count - 1)
    return Components(mean, directions[:num], values[:num], total)
