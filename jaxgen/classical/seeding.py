"""Where k-means starts: k-means++ and k-means||.

k-means++ (Arthur & Vassilvitskii 2007) draws each centre from the data with probability ∝ D², the squared distance to
the nearest centre so far; in expectation the inertia is within 8 (ln K + 2) of the best. The greedy form here draws a
few candidates at a time and keeps the best (the paper's section 7; scikit-learn does the same).

k-means|| (Bahmani et al. 2012, arXiv 1203.6402) draws many points a round, ∝ D², in a few rounds, weighs them by the
number of points that they are nearest to, and clusters them by k-means++: few passes over the data instead of K.
Deviation: exactly ℓ points a round, without replacement, instead of ℓ in expectation, since shapes are static.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.classical.rows import matmul, over_rows, sum_by_label


def nearest(x: jax.Array, centroids: jax.Array, square: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """The nearest centroid of each row, the first where several are equally near.

    The distances stand as [K, n] and the minimum is compared with them: on CPUs `argmin` takes several times as long.

    Args:
      x: [n, D].
      centroids: [K, D].
      square: ‖x‖² [n], where they are known.

    Returns:
      Labels int32 [n] and squared distances [n].
    """
    num = centroids.shape[0]
    score = 0.5 * jnp.sum(centroids**2, 1)[:, None] - matmul(centroids, x.T)  # (‖x − c‖² − ‖x‖²) / 2, [K, n]
    low = score.min(0)
    index = jax.lax.broadcasted_iota(jnp.int32, score.shape, 0)
    label = jnp.where(score == low[None], index, num - 1).min(0)
    square = jnp.sum(x**2, 1) if square is None else square
    return label, jnp.maximum(square + 2 * low, 0)


def squared_distances(x: jax.Array, centroids: jax.Array) -> jax.Array:
    """‖x − c‖² of rows [n, D] and centroids [K, D], [n, K]."""
    square = jnp.sum(x**2, 1)[:, None] + jnp.sum(centroids**2, 1)[None] - 2 * matmul(x, centroids.T)
    return jnp.maximum(square, 0)


def _draw(key: jax.Array, mass: jax.Array, num: int) -> jax.Array:
    """`num` indices [num] of `mass` [N], each drawn ∝ mass, with replacement."""
    total = jnp.cumsum(mass)
    u = jax.random.uniform(key, (num,), mass.dtype) * total[-1]
    return jnp.minimum(jnp.searchsorted(total, u, side="right"), mass.shape[0] - 1)


def draw_distinct(key: jax.Array, mass: jax.Array, num: int) -> jax.Array:
    """`num` different indices [num] of `mass` [N], drawn one after the other ∝ mass (Gumbel's trick)."""
    return jax.lax.top_k(jnp.log(mass) + jax.random.gumbel(key, mass.shape, mass.dtype), num)[1]


def plus_plus(key: jax.Array, x: jax.Array, num: int, weight: jax.Array | None = None) -> jax.Array:
    """k-means++ with the best of 2 + ⌊ln num⌋ candidates a centre.

    Args:
      key: decides all.
      x: rows [N, D], N ≥ num.
      num: the number of centres.
      weight: [N], how often each row counts; once by default.

    Returns:
      Centres [num, D], rows of x.
    """
    weight = jnp.ones(x.shape[0], x.dtype) if weight is None else weight
    key_first, key_rest = jax.random.split(key)
    first = x[_draw(key_first, weight, 1)]

    def distances(rows: jax.Array, centers: jax.Array) -> tuple[tuple[()], jax.Array]:
        return (), squared_distances(rows, centers)

    def add(distance, key):
        drawn = x[_draw(key, weight * distance, 2 + int(math.log(num)))]
        after = jnp.minimum(distance[:, None], over_rows(distances, x, drawn)[1])
        best = jnp.sum(after * weight[:, None], 0).argmin()
        return after[:, best], drawn[best]

    rest = jax.lax.scan(add, over_rows(distances, x, first)[1][:, 0], jax.random.split(key_rest, num)[1:])[1]
    return jnp.concatenate([first, rest])


def parallel(key: jax.Array, x: jax.Array, num: int, weight: jax.Array | None = None, rounds: int = 5) -> jax.Array:
    """k-means|| with ℓ = 2 num points a round; arguments and result as for `plus_plus`."""
    weight = jnp.ones(x.shape[0], x.dtype) if weight is None else weight
    keys = jax.random.split(key, rounds + 2)
    candidates = x[_draw(keys[0], weight, 1)]

    def count(rows: tuple[jax.Array, jax.Array], centers: jax.Array) -> tuple[jax.Array, jax.Array]:
        label, distance = nearest(rows[0], centers)
        return sum_by_label(rows[1], label, len(centers)), distance

    for i in range(rounds):
        distance = over_rows(count, (x, weight), candidates)[1]
        drawn = draw_distinct(keys[i + 1], weight * distance, min(2 * num, x.shape[0]))
        candidates = jnp.concatenate([candidates, x[drawn]])
    return plus_plus(keys[-1], candidates, num, over_rows(count, (x, weight), candidates)[0])


def random(key: jax.Array, x: jax.Array, num: int, weight: jax.Array | None = None) -> jax.Array:
    """`num` different rows; arguments and result as for `plus_plus`."""
    return x[draw_distinct(key, jnp.ones(x.shape[0], x.dtype) if weight is None else weight, num)]


SEEDS = {"k-means++": plus_plus, "k-means||": parallel, "random": random}
