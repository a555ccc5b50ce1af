"""The iterations of k-means as functions of arrays: Lloyd's, Sculley's, and what becomes of empty clusters.

Sources and objective stand in `kmeans`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.classical.rows import matmul, over_rows, sum_by_label
from jaxgen.classical.seeding import draw_distinct, nearest

Sums = dict[str, jax.Array]
Found = tuple[jax.Array, jax.Array]


class Rows(NamedTuple):
    """What is clustered.

    Attributes:
      x: [n, D].
      weight: [n], how often each row counts; once where None.
      square: ‖x‖² [n]; computed anew where None.
    """

    x: jax.Array
    weight: jax.Array | None = None
    square: jax.Array | None = None


def assign(rows: Rows, centroids: jax.Array) -> tuple[jax.Array, Found]:
    """The inertia [], and each row's label [n] and squared distance [n]; for `over_rows`."""
    found = nearest(rows.x, centroids, rows.square)
    return jnp.sum(found[1] if rows.weight is None else rows.weight * found[1]), found


def sums(rows: Rows, centroids: jax.Array) -> tuple[Sums, Found]:
    """What an iteration needs, for `over_rows`.

    Returns:
      Per cluster the weighted sum `x` [K, D] and the `weight` [K], and the `inertia` []; labels [n], distances² [n].
    """
    inertia, found = assign(rows, centroids)
    x, weight = rows.x, rows.weight
    each = (x, jnp.ones_like(x[:, 0])) if weight is None else (x * weight[:, None], weight)
    total, mass = (sum_by_label(part, found[0], len(centroids)) for part in each)
    return {"x": total, "weight": mass, "inertia": inertia}, found


def zeros(centroids: jax.Array) -> Sums:
    """`sums` of no rows."""
    nothing = jnp.zeros_like(centroids)
    return {"x": nothing, "weight": nothing[:, 0], "inertia": nothing[0, 0]}


def move(
    centroids: jax.Array,
    total: Sums,
    take: Callable[[jax.Array], jax.Array],
    weight: jax.Array,
    label: jax.Array,
    distance: jax.Array,
) -> jax.Array:
    """The centroids [K, D] after an iteration: means, and far examples where a cluster is empty.

    Args:
      centroids: those to which the rows were assigned.
      total: the sums over all rows.
      take: indices [K] → rows [K, D]; far ones are taken, and leave the cluster in which they were.
      weight, label, distance: of the rows that can be taken, [N] each.
    """
    num = centroids.shape[0]
    empty = total["weight"] == 0

    def relocate(total: Sums) -> Sums:
        # The e-th empty cluster gets the e-th farthest row, unless all rows stand on centroids.
        _, far = jax.lax.top_k(jnp.where(weight > 0, distance, -1), num)
        rank = jnp.cumsum(empty) - 1
        mass = jnp.where((jnp.arange(num) < empty.sum()) & (distance[far] > 0), weight[far], 0)
        donors = jax.nn.one_hot(label[far], num, axis=0, dtype=mass.dtype) * mass[None]
        gained = jnp.where(empty, mass[rank], 0)
        x = take(far)
        rows = total["x"] - matmul(donors, x) + gained[:, None] * x[rank]
        return {**total, "x": rows, "weight": total["weight"] - donors.sum(1) + gained}

    total = jax.lax.cond(empty.any(), relocate, lambda total: total, total)
    mean = total["x"] / jnp.maximum(total["weight"], 1e-12)[:, None]
    return jnp.where((total["weight"] > 0)[:, None], mean, centroids)


def lloyd(
    x: jax.Array, centroids: jax.Array, max_iter: int, tol: float | jax.Array = 0.0, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Iterates until the centroids' squared moves add up to `tol` or less; 0 until no example changes its cluster.

    Args:
      x: [N, D].
      centroids: where to start, [K, D].
      max_iter: iterations at most.
      tol: in the squared units of x.
      weight: [N], how often each row counts; once by default.

    Returns:
      Centroids [K, D], labels int32 [N], inertia [] of those, and the number of iterations.
    """
    mass = jnp.ones(x.shape[0], x.dtype) if weight is None else weight
    rows = Rows(x, weight, jnp.sum(x**2, 1))

    def iterate(carry):
        centroids, _, number = carry
        total, found = over_rows(sums, rows, centroids)
        moved = move(centroids, total, x.__getitem__, mass, *found)
        return moved, jnp.sum((moved - centroids) ** 2), number + 1

    going = lambda carry: (carry[1] > tol) & (carry[2] < max_iter)
    start = (centroids, jnp.array(jnp.inf, x.dtype), jnp.array(0, jnp.int32))
    centroids, _, number = jax.lax.while_loop(going, iterate, start)
    inertia, (label, _) = over_rows(assign, rows, centroids)
    return centroids, label, inertia, number


def minibatch(
    key: jax.Array,
    centroids: jax.Array,
    counts: jax.Array,
    number: jax.Array,
    total: Sums,
    take: Callable[[jax.Array], jax.Array],
    mass: jax.Array,
    share: float,
) -> tuple[jax.Array, jax.Array]:
    """Sculley's update: a centroid is the mean of all examples that it was ever assigned; lost ones start anew.

    Args:
      key: decides where.
      centroids: those to which the batch was assigned, [K, D].
      counts: how many examples each had before, [K].
      number: the batch's, from 0; every ⌈10 K / n⌉ batches lost centroids are looked for.
      total: the batch's sums.
      take: indices [K] → rows [K, D] of the batch.
      mass: the rows' weights times distances² [n], n ≥ K; a new start is drawn in proportion.
      share: a centroid with less than this share of the largest count is lost.

    Returns:
      Centroids [K, D] and counts [K].
    """
    num, size = centroids.shape[0], mass.shape[0]
    counts = counts + total["weight"]
    moved = total["x"] - total["weight"][:, None] * centroids
    centroids = centroids + moved / jnp.maximum(counts, 1e-12)[:, None]
    lost = counts < share * counts.max()

    def restart() -> tuple[jax.Array, jax.Array]:
        # With the smallest count of the others: neither stuck nor lost at once.
        fresh = jnp.min(jnp.where(lost, jnp.inf, counts))
        drawn = take(draw_distinct(key, mass, num))
        return jnp.where(lost[:, None], drawn, centroids), jnp.where(lost, fresh, counts)

    due = ((number + 1) % math.ceil(10 * num / size) == 0) & lost.any()
    return jax.lax.cond(due, restart, lambda: (centroids, counts))
