"""Metrics over a split with their standard errors; those with random draws in them are averaged over repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

NOISE = 0.01  # a metric with random draws in it is averaged over so many repeats that their error is below this,
SHARE = 0.1  # or, unless it is in bits/dim, below this share of what the choice of the examples leaves open,
CONFIDENCE = 0.95  # with this probability: few repeats tell little about their own spread
MOST_REPEATS = 100
UNIT = "bits_per_dim/"
"""What the names of metrics in bits per dimension begin with."""

Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Estimate(NamedTuple):
    """A metric, Σ numerator / Σ denominator over a split.

    Attributes:
      value: the metric.
      standard_error: of `value` as an estimate for all data like the split's examples, noise included.
      noise: the part of it that the metric's own random draws leave; 0 where there are none.
      repeats: evaluations that `value` is the mean of; a metric without noise is computed twice, which shows it.
      examples: each example's part in it [N]: their mean is `value`, their spread over √N the standard error.
      settled: whether the noise is as small as `repeated` wants it; False where it gave up.
    """

    value: float
    standard_error: float
    noise: float
    repeats: int
    examples: np.ndarray
    settled: bool = True

    def to_json(self) -> dict[str, float | bool]:
        """All but the examples."""
        return {name: value for name, value in self._asdict().items() if name != "examples"}


def estimate(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """The metric of R repeats, two or more, from numerators and denominators [R, N].

    The standard error is that of a ratio of means, by the delta method: for denominators of 1 the spread of the
    examples over √N.
    """
    (num, count), mean = numerators.shape, denominators.mean()
    value = float(numerators.mean() / mean)
    examples = value + (numerators.mean(0) - value * denominators.mean(0)) / mean
    ratios = numerators.mean(1) / denominators.mean(1)
    noise = float(ratios.std(ddof=1)) / math.sqrt(num)
    spread = float(examples.std(ddof=min(1, count - 1))) / math.sqrt(count)
    return Estimate(value, max(spread, noise), noise, num, examples)


def repeated(evaluate: Callable[[int], Pairs]) -> dict[str, Estimate]:
    """Averages `evaluate(repeat)`, name → (numerator [N], denominator [N]), until every metric is known well enough.

    That is when the noise's standard error is at most 0.01, or, of a metric in other units than bits/dim, a tenth of
    the whole one; with 95 % certainty (the spread of n normal repeats follows χ² of n − 1 degrees of freedom). It is
    given up after 100 repeats: what is too noisy then is not `settled`.
    """
    from scipy.stats import chi2

    runs = [evaluate(0), evaluate(1)]
    while True:
        n = len(runs)
        stacked = lambda name, part: np.stack([run[name][part] for run in runs])
        table = {name: estimate(stacked(name, 0), stacked(name, 1)) for name in runs[0]}
        sure = math.sqrt((n - 1) / chi2.ppf(1 - CONFIDENCE, n - 1))
        share = {name: 0.0 if name.startswith(UNIT) else SHARE for name in table}
        settled = {name: e.noise * sure <= max(NOISE, share[name] * e.standard_error) for name, e in table.items()}
        if n >= MOST_REPEATS or all(settled.values()):
            return {name: e._replace(settled=settled[name]) for name, e in table.items()}
        runs.append(evaluate(n))
