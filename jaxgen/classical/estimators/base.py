"""What the estimators share: checked arrays, their precision, keys from seeds."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

FLOATS = [np.float64, np.float32]


def make_key(random_state: Any) -> jax.Array:
    """A key from what scikit-learn takes for a seed; another one each time from the same `RandomState`."""
    return jax.random.key(check_random_state(random_state).randint(2**31 - 1))


def precision(x: np.ndarray) -> Any:
    """A context in which JAX computes in the precision of `x`."""
    return jax.enable_x64(x.dtype == np.float64)


class Estimator(BaseEstimator):
    """A BaseEstimator whose `_data` are checked floats; the first call `reset`s what later ones must agree with."""

    def _data(self, x: Any, reset: bool = False, **options: Any) -> np.ndarray:
        if not reset:
            check_is_fitted(self)
        return validate_data(self, x, reset=reset, dtype=FLOATS, **options)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
