"""Agglomerative clustering: merge the two nearest clusters until one is left, then cut the tree.

When clusters i and j merge, the distance of the new one to any other k follows from the old ones (Lance & Williams
1967), with sizes n:

  single    min(d_ik, d_jk)
  complete  max(d_ik, d_jk)
  average   (n_i d_ik + n_j d_jk) / (n_i + n_j)
  ward      √(((n_i + n_k) d_ik² + (n_j + n_k) d_jk² − n_k d_ij²) / (n_i + n_j + n_k))

None of them brings the new cluster nearer to k than both old ones were, so clusters that are each other's nearest can
be merged in any order: the nearest-neighbour chain (Murtagh 1983; Müllner 2011, arXiv 1109.2378) takes O(N²) time and
one N × N table. For single linkage the tree is the minimum spanning tree (Gower & Ross 1969), found by Prim's
algorithm. Both meet ties as scipy does.

There is nothing to train: `linkage` is a function of the data, in double precision on the host, since every merge
depends on the last. `jaxgen.report.dendrogram` draws its tree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import pdist, squareform

from jaxgen.config import closest

Array = np.ndarray


def _ward(d_ik: Array, d_jk: Array, d_ij: float, n_i: float, n_j: float, n_k: Array) -> Array:
    t = 1 / (n_i + n_j + n_k)  # in scipy's order of rounding, so that equal distances stay equal
    return np.sqrt((n_k + n_i) * t * d_ik * d_ik + (n_k + n_j) * t * d_jk * d_jk - n_k * t * d_ij * d_ij)


# Linkage → the distances of the merged cluster: (d_ik [N], d_jk [N], d_ij, n_i, n_j, n_k [N]) → [N].
UPDATES: dict[str, Callable[..., Array]] = {
    "ward": _ward,
    "average": lambda d_ik, d_jk, d_ij, n_i, n_j, n_k: (n_i * d_ik + n_j * d_jk) / (n_i + n_j),
    "complete": lambda d_ik, d_jk, *rest: np.maximum(d_ik, d_jk),
    "single": lambda d_ik, d_jk, *rest: np.minimum(d_ik, d_jk),
}


def linkage(x: Array, method: str = "ward") -> Array:
    """The tree over the rows of x [N, D] by their Euclidean distances, N ≥ 2; see `merge`."""
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"hierarchical clustering needs finite rows [N, D], N >= 2, not an array {list(x.shape)}")
    return merge(squareform(pdist(x)), method)


def merge(table: Array, method: str) -> Array:
    """The tree over N things by the table of their distances.

    Args:
      table: symmetric, [N, N]; left alone.
      method: `ward` (which takes the distances for Euclidean ones), `average`, `complete` or `single`.

    Returns:
      The linkage matrix Z [N − 1, 4] as scipy has it: a merge a row, in the order of their distances: two clusters
      (things are 0 … N − 1, the cluster of row r is N + r), their distance, and the size of the new one.

    Raises:
      ValueError: an unknown method.
    """
    if method not in UPDATES:
        raise ValueError(f"unknown linkage {method!r}{closest(method, UPDATES)}")
    merges = _spanning_tree(table) if method == "single" else _chain(table, UPDATES[method])
    merges.sort(key=lambda merge: merge[2])  # stable, as in scipy
    num = len(table)
    tree, parent = np.empty((num - 1, 4)), list(range(2 * num - 1))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for r, (i, j, distance) in enumerate(merges):
        a, b = sorted((root(i), root(j)))
        parent[a] = parent[b] = num + r
        tree[r] = a, b, distance, sum(tree[k - num, 3] if k >= num else 1 for k in (a, b))
    return tree


def _chain(table: Array, update: Callable[..., Array]) -> list[tuple[int, int, float]]:
    """Merges (i, j, distance) along the nearest-neighbour chain; j stands for the merged cluster afterwards."""
    table = table.astype(np.float64)  # a copy
    np.fill_diagonal(table, np.inf)
    size, chain, merges = np.ones(len(table)), list[int](), list[tuple[int, int, float]]()
    for _ in range(len(table) - 1):
        if not chain:
            chain.append(int(np.argmax(size > 0)))
        while True:
            i = chain[-1]
            j = int(table[i].argmin())
            if len(chain) > 1 and table[i, chain[-2]] <= table[i, j]:  # ties go back, or the chain might never end
                j = chain[-2]
                break
            chain.append(j)
        del chain[-2:]
        i, j = sorted((i, j))
        distance = float(table[i, j])
        merges.append((i, j, distance))
        alive = size > 0
        alive[[i, j]] = False
        row = update(table[i, alive], table[j, alive], distance, size[i], size[j], size[alive])
        table[j, alive] = table[alive, j] = row
        table[i], table[:, i] = np.inf, np.inf
        size[i], size[j] = 0, size[i] + size[j]
    return merges


def _spanning_tree(table: Array) -> list[tuple[int, int, float]]:
    """The edges (i, j, distance) of the minimum spanning tree, grown from thing 0."""
    near, outside, edges, i = np.full(len(table), np.inf), np.ones(len(table), bool), [], 0
    for _ in range(len(table) - 1):
        outside[i] = False
        near = np.where(outside, np.minimum(near, table[i]), np.inf)
        j = int(near.argmin())
        edges.append((i, j, float(near[j])))
        i = j
    return edges


def cut(tree: Array, num_clusters: int | None = None, height: float | None = None) -> Array:
    """Cuts the tree into `num_clusters`, or at `height`: merges at a greater distance are undone.

    Returns:
      Labels int32 [N], numbered from 0 in the order of their first members.

    Raises:
      ValueError: both or neither are given, or `num_clusters` lies outside 1…N.
    """
    num = len(tree) + 1
    if (num_clusters is None) == (height is None):
        raise ValueError("cut takes either num_clusters or height")
    if num_clusters is not None and not 1 <= num_clusters <= num:
        raise ValueError(f"num_clusters={num_clusters} must lie in 1…{num}, the number of things")
    kept = int(np.sum(tree[:, 2] <= height)) if num_clusters is None else num - num_clusters
    owner = list(range(2 * num - 1))
    for r in reversed(range(kept)):  # from the top down: what owns a cluster owns the two that it was made of
        owner[int(tree[r, 0])] = owner[int(tree[r, 1])] = owner[num + r]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(owner[:num]))}
    return np.array([numbers[name] for name in owner[:num]], np.int32)
