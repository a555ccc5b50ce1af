"""PCA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from jaxgen.classical import components
from jaxgen.classical.estimators.base import FLOATS, Estimator, make_key, precision
from jaxgen.config import check_choice

_exact = jax.jit(components.exact, static_argnums=1)
_from_moments = jax.jit(components.from_moments, static_argnums=4)
_randomized = jax.jit(components.randomized, static_argnums=(2, 3, 4))
CHUNK = 2**22  # elements that are handed to the device at once: the table is never copied whole


@jax.jit
def _add(sums: Any, x: jax.Array, shift: jax.Array) -> Any:
    return jax.tree.map(jnp.add, sums, components.moments(x, shift))


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Principal components; `partial_fit` takes the data chunk by chunk.

    Args:
      n_components: K; a share of the variance in (0, 1) to reach (not "randomized"); None for min(N, D).
      whiten: whether codes have unit variance.
      svd_solver: "full" (singular values), "covariance_eigh", "randomized", or "auto": the second for at most 1000
        columns and ten times as many rows, the third for less than 80 % of a large table, else the first.
      n_oversamples: "randomized": directions beyond K.
      iterated_power: "randomized": iterations.
      random_state: "randomized": seed.
    """

    def __init__(
        self,
        n_components=None,
        *,
        whiten=False,
        svd_solver="auto",
        n_oversamples=10,
        iterated_power=4,
        random_state=None,
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.n_oversamples = n_oversamples
        self.iterated_power = iterated_power
        self.random_state = random_state

    def fit(self, X, y=None):
        """Sets `components_` [K, D], `mean_`, `explained_variance_` and its `_ratio_`, `noise_variance_` and so on."""
        x = self._data(X, reset=True, ensure_min_samples=2)
        most, self._sums, solver = min(x.shape), None, self.svd_solver
        num = self._number(most, "min(n_samples, n_features)")
        check_choice("svd_solver", solver, ("auto", "full", "covariance_eigh", "randomized"))
        if solver == "randomized" and self.n_components is not None and num != self.n_components:
            raise ValueError(f"svd_solver='randomized' needs a whole number n_components, not {self.n_components}")
        if solver == "auto":
            tall, large = x.shape[1] <= 1000 and len(x) >= 10 * x.shape[1], max(x.shape) > 500 and num < 0.8 * most
            solver = "covariance_eigh" if tall else "randomized" if large else "full"
        with precision(x):
            if solver == "covariance_eigh":
                return self._stream(None, x, num)
            if solver == "randomized":
                found = _randomized(make_key(self.random_state), x, num, self.n_oversamples, self.iterated_power)
            else:
                found = _exact(x, num)
        return self._set(found, len(x))

    def partial_fit(self, X, y=None):
        """Adds rows to those of earlier calls (of `fit` too, with "covariance_eigh"), and fits all of them."""
        past = getattr(self, "_sums", None)
        x = validate_data(self, X, reset=past is None, dtype=FLOATS)
        with precision(x):
            return self._stream(past, x, self._number(x.shape[1], "n_features"))

    def _number(self, most, what):
        """How many components to compute: `most` where all are asked for, or a share of the variance."""
        wanted = self.n_components
        if wanted is None or 0 < wanted < 1:
            return most
        if not (isinstance(wanted, (int, np.integer)) and 1 <= wanted <= most):
            raise ValueError(f"n_components={wanted} must be a whole number in 1…{most}, {what}, or lie in (0, 1)")
        return wanted

    def _stream(self, past, x, num):
        dim = x.shape[1]
        shift, count, *sums = past or (x[:1024].mean(0), 0, np.zeros(dim, x.dtype), np.zeros((dim, dim), x.dtype))
        size = max(CHUNK // dim, 1)
        for i in range(0, len(x), size):
            sums = _add(tuple(sums), x[i : i + size], shift)
        self._sums = (shift, count + len(x), *map(np.asarray, sums))
        return self._set(_from_moments(*self._sums, num), self._sums[1])

    def _set(self, found, count):
        mean, directions, variances, total = map(np.asarray, found)
        num, share = len(variances), variances / total
        if self.n_components is not None and 0 < self.n_components < 1:
            num = int(np.searchsorted(np.cumsum(share), self.n_components, side="right")) + 1
        left = min(count, directions.shape[1]) - num
        self.mean_, self.components_, self.explained_variance_ = mean, directions[:num], variances[:num]
        self.explained_variance_ratio_, self.n_components_, self.n_samples_ = share[:num], num, count
        self.singular_values_ = np.sqrt(self.explained_variance_ * (count - 1))
        self.noise_variance_ = float(max(total - variances[:num].sum(), 0) / left) if left else 0.0
        self._n_features_out = num
        return self

    def _found(self, dtype) -> Any:
        parts = self.mean_, self.components_, self.explained_variance_, np.ones(())
        return components.Components(*(jnp.asarray(part, dtype) for part in parts))

    def transform(self, X):
        """Codes [N, K]."""
        x = self._data(X)
        with precision(x):
            return np.asarray(components.transform(self._found(x.dtype), jnp.asarray(x), self.whiten))

    def inverse_transform(self, X):
        """Rows [N, D] of codes [N, K]."""
        check_is_fitted(self)
        z = check_array(X, dtype=FLOATS)
        with precision(z):
            return np.asarray(components.inverse(self._found(z.dtype), jnp.asarray(z), self.whiten))
