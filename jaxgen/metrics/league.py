"""A league of runs by bits per dimension: the same examples, the same units, exact likelihoods beside bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data import Dataset
from jaxgen.metrics.compare import bootstrap_difference
from jaxgen.metrics.repeats import UNIT, Estimate

CHUNK = 1024  # examples that are read at a time


class Entry(NamedTuple):
    """One metric of one run: `bits_per_dim/exact`, or an upper bound by its name."""

    run: str
    step: int
    metric: str
    estimate: Estimate


def is_likelihood(metric: str) -> bool:
    """Whether a metric is −log₂ p in bits/dim, exact or a bound, and not one of a bound's parts."""
    return metric.startswith((f"{UNIT}exact", f"{UNIT}bound"))


def fingerprint(data: Dataset, split: str, key: str) -> str:
    """A hash of the examples of a split under `key`, in order, and of the number of a pixel's values."""
    found = hashlib.sha256(f"{data.spec.levels} {data.spec.shape(key)} {data.spec.dtypes[key]}".encode())
    count = data.spec.count(split)
    for start in range(0, count, CHUNK):
        rows = np.arange(start, min(start + CHUNK, count))
        found.update(np.ascontiguousarray(data.read(split, rows, (key,))[key]).tobytes())
    return found.hexdigest()


def ranked(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The entries as rows that JSON can hold, the fewest bits first.

    Each has its `difference` from the first with the ends of a 95 % interval, of the same examples drawn for both
    (`compare.bootstrap_difference`): far narrower than the standard errors of two models that find the same
    examples hard.
    """
    order = sorted(entries, key=lambda entry: entry.estimate.value)
    best = order[0].estimate.examples
    return [
        {
            "run": entry.run,
            "step": entry.step,
            "metric": entry.metric,
            **entry.estimate.to_json(),
            "difference": bootstrap_difference(np.mean, entry.estimate.examples, best)._asdict(),
        }
        for entry in order
    ]
