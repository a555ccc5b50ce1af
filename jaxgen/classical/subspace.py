"""The leading eigenvectors of a symmetric matrix, by products with it alone.

Subspace iteration with Rayleigh–Ritz (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithm 4.4 and section 5.3).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.classical.rows import matmul


def orient(directions: jax.Array) -> jax.Array:
    """Rows [K, D] with the sign under which each one's largest entry by magnitude is positive."""
    largest = jnp.take_along_axis(directions, jnp.abs(directions).argmax(1)[:, None], 1)
    return jnp.where(largest < 0, -directions, directions)


def orthonormal(rows: jax.Array) -> jax.Array:
    """Orthonormal rows [L, D] that span, one after the other, what the given ones span (Gram and Schmidt).

    Three times over: of a row that depends on those before it the first pass leaves rounding, which the next ones make
    orthogonal. Products alone: on a busy CPU, LAPACK's threads wait for each other a thousand times as long as they
    work on a matrix of this size.
    """

    def row(j, done):
        v = rows[j]
        for _ in range(3):
            v = v - matmul(matmul(done, v), done)
            v = v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
        return done.at[j].set(v)

    return jax.lax.fori_loop(0, rows.shape[0], row, jnp.zeros_like(rows))


def random_directions(key: jax.Array, num: int, dim: int, dtype: jnp.dtype | type = jnp.float32) -> jax.Array:
    """Random orthonormal rows [num, dim]."""
    return orthonormal(jax.random.normal(key, (num, dim), dtype))


def subspace(
    apply: Callable[[jax.Array], jax.Array], directions: jax.Array, num_iters: int
) -> tuple[jax.Array, jax.Array]:
    """Subspace iteration, and the best directions in the subspace (Rayleigh and Ritz).

    Args:
      apply: multiplication of rows by a symmetric C ≥ 0, [L, D] → [L, D].
      directions: where to start, orthonormal rows [L, D].
      num_iters: iterations; the error of direction k falls by λ_{L+1} / λ_k each.

    Returns:
      Directions [L, D], orthonormal rows, and C's values along them [L], the largest first.
    """
    directions = jax.lax.fori_loop(0, num_iters, lambda i, rows: orthonormal(apply(rows)), directions)
    values, vectors = jnp.linalg.eigh(matmul(apply(directions), directions.T))
    return orient(matmul(vectors.T[::-1], directions)), jnp.maximum(values[::-1], 0)
