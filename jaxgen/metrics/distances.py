"""Distances between two sets of features, real and generated: Fréchet, kernel, precision and recall, neighbours.

- Fréchet distance (Heusel et al. 2017, arXiv 1706.08500), of the Gaussians with the sets' moments:
  d² = ‖μ_1 − μ_2‖² + Tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^{1/2}).
- Kernel distance, KID (Bińkowski et al. 2018, arXiv 1801.01401): the unbiased MMD² with k(a, b) = (a·b/D + 1)³.
- Precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991): the share of one set inside the union of the balls
  about the other set's points that reach their k-th neighbours.
- Density and coverage (Naeem et al. 2020, arXiv 2002.09797): how many real balls a sample lies in, over k, and the
  share of real balls that hold a sample.

All depend on the sizes of the sets: name them beside the figure. The Fréchet distance of finite sets is biased upwards.
Deviation: a point on a ball's edge is inside, as Kynkäänniemi et al. define it; the code of Naeem et al. leaves it out.
Only copies tell the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics import pairs


def as_features(features: ArrayLike, name: str, num: int = 1) -> np.ndarray:
    """`features` as an array [N, D]; a ValueError unless it is one, finite, with N ≥ `num` and D ≥ 1."""
    array = np.asarray(features)
    if array.ndim != 2 or len(array) < num or not array.shape[1]:
        raise ValueError(f"{name} must be an array [N, D] with N of at least {num}, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values, in row {np.argwhere(~np.isfinite(array))[0, 0]} first")
    return array


def _as_pair(a: ArrayLike, b: ArrayLike, names: tuple[str, str], num: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_features(a, names[0], num), as_features(b, names[1], num)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{names[0]} and {names[1]} differ in their number of features: {x.shape[1]} and {y.shape[1]}")
    return x, y


class Moments(NamedTuple):
    """Number of rows, mean [D] and unbiased covariance [D, D] (zeros for one row) in float64."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    mean: np.ndarray
    cov: np.ndarray


def moments(features: ArrayLike) -> Moments:
    """The moments of features [N, D]; ValueError unless they are finite and N ≥ 1."""
    x = as_features(features, "features").astype(np.float64)
    mean = x.mean(0)
    x -= mean
    return Moments(len(x), mean, x.T @ x / max(len(x) - 1, 1))


def covariance_root(cov: np.ndarray) -> np.ndarray:
    """R [D, D] with R Rᵀ = `cov` [D, D], which may be singular: eigenvalues that are rounding noise count as 0."""
    values, vectors = np.linalg.eigh(cov)
    noise = len(values) * np.finfo(np.float64).eps * values[-1]
    return vectors * np.sqrt(np.where(values > noise, values, 0))


class Frechet(NamedTuple):
    """The squared distance, and its two parts: of the means, and of the covariances."""

    distance: float
    mean_part: float
    cov_part: float


def frechet_distance(a: Moments, b: Moments) -> Frechet:
    """The squared Fréchet distance of two Gaussians, in squared units of the features (Heusel et al., equation 6).

    Tr (Σ_1 Σ_2)^{1/2} is the sum of the singular values of R_1ᵀ R_2, Σ_i = R_i R_iᵀ: real for any covariances, and
    exact to rounding for singular ones, where a matrix root of Σ_1 Σ_2 is neither.

    Raises:
      ValueError: the dimensions differ, or a set has fewer than two rows.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the moments are of {len(a.mean)} and of {len(b.mean)} features; take both of one network's")
    if min(a.count, b.count) < 2:
        raise ValueError(f"a covariance needs two rows at least, and the sets have {a.count} and {b.count}")
    mean_part = float(np.square(a.mean - b.mean).sum())
    cross = np.linalg.svd(covariance_root(a.cov).T @ covariance_root(b.cov), compute_uv=False).sum()
    cov_part = max(float(np.trace(a.cov) + np.trace(b.cov) - 2 * cross), 0.0)  # below 0 by rounding alone
    return Frechet(mean_part + cov_part, mean_part, cov_part)


def distance_from(real: Moments) -> Callable[[ArrayLike], float]:
    """`features [N, D] -> frechet_distance(moments(features), real).distance`, with `real` decomposed once, for many.

    The singular values of R_1ᵀ R_2 are the roots of the eigenvalues of R_2ᵀ Σ_1 R_2, one decomposition a call. Of those
    that are rounding noise, which count as 0, each root is below 2e-7 of the largest one for D = 128.
    """
    root = covariance_root(real.cov)

    def distance(features: ArrayLike) -> float:
        a = moments(features)
        if a.mean.shape != real.mean.shape or min(a.count, real.count) < 2:
            return frechet_distance(a, real).distance  # which says what is wrong
        values = np.linalg.eigvalsh(root.T @ a.cov @ root)
        noise = len(values) * np.finfo(np.float64).eps * values[-1]
        cross = np.sqrt(np.where(values > noise, values, 0)).sum()
        cov_part = max(float(np.trace(a.cov) + np.trace(real.cov) - 2 * cross), 0.0)
        return float(np.square(a.mean - real.mean).sum()) + cov_part

    return distance


class KernelDistance(NamedTuple):
    """An estimate of MMD² (its expectation is 0 for equal distributions, so it may be negative), and its error."""

    value: float
    standard_error: float


def kernel_distance(x: ArrayLike, y: ArrayLike) -> KernelDistance:
    """The kernel distance of x [N, D] and y [M, D], over all pairs of rows.

    Published KIDs are means over 100 random subsets of 1000 rows: estimates of the same number, with more noise. The
    standard error is the jackknife's, over rows of both sets: too large rather than too small (Efron & Stein 1981), by
    √2 for equal distributions.

    Raises:
      ValueError: fewer than 3 rows, or x and y of different D.
    """
    x, y = _as_pair(x, y, ("x", "y"), 3)

    def within(x):  # the mean over pairs of two rows, and the same without each row [N]
        diagonal = (np.square(x.astype(np.float64)).mean(1) + 1) ** 3
        sums, n = pairs.kernel_sums(x, x) - diagonal, len(x)
        return sums.sum() / (n * (n - 1)), (sums.sum() - 2 * sums) / ((n - 1) * (n - 2))

    def between(x, y):  # the mean over pairs of a row each, and the same without each row of x [N]
        sums = pairs.kernel_sums(x, y) / len(y)
        return sums.mean(), (sums.sum() - sums) / (len(x) - 1)

    (xx, xx_without), (yy, yy_without) = within(x), within(y)
    (xy, xy_without), (_, yx_without) = between(x, y), between(y, x)
    left_out = (xx_without - 2 * xy_without, yy_without - 2 * yx_without)
    variance = sum((len(values) - 1) * values.var() for values in left_out)
    return KernelDistance(float(xx + yy - 2 * xy), float(np.sqrt(variance)))


class PrecisionRecall(NamedTuple):
    """Shares in 0…1, but for the density, which has no upper bound and is 1 in expectation for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    real: ArrayLike, fake: ArrayLike, k: int = 3, k_density: int = 5, chunk: int = pairs.CHUNK
) -> PrecisionRecall:
    """How many of the samples are real-looking, and how much of the real data they cover.

    Args:
      real, fake: features [N, D] and [M, D].
      k: the neighbour that sets a ball's radius for precision and recall; a point is not its own neighbour.
      k_density: the same for density and coverage.
      chunk: rows of a block of pairs.

    Raises:
      ValueError: k or k_density is below 1, or a set has no more rows than them.
    """
    if min(k, k_density) < 1:
        raise ValueError(f"k and k_density must be 1 or more, not {k} and {k_density}")
    real, fake = _as_pair(real, fake, ("real", "fake"), max(k, k_density) + 1)
    shift = real.mean(0, dtype=np.float64)
    # A point is the first of its own neighbours, at distance 0: its k-th other one stands at k.
    radii = pairs.smallest(real, real, max(k, k_density) + 1, shift, chunk)[0]
    fake_radii = pairs.smallest(fake, fake, k + 1, shift, chunk)[0][:, k]
    in_own, in_others = pairs.inside(real, fake, radii[:, k_density], fake_radii, shift, chunk)
    _, in_real = pairs.inside(fake, real, fake_radii, radii[:, k], shift, chunk)
    return PrecisionRecall(
        precision=float((in_real > 0).mean()),
        recall=float((in_others > 0).mean()),
        density=float(in_own.sum() / (k_density * len(fake))),
        coverage=float((in_own > 0).mean()),
    )


def nearest(queries: ArrayLike, references: ArrayLike, chunk: int = pairs.CHUNK) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance [N] of each query [N, D] to its nearest reference [M, D], and that one's row [N]."""
    x, y = _as_pair(queries, references, ("queries", "references"))
    index = pairs.smallest(x, y, 1, y.mean(0, dtype=np.float64), chunk)[1][:, 0]
    starts = range(0, len(x), chunk)
    parts = [x[i : i + chunk].astype(np.float64) - y[index[i : i + chunk]] for i in starts]  # a copy is at exactly 0
    return np.concatenate([np.linalg.norm(part, axis=1) for part in parts]), index
