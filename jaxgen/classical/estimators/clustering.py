"""KMeans and AgglomerativeClustering."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state

from jaxgen.classical import hierarchical, kmeans, lloyd
from jaxgen.classical.estimators.base import Estimator, make_key, precision
from jaxgen.classical.rows import over_rows
from jaxgen.classical.seeding import SEEDS, squared_distances
from jaxgen.config import check_choice

_lloyd = jax.jit(lloyd.lloyd)
_assign = jax.jit(lambda x, weight, centroids: over_rows(lloyd.assign, lloyd.Rows(x, weight), centroids))
_spread = jax.jit(lambda x: jnp.var(x, 0).mean())
_seed = jax.jit(lambda key, x, weight, num, init: SEEDS[init](key, x, num, weight), static_argnums=(3, 4))


@jax.jit
def _distances(x: jax.Array, centroids: jax.Array) -> jax.Array:
    return jnp.sqrt(over_rows(lambda x, c: ((), squared_distances(x, c)), x, centroids)[1])


@jax.jit
def _minibatch(key, number, centroids, counts, x, weight):
    total, (_, distance) = over_rows(lloyd.sums, lloyd.Rows(x, weight), centroids)
    key, mass = jax.random.fold_in(key, number), weight * distance
    return lloyd.minibatch(key, centroids, counts, number, total, x.__getitem__, mass, kmeans.Config.reassign)


def _origin(x: np.ndarray) -> np.ndarray:
    """Where distances are measured from [D]: rows far from 0 would drown them in their squares' rounding; else 0."""
    some = x[:: -(-len(x) // 1024)]
    mean = some.mean(0)
    return mean if (mean**2).sum() > 100 * some.var(0).sum() else np.zeros_like(mean)


def _weights(sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, x.dtype)
    if weight.shape != (len(x),) or not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
        raise ValueError(f"sample_weight must be {len(x)} finite numbers of 0 or more, not all of them zero")
    return weight


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """k-means: Lloyd's algorithm, or mini-batches of `batch_size` rows.

    Args:
      n_clusters: K.
      init: "k-means++", "k-means||", "random", or the first centroids, [K, D].
      n_init: starts, of which the best counts; "auto" is 10 for "random", else 1.
      max_iter: iterations (epochs of mini-batches) at most.
      tol: stops when the centroids' squared moves add up to this share of the columns' mean variance.
      batch_size: `n_clusters` or more; None for Lloyd's algorithm.
      random_state: seed of the starts and of the batches.
    """

    def __init__(
        self,
        n_clusters=8,
        *,
        init="k-means++",
        n_init="auto",
        max_iter=300,
        tol=1e-4,
        batch_size=None,
        random_state=None,
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        """Sets `cluster_centers_` [K, D], `labels_` [N], `inertia_` and `n_iter_`."""
        x = self._data(X, reset=True)
        weight = _weights(sample_weight, x)
        if not (isinstance(self.n_clusters, (int, np.integer)) and 1 <= self.n_clusters <= len(x)):
            raise ValueError(f"n_samples={len(x)} should be >= n_clusters={self.n_clusters}, which should be >= 1.")
        given = not isinstance(self.init, str)
        if given and np.shape(self.init) != (self.n_clusters, x.shape[1]):
            raise ValueError(f"init has the shape {np.shape(self.init)}, not {(self.n_clusters, x.shape[1])}")
        if not given:
            check_choice("init", self.init, SEEDS)
        num = 1 if given else {"auto": 10 if self.init == "random" else 1}.get(self.n_init, self.n_init)
        size = self.n_clusters if self.batch_size is None else self.batch_size
        checks = (("n_init", num, 1), ("max_iter", self.max_iter, 1), ("batch_size", size, self.n_clusters))
        for name, value, least in checks:
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}={value!r} must be {least} or more, and a whole number")
        rng, runs = check_random_state(self.random_state), []
        self._origin = _origin(x)
        with precision(x):
            rows, weight = jax.device_put((self._near(x), weight))
            tol = self.tol * _spread(rows) if self.tol else 0.0
            for _ in range(num):
                if given:
                    first = jnp.asarray(self.init - self._origin, x.dtype)
                else:
                    first = _seed(make_key(rng), rows, weight, self.n_clusters, self.init)
                runs.append(self._run(rows, first, tol, weight, rng))
        best = min(runs, key=lambda run: float(run[2]))
        self.cluster_centers_, self.labels_ = np.asarray(best[0]) + self._origin, np.asarray(best[1])
        self.inertia_, self.n_iter_ = float(best[2]), int(best[3])
        self._n_features_out = self.n_clusters
        return self

    def _run(self, x, centroids, tol, weight, rng):
        if self.batch_size is None:
            return _lloyd(x, centroids, max_iter=self.max_iter, tol=tol, weight=weight)
        weight = jnp.ones(len(x), x.dtype) if weight is None else weight
        key, counts = make_key(rng), jnp.zeros(self.n_clusters, x.dtype)
        shift, epoch, number = np.inf, 0, 0
        while epoch < self.max_iter and shift > tol:
            before, epoch = centroids, epoch + 1
            # Whole batches, so that one program serves: the last one goes on with the order's beginning.
            order = np.resize(rng.permutation(len(x)), (-(-len(x) // self.batch_size), self.batch_size))
            for index in order:
                centroids, counts = _minibatch(key, number, centroids, counts, x[index], weight[index])
                number += 1
            shift = float(jnp.sum((centroids - before) ** 2))
        inertia, (label, _) = _assign(x, weight, centroids)
        return centroids, label, inertia, epoch

    def _near(self, x):
        return (x - self._origin).astype(x.dtype) if self._origin.any() else x

    def _assigned(self, X, sample_weight=None):
        x = self._data(X)
        with precision(x):
            return _assign(self._near(x), _weights(sample_weight, x), self._near(self.cluster_centers_).astype(x.dtype))

    def predict(self, X):
        """The nearest centroid of each row, int32 [N]."""
        return np.asarray(self._assigned(X)[1][0])

    def transform(self, X):
        """Distances to the centroids [N, K]."""
        x = self._data(X)
        with precision(x):
            return np.asarray(_distances(self._near(x), self._near(self.cluster_centers_).astype(x.dtype)))

    def score(self, X, y=None, sample_weight=None):
        """Minus the inertia."""
        return -float(self._assigned(X, sample_weight)[0])


class AgglomerativeClustering(ClusterMixin, Estimator):
    """Hierarchical clustering, cut into `n_clusters`, or at `distance_threshold` with `n_clusters=None`.

    Args:
      n_clusters: the number of clusters, or None.
      linkage: "ward", "average", "complete" or "single".
      distance_threshold: the height to cut at, or None.
    """

    def __init__(self, n_clusters=2, *, linkage="ward", distance_threshold=None):
        self.n_clusters = n_clusters
        self.linkage = linkage
        self.distance_threshold = distance_threshold

    def fit(self, X, y=None):
        """Sets `labels_` [N], `n_clusters_`, scipy's matrix `linkage_matrix_`, its `children_` and `distances_`."""
        x = self._data(X, reset=True, ensure_min_samples=2)
        self.linkage_matrix_ = hierarchical.linkage(x, self.linkage)
        self.labels_ = hierarchical.cut(self.linkage_matrix_, self.n_clusters, self.distance_threshold)
        self.children_, self.distances_ = self.linkage_matrix_[:, :2].astype(np.int64), self.linkage_matrix_[:, 2]
        self.n_clusters_, self.n_leaves_ = int(self.labels_.max()) + 1, len(x)
        return self
