"""Statistics of images as such: sharpness, checkerboards, copies of the training set, and a Gaussian baseline.

Images are uint8 [N, H, W, C], C = 1 or 3, with pixels in 0 … levels-1. Their luminance is pixel / (levels-1) for one
channel and 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, on the stored values, without undoing their gamma) for three.

- Sharpness (Pech-Pacheco et al. 2000): Var(∇² Y), the variance over an image of its luminance's Laplacian.
- Nyquist energy: the share of the luminance's spectrum at the highest frequencies, where the artefacts of strided
  transposed convolutions stand (Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts").
- Memorisation (Meehan, Chaudhuri & Dasgupta 2020, arXiv 2004.05675): are samples closer to the training images than
  new real images are?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.distances import nearest

BATCH = 1024  # images that are widened to float64 at a time
BT601 = np.array([0.299, 0.587, 0.114])


def _as_images(images: ArrayLike, levels: int) -> np.ndarray:
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
        raise ValueError(f"need uint8 images [N, H, W, 1 or 3], not {array.dtype} {list(array.shape)}")
    if not 2 <= levels <= 256 or array.max() >= levels:
        raise ValueError(
            f"pixels reach {array.max()}, and levels={levels} allows 0 to {levels - 1}: take the data's own"
        )
    return array


def _luminances(images: np.ndarray, levels: int) -> Iterator[np.ndarray]:
    """The luminance [n, H, W] in [0, 1] of successive images."""
    weights = (BT601 if images.shape[-1] == 3 else np.ones(1)) / (levels - 1)
    for i in range(0, len(images), BATCH):
        yield images[i : i + BATCH] @ weights


def sharpness(images: ArrayLike, levels: int) -> float:
    """The mean over images of the variance of the luminance's 4-neighbour Laplacian.

    The Laplacian, Σ neighbours − 4 Y, is taken at the pixels that have all four neighbours; the variance is over them.
    0 for constant images and ramps, 16 for a checkerboard of single pixels, 20 σ² for independent pixels.

    Raises:
      ValueError: the images are not as the module says, or smaller than 3 × 3.
    """
    images = _as_images(images, levels)
    if min(images.shape[1:3]) < 3:
        raise ValueError(f"a Laplacian needs images of 3 x 3 pixels or more, not {images.shape[1]} x {images.shape[2]}")
    total = 0.0
    for y in _luminances(images, levels):
        inner = y[:, 1:-1, 1:-1]
        laplacian = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:] - 4 * inner
        total += laplacian.var((1, 2)).sum()
    return float(total / len(images))


def nyquist_energy(images: ArrayLike, levels: int) -> float:
    """The share in 0…1 of the luminance's energy, its mean left out, at the highest vertical or horizontal frequency.

    These are the patterns that alternate from one row, or from one column, to the next: Σ |F|² over the row H/2 and the
    column W/2 of the discrete Fourier transform F, over Σ |F|² without F(0, 0), both summed over all images. 1 for a
    checkerboard, (H + W − 1) / (HW − 1) for independent pixels, 0 for constant images. Images have edges, which count a
    little: compare with real images. An odd side loses its last row or column, as it has no such frequency.

    Raises:
      ValueError: the images are not as the module says, or smaller than 2 × 2.
    """
    images = _as_images(images, levels)
    height, width = (side - side % 2 for side in images.shape[1:3])
    if not (height and width):
        raise ValueError(f"need images of 2 x 2 pixels or more, not {images.shape[1]} x {images.shape[2]}")
    highest, total = 0.0, 0.0
    for y in _luminances(images[:, :height, :width], levels):
        energy = np.square(np.abs(np.fft.fft2(y - y.mean((1, 2), keepdims=True)))).sum(0)  # [H, W]
        total += energy.sum()
        highest += energy[height // 2].sum() + energy[:, width // 2].sum() - energy[height // 2, width // 2]
    return float(highest / total) if total else 0.0


class Memorisation(NamedTuple):
    """How near samples lie to the training images; see `memorisation`."""

    median_ratio: float
    share_closer: float
    distance: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody misses


def memorisation(samples: ArrayLike, train: ArrayLike, test: ArrayLike) -> Memorisation:
    """Compares the samples' distances to their nearest training images with those of unseen real images.

    Args:
      samples, train, test: images [N, H, W, C], [M, H, W, C] and [K, H, W, C] on one scale.

    Returns:
      `median_ratio`, the samples' median distance over the test images': 0 for copies, about 1 for new images as real
      as the test set. `share_closer`, the probability that a sample is closer to the training set than a test image is
      (ties count half; Meehan et al.'s U statistic over its largest value): 1 for copies, about 1/2 for new images.
      `distance` [N], Euclidean over pixels and channels, in the images' units, and `index` [N], the nearest training
      image of each sample. Where half of the test images are copies of training images there is no distance to
      compare with, and both are NaN.

    Raises:
      ValueError: the shapes differ.
    """
    sets = [np.asarray(x) for x in (samples, train, test)]
    if len({x.shape[1:] for x in sets}) > 1 or not all(x.size for x in sets):
        raise ValueError(
            "samples, train and test must be images of one size, not " + ", ".join(str(x.shape) for x in sets)
        )
    rows, references, held_out = (x.reshape(len(x), -1) for x in sets)
    distance, index = nearest(rows, references)
    real = np.sort(nearest(held_out, references)[0])
    median = np.median(real)
    if median == 0:
        return Memorisation(np.nan, np.nan, distance, index)
    above = len(real) - (np.searchsorted(real, distance, "left") + np.searchsorted(real, distance, "right")) / 2
    return Memorisation(float(np.median(distance) / median), float(above.mean() / len(real)), distance, index)


def pixel_gaussian(images: ArrayLike, levels: int, num: int, seed: int = 0) -> np.ndarray:
    """Draws from the Gaussian with the mean and the covariance of all pixels of `images`: it knows no objects.

    With the images' deviations from their mean as the rows of D [N, HWC], mean + z D / √(N−1) for z ~ N(0, I_N) has the
    unbiased covariance of the images exactly, of any size, without a matrix of HWC × HWC.

    Returns:
      uint8 [num, H, W, C], clipped and rounded to 0 … levels-1.

    Raises:
      ValueError: the images are not as the module says, or there is only one.
    """
    images = _as_images(images, levels)
    if len(images) < 2:
        raise ValueError("a covariance needs two images at least")
    rows, rng = images.reshape(len(images), -1), np.random.default_rng(seed)
    mean = rows.mean(0)
    drawn = np.zeros((num, rows.shape[1]))
    for i in range(0, len(rows), BATCH):
        part = rows[i : i + BATCH] - mean
        drawn += rng.standard_normal((num, len(part))) @ part
    drawn = mean + drawn / np.sqrt(len(rows) - 1)
    return np.round(np.clip(drawn, 0, levels - 1)).astype(np.uint8).reshape(num, *images.shape[1:])
