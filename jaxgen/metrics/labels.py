"""What labels, given or read by a classifier, say of samples: which classes appear, and whether requests are met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

THRESHOLD = 0.1  # a class is covered when the samples have so much of its real share


def _as_labels(labels: ArrayLike, num_classes: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers [N], not {array.dtype} {list(array.shape)}")
    if array.min() < 0 or array.max() >= num_classes:
        raise ValueError(f"{name} must lie in 0 to {num_classes - 1}, and run from {array.min()} to {array.max()}")
    return array


class ClassCoverage(NamedTuple):
    """Two histograms compared.

    Attributes:
      share: of the classes that the real data have, the share of which the samples have at least 10 % (`THRESHOLD`) of
        the real share; 1 where no class is missing.
      total_variation: half of Σ |real − fake|, in 0…1.
      real, fake: the shares of the classes [K].
    """

    share: float
    total_variation: float
    real: np.ndarray
    fake: np.ndarray


def class_coverage(real_labels: ArrayLike, fake_labels: ArrayLike, num_classes: int) -> ClassCoverage:
    """Which classes the samples have lost: integers in 0…K-1, [N] of real data and [M] of samples.

    Raises:
      ValueError: labels are no integers [N], none, or out of range.
    """
    real, fake = (
        np.bincount(_as_labels(labels, num_classes, name), minlength=num_classes) / len(np.asarray(labels))
        for labels, name in ((real_labels, "real_labels"), (fake_labels, "fake_labels"))
    )
    covered = fake[real > 0] >= THRESHOLD * real[real > 0]
    variation = float(np.abs(real - fake).sum() / 2)
    return ClassCoverage(float(covered.mean()), variation, real, fake)


class AttributeCoverage(NamedTuple):
    """Means over the attributes of the fields of `ClassCoverage`, and the attributes' own [A]."""

    share: float
    total_variation: float
    attributes: tuple[ClassCoverage, ...]


def attribute_coverage(real: ArrayLike, fake: ArrayLike, sizes: Sequence[int]) -> AttributeCoverage:
    """`class_coverage` of every attribute: values [N, A] of real data, [M, A] of samples; `sizes` as in `Spec.sizes`.

    Raises:
      ValueError: the arrays do not have one column for each of `sizes`, or a value is out of range.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    for array, name in ((real, "real"), (fake, "fake")):
        if array.ndim != 2 or array.shape[1] != len(sizes) or not sizes:
            raise ValueError(f"{name} attributes must be [N, {len(sizes)}], one column a size, not {list(array.shape)}")
    attributes = tuple(class_coverage(real[:, a], fake[:, a], size) for a, size in enumerate(sizes))
    share, variation = np.mean([one[:2] for one in attributes], axis=0).tolist()
    return AttributeCoverage(share, variation, attributes)


class BalancedAccuracy(NamedTuple):
    """The mean recall over the values that were asked for, and the recall of each value [K], NaN where never asked."""

    mean: float
    recall: np.ndarray


def balanced_accuracy(asked: ArrayLike, read: ArrayLike, num_classes: int) -> BalancedAccuracy:
    """How often a sample shows what it was asked for: integers in 0…K-1, [N] asked and [N] read off the samples.

    Each value weighs the same, however often it was asked for: a generator that always draws the commonest value gets
    1/K.

    Raises:
      ValueError: labels are no integers [N], out of range, or of two lengths.
    """
    asked, read = _as_labels(asked, num_classes, "asked"), _as_labels(read, num_classes, "read")
    if len(asked) != len(read):
        raise ValueError(f"asked and read must be of the same samples, not of {len(asked)} and {len(read)}")
    counts = np.bincount(asked, minlength=num_classes)
    hits = np.bincount(asked[asked == read], minlength=num_classes)
    recall = np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)
    return BalancedAccuracy(float(recall[counts > 0].mean()), recall)
