"""Is one model's figure better than another's, or is it the draw? A paired bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Difference(NamedTuple):
    """statistic(a) − statistic(b), and the ends of its 95 % interval: no difference is proved where 0 lies inside."""

    difference: float
    low: float
    high: float


def bootstrap_difference(
    statistic: Callable[[np.ndarray], float], a: ArrayLike, b: ArrayLike, num: int = 1000, seed: int = 0
) -> Difference:
    """The difference of a statistic between two sets, with the 95 % interval of `num` resamplings.

    The same rows are drawn of both sets, with replacement, so that what is common to a row of a and of b (the example,
    the noise, the request) cancels. Resampling shifts a statistic that depends on duplicates, such as a Fréchet
    distance, and not by the same amount in both sets; hence the resampled differences are moved so that their mean is
    the difference itself, before their quantiles are read.

    Args:
      statistic: `(rows [N, ...]) -> number`.
      a, b: two sets [N, ...] whose rows belong together.
      num: the number of resamplings; 1000 suffice for a 95 % interval.
      seed: drives the resampling.

    Raises:
      ValueError: the sets differ in length, have fewer than two rows, or `num` is below 2.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape[:1] != b.shape[:1] or a.ndim < 1 or len(a) < 2:
        raise ValueError(f"need two rows or more, as many of a as of b, not {list(a.shape)} and {list(b.shape)}")
    if num < 2:
        raise ValueError(f"num must be 2 or more resamplings, not {num}")
    rng = np.random.default_rng(seed)
    differences = [
        statistic(a[rows]) - statistic(b[rows]) for rows in (rng.integers(len(a), size=len(a)) for _ in range(num))
    ]
    difference = float(statistic(a) - statistic(b))
    low, high = np.quantile(differences, [0.025, 0.975]) - np.mean(differences) + difference
    return Difference(difference, float(low), float(high))
