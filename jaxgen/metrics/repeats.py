"""Metrics with random draws in them, averaged over repeats until they are known well enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

STANDARD_ERROR = 0.01  # a metric with random draws in it is averaged over so many repeats that its error is below this
CONFIDENCE = 0.95  # with this probability: few repeats tell little about their own spread
MOST_REPEATS = 100


def repeated(evaluate: Callable[[int], Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Averages `evaluate(repeat)` until the standard error of every metric is at most 0.01.

    That the error is so small is certain to 95 % (the spread of n normal repeats follows χ² of n − 1 degrees of
    freedom), and given up after 100 repeats, or at a metric that is not finite.

    Returns:
      name → `value`, `standard_error` (of the noise in the metric, not of the choice of the split) and `repeats`; a
      metric without noise is computed twice, which shows it.
    """
    from scipy.stats import chi2

    runs = [evaluate(0), evaluate(1)]
    while runs[0] != runs[1] and len(runs) < MOST_REPEATS and np.isfinite(list(runs[-1].values())).all():
        spread = max(np.std([run[name] for run in runs], ddof=1) for name in runs[0])
        n = len(runs)
        if spread * math.sqrt((n - 1) / chi2.ppf(1 - CONFIDENCE, n - 1) / n) <= STANDARD_ERROR:
            break
        runs.append(evaluate(n))
    table = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        table[name] = {"value": float(np.mean(values)), "standard_error": error, "repeats": len(values)}
    return table
