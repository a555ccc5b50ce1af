"""The report on a run: its method's metrics over a split, and its samples measured beside real images and a baseline.

Samples of images are compared with the training images, and so are, in the same way, the images of the split (the
floor: what a perfect model of the training data would reach) and samples of a Gaussian with the pixels' mean and
covariance (the baseline: what a model reaches that knows no objects). Every figure's name carries the number of
images, n: distances of features fall with n, and only those of one n compare.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxgen.checkpoint import Restored
from jaxgen.config import to_json
from jaxgen.data import Dataset, Spec
from jaxgen.metrics import readers
from jaxgen.metrics.distances import frechet_distance, kernel_distance, moments, precision_recall
from jaxgen.metrics.images import fit_pixel_gaussian, memorisation, sample_pixel_gaussian, sharpness
from jaxgen.metrics.labels import attribute_coverage, balanced_accuracy
from jaxgen.program import keys_of, make_evaluate
from jaxgen.report.atomic import replacing
from jaxgen.report.images import grid, write_png
from jaxgen.report.progress import Progress
from jaxgen.trained import Run, draw_samples

STANDARD_ERROR = 0.01  # a metric with random draws in it is averaged over so many repeats that its error is below this
REPEATS = (3, 30)  # fewest and most
REFERENCE = 50_000  # training images that samples are compared with, at most
PIXELS = 4096  # pixels up to which the baseline's covariance is computed


def repeated(evaluate: Callable[[int], Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Averages `evaluate(repeat)` until the standard error of every metric is small enough.

    Returns:
      name → `value`, `standard_error` (of the noise in the metric, not of the choice of the split) and `repeats`; a
      metric without noise is computed twice, which shows it.
    """
    runs = [evaluate(0), evaluate(1)]
    while runs[0] != runs[1] and len(runs) < REPEATS[1]:
        errors = {name: float(np.std([run[name] for run in runs], ddof=1)) / math.sqrt(len(runs)) for name in runs[0]}
        if len(runs) >= REPEATS[0] and max(errors.values()) <= STANDARD_ERROR:
            break
        runs.append(evaluate(len(runs)))
    table = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        table[name] = {"value": float(np.mean(values)), "standard_error": error, "repeats": len(values)}
    return table


class Reference(NamedTuple):
    """Real images that others are compared with, and the networks that read them.

    Attributes:
      train: training images [M, H, W, C].
      test: images of the split [K, H, W, C].
      spec: their description.
      embed: images → features [N, D]; None measures no features.
      judge: reads labels; None measures none.
      features: of `train`, [M, D].
      labels: of `train`, as the judge reads them.
    """

    train: np.ndarray
    test: np.ndarray
    spec: Spec
    embed: Callable[[np.ndarray], np.ndarray] | None
    judge: readers.Reader | None
    features: np.ndarray | None
    labels: np.ndarray | None


def make_reference(data: Dataset, split: str, name: str, features: str | None = None) -> Reference:
    """The reference for samples of `data`.

    Args:
      data: the run's data.
      split: the real images that give the floor.
      name: of the data set, by which the networks that ship are found.
      features: `FILE.py:FUNCTION` in place of the network that ships.
    """

    def images(which: str, most: int) -> np.ndarray:
        count = data.spec.count(which)
        rows = np.arange(count)
        if count > most:
            rows = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
        return data.read(which, rows, ("image",))["image"]

    embed = judge = None
    if features is not None:
        embed = readers.feature_function(features)
    elif name in readers.FEATURES:
        network = readers.load(readers.FEATURES[name])
        embed = lambda x: network.read(x)[0]  # noqa: E731
    if name in readers.JUDGES:
        judge = readers.load(readers.JUDGES[name])
    train, test = images("train", REFERENCE), images(split, REFERENCE)
    return Reference(
        train, test, data.spec, embed, judge, embed(train) if embed else None, judge.read(train)[1] if judge else None
    )


def measure(images: np.ndarray, reference: Reference) -> dict[str, float]:
    """Every measure of `images` uint8 [N, H, W, C] against the reference, by name."""
    n, values = len(images), {}
    if reference.embed is not None and reference.features is not None:
        features = reference.embed(images)
        values["fd"] = frechet_distance(moments(features), moments(reference.features)).distance
        values["kd"] = kernel_distance(features, reference.features).value
        rows = np.random.default_rng(0).choice(len(reference.features), min(n, len(reference.features)), replace=False)
        found = precision_recall(reference.features[rows], features)
        values |= {"precision": found.precision, "recall": found.recall}
        values |= {"density": found.density, "coverage": found.coverage}
    if reference.judge is not None and reference.labels is not None:
        labels = attribute_coverage(reference.labels, reference.judge.read(images)[1], reference.judge.sizes)
        values |= {"label_coverage": labels.share, "label_variation": labels.total_variation}
    values["sharpness"] = sharpness(images, reference.spec.levels) / sharpness(reference.train, reference.spec.levels)
    near = memorisation(images, reference.train, reference.test)
    values |= {"train_distance": near.median_ratio, "closer_than_test": near.share_closer}
    return {f"{name}/n={n}": float(value) for name, value in values.items()}


def asked(labels: np.ndarray, images: np.ndarray, judge: readers.Reader) -> dict[str, dict[str, Any]]:
    """How often the judge reads what samples were asked to be: label → balanced accuracy, recall of each value."""
    read, table = judge.read(images)[1], {}
    for i, (name, size) in enumerate(zip(judge.labels, judge.sizes, strict=True)):
        found = balanced_accuracy(labels[:, i], read[:, i], size)
        table[name] = {
            "balanced_accuracy": found.mean,
            "recall": [None if np.isnan(r) else float(r) for r in found.recall],
        }
    return table


def evaluate(
    run: Run,
    data: Dataset,
    mesh: Mesh,
    found: Restored,
    split: str,
    num: int = 2000,
    seed: int = 0,
    features: str | None = None,
) -> dict[str, Any]:
    """The report on a run, as JSON can hold it, with the samples themselves under `image`.

    Args:
      run: the run, with the sampling options to use.
      data: its data.
      mesh: the mesh that is set.
      found: the run's state on it.
      split: the split that metrics are computed over, and the real images that samples are measured beside.
      num: samples; at most as many as the split has, so that the floor has the same n.
      seed: of the samples.
      features: see `make_reference`.
    """
    name = getattr(run.config.data, "name", "")
    report: dict[str, Any] = {"step": found.step, "split": split, "metrics": {}}
    if run.method.evaluate is not None:
        once = make_evaluate(
            run.method, data, mesh, run.config.train.batch_size, keys_of(run.config.train.seed).evaluate
        )
        report["metrics"] = repeated(lambda repeat: once(found.state, split, repeat))
    num = min(num, data.spec.count(split))
    if run.method.sample is None or "image" not in data.spec.shapes or num < 1:
        return report
    reference = make_reference(data, split, name, features)
    rows = np.random.default_rng(seed).choice(data.spec.count("train"), num, replace=False)
    keys = tuple(key for key in run.method.conditions if key in data.spec.shapes)
    cond = data.read("train", rows, keys) if keys else None
    with Progress(num, unit="samples") as progress:
        images = draw_samples(run, mesh, found.state, num, seed, cond, progress.update)["image"]
    floor = reference.test[np.random.default_rng(0).choice(len(reference.test), num, replace=False)]
    report |= {"sampling": to_json(getattr(run.config.method, "sample", {})), "samples": measure(images, reference)}
    report["floor"] = measure(floor, reference)
    if math.prod(data.spec.shape("image")) <= PIXELS:
        gaussian = fit_pixel_gaussian(reference.train, data.spec.levels)
        report["gaussian"] = measure(sample_pixel_gaussian(gaussian, data.spec.levels, num, seed), reference)
    if cond and reference.judge is not None:
        target = "attribute" if "attribute" in data.spec.shapes else "label"
        labels = data.read("train", rows, (target,))[target].reshape(num, -1)
        report["asked"] = asked(labels, images, reference.judge)
    report["image"] = images
    report["nearest"] = reference.train[memorisation(images, reference.train, reference.test).index]
    return report


def show(report: Mapping[str, Any]) -> None:
    """Prints the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report["metrics"]:
        table = Table("metric", "value", "standard error", title=f"step {report['step']}, {report['split']} split")
        for name, row in report["metrics"].items():
            table.add_row(name, f"{row['value']:.5g}", f"{row['standard_error']:.1g}")
        console.print(table)
    if "samples" in report:
        kinds = [kind for kind in ("samples", "floor", "gaussian") if kind in report]
        titles = {"samples": "samples", "floor": "real images (floor)", "gaussian": "pixel Gaussian (baseline)"}
        table = Table("measure", *(titles[kind] for kind in kinds), title="samples beside floor and baseline")
        for name in report["samples"]:
            table.add_row(name, *(f"{report[kind][name]:.4g}" for kind in kinds))
        console.print(table)
    if "asked" in report:
        table = Table("asked for", "balanced accuracy", "recall of each value", title="what the judge reads")
        for name, row in report["asked"].items():
            recall = " ".join("–" if r is None else f"{r:.3f}" for r in row["recall"])
            table.add_row(name, f"{row['balanced_accuracy']:.3f}", recall)
        console.print(table)


def write(report: Mapping[str, Any], workdir: Path) -> Path:
    """Writes the report to `evaluation/STEP.json` in the run, with pictures; a report that is there gets a sibling."""
    place, number = workdir / "evaluation" / f"{report['step']:06d}.json", 2
    while place.exists():
        place, number = place.with_name(f"{report['step']:06d}-{number}.json"), number + 1
    if "image" in report:
        write_png(place.with_name(f"{place.stem}-samples.png"), grid(report["image"][:64]))
        pairs = np.stack([report["image"][:32], report["nearest"][:32]], 1)  # each sample beside its neighbour
        write_png(place.with_name(f"{place.stem}-nearest.png"), grid(pairs.reshape(-1, *pairs.shape[2:]), columns=8))
    plain = {name: value for name, value in report.items() if name not in ("image", "nearest")}
    with replacing(place) as file:
        file.write((json.dumps(plain, indent=2) + "\n").encode())
    return place
