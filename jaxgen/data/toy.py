"""Toy densities in the plane, functions of a seed: quick to learn, and a picture shows what a model got wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxgen.data.dataset import Dataset, in_memory, unknown

# Name → what the label of a point says, one name a component.
COMPONENTS = {
    "ring": tuple(f"gaussian {k}" for k in range(8)),
    "lines": ("lower", "upper"),
    "moons": ("upper", "lower"),
}


def points(name: str, num: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `num` points of a toy density.

    - ring: eight Gaussians, means evenly on the unit circle, the first at (1, 0) (Metz et al. 2016, 1611.02163).
    - lines: two parallel segments, x in [-1, 1] at y = ∓1/2, blurred across only.
    - moons: two interleaving half circles of radius 1, the upper about (0, 0), the lower about (1, 1/2).

    Args:
      name: "ring", "lines" or "moons".
      num: the number of points.
      noise: the standard deviation of the Gaussian blur.
      seed: a non-negative integer.

    Returns:
      The points, float32 [num, 2], and their components, int32 [num].

    Raises:
      ValueError: an unknown name.
    """
    if name not in COMPONENTS:
        raise unknown("toy data set", name, COMPONENTS)
    rng = np.random.default_rng(seed)
    label = rng.integers(len(COMPONENTS[name]), size=num)
    u = rng.uniform(size=num)
    blur = noise * rng.normal(size=(num, 2))
    if name == "ring":
        angle = 2 * np.pi * label / 8
        clean = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    elif name == "lines":
        clean = np.stack([2 * u - 1, label - 0.5], axis=-1)
        blur[:, 0] = 0
    else:
        x, y = np.cos(np.pi * u), np.sin(np.pi * u)
        clean = np.where(label[:, None] == 0, np.stack([x, y], -1), np.stack([1 - x, 0.5 - y], -1))
    return (clean + blur).astype(np.float32), label.astype(np.int32)


@dataclass(frozen=True)
class Toy:
    """A toy density: keys `x` float32 [2] and `label` int32, the component that a point comes from."""

    name: str = "ring"
    """ring (eight Gaussians on the unit circle), lines (two parallel segments) or moons (two half circles)."""
    size: int = 50_000
    """Number of training points; validation and test have a tenth as many each, and at least one."""
    noise: float = 0.02
    """Standard deviation of the Gaussian blur."""
    scale: float = 1.0
    """Factor of all coordinates, those of the blur too."""
    seed: int = 0
    """Seed of the points, apart from the run's seed that orders them."""

    def load(self) -> Dataset:
        """The points in memory; ValueError on an unknown name, a size below 1, negative noise or no scale."""
        if self.size < 1 or not self.noise >= 0 or not self.scale > 0:
            raise ValueError(
                f"a toy set needs size >= 1, noise >= 0 and scale > 0, not {self.size}, {self.noise} and {self.scale}"
            )
        num_held = max(1, self.size // 10)
        x, label = points(self.name, self.size + 2 * num_held, self.noise, self.seed)
        ends = (self.size, self.size + num_held)
        xs, labels = np.split(np.float32(self.scale) * x, ends), np.split(label, ends)
        splits = {split: {"x": xs[i], "label": labels[i]} for i, split in enumerate(("train", "validation", "test"))}
        names = COMPONENTS[self.name]
        return in_memory(splits, names={"label": names}, sizes={"label": (len(names),)})
