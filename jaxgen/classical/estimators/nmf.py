"""NMF."""

from __future__ import annotations

from typing import get_args

import jax
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from jaxgen.classical import factors
from jaxgen.classical.estimators.base import FLOATS, Estimator, make_key, precision
from jaxgen.classical.nndsvd import Init, start
from jaxgen.config import check_choice

_encode = jax.jit(factors.encode, static_argnames=("loss", "solver"))
_fit = jax.jit(factors.fit, static_argnames=("loss", "solver"))
_start = jax.jit(start, static_argnums=(2, 3))


def _first(name, value, shape, x):
    value = check_array(value, dtype=x.dtype)
    if value.shape != shape or value.min() < 0:
        raise ValueError(f"{name} must be a table {shape} without a negative number; it has the shape {value.shape}")
    return value


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Non-negative matrix factorization; NaN stands for a missing entry, over which nothing is summed.

    Args:
      n_components: K; None for all columns.
      init: "nndsvda", "nndsvd" or "random"; None for the first where K ≤ min(N, D), else the last.
      solver: "hals", or "mu", which is taken as well where entries are missing.
      beta_loss: "frobenius", or "kullback-leibler" with "mu".
      tol: stops when ten iterations lower the objective by less than this share of its first value.
      max_iter: iterations at most; as many updates find the weights in `transform`.
      random_state: seed of the start.
    """

    def __init__(
        self,
        n_components=None,
        *,
        init=None,
        solver="hals",
        beta_loss="frobenius",
        tol=1e-6,
        max_iter=200,
        random_state=None,
    ):
        self.n_components = n_components
        self.init = init
        self.solver = solver
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _table(self, X, reset=False):
        """The table with its gaps filled by column means, and the mask of what is there, None where nothing lacks."""
        x = self._data(X, reset=reset, ensure_all_finite="allow-nan")
        there = ~np.isnan(x)
        if (x[there] < 0).any():
            raise ValueError("Negative values in data passed to NMF; all observed entries must be 0 or more")
        if there.all():
            return x, None
        mean = np.where(there, x, 0).sum(0) / np.maximum(there.sum(0), 1)
        return np.where(there, x, mean.astype(x.dtype)[None]), there.astype(x.dtype)

    def _options(self):
        losses = {"frobenius": "frobenius", "kullback-leibler": "kl"}
        check_choice("beta_loss", self.beta_loss, losses)
        check_choice("solver", self.solver, factors.SOLVERS)
        if self.beta_loss != "frobenius" and self.solver != "mu":
            raise ValueError(f"beta_loss={self.beta_loss!r} has multiplicative updates alone: set solver='mu'")
        return {"loss": losses[self.beta_loss], "solver": self.solver}

    def fit_transform(self, X, y=None, W=None, H=None):
        """The weights [N, K]; sets `components_` [K, D], `reconstruction_err_` and `n_iter_`; W and H: a start."""
        (x, mask), options = self._table(X, reset=True), self._options()
        num = x.shape[1] if self.n_components is None else self.n_components
        init = self.init or ("nndsvda" if num <= min(x.shape) else "random")
        check_choice("init", init, get_args(Init))
        if num < 1:
            raise ValueError(f"n_components={num} must be 1 or more")
        if (W is None) != (H is None):
            raise ValueError("a start needs both W and H")
        if W is not None:
            W, H = _first("W", W, (len(x), num), x), _first("H", H, (num, x.shape[1]), x)
        with precision(x):
            if W is None:
                W, H = _start(make_key(self.random_state), x, num, init)
            found = _fit(x, W, H, max_iter=self.max_iter, tol=self.tol, mask=mask, **options)
        weights, self.components_, error, number = map(np.asarray, found)
        self.n_components_, self.n_iter_, self._n_features_out = num, int(number), num
        self.reconstruction_err_ = float(np.sqrt((1 if options["loss"] == "frobenius" else 2) * error))
        return weights

    def fit(self, X, y=None):
        """As `fit_transform`."""
        self.fit_transform(X)
        return self

    def transform(self, X):
        """The weights [N, K] of rows under the fitted parts."""
        check_is_fitted(self)
        x, mask = self._table(X)
        with precision(x):
            parts = self.components_.astype(x.dtype)
            return np.asarray(_encode(x, parts, num_iters=self.max_iter, mask=mask, **self._options()))

    def inverse_transform(self, X):
        """Rows [N, D] of weights [N, K], gaps filled."""
        check_is_fitted(self)
        return check_array(X, dtype=FLOATS) @ self.components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = tags.input_tags.allow_nan = True
        return tags
