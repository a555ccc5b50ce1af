"""The report on a run: its method's metrics over a split, and its samples measured beside real images and a baseline.

Samples of images are compared with the training images, and so are, in the same way, the images of the split (the
floor: what a perfect model of the training data would reach) and samples of a Gaussian with the pixels' mean and
covariance (the baseline: what a model reaches that knows no objects). Every figure's name carries the number of
images, n: distances of features fall with n, and only those of one n compare.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxgen import distributed
from jaxgen.checkpoint import Restored
from jaxgen.config import to_json
from jaxgen.data import Dataset, Spec
from jaxgen.metrics import readers
from jaxgen.metrics.compare import bootstrap_difference
from jaxgen.metrics.distances import (
    distance_from,
    frechet_distance,
    kernel_distance,
    moments,
    nearest,
    precision_recall,
)
from jaxgen.metrics.images import memorisation, nyquist_energy, pixel_gaussian, sharpness
from jaxgen.metrics.labels import attribute_coverage, balanced_accuracy
from jaxgen.metrics.repeats import Estimate, Pairs, repeated
from jaxgen.program import keys_of, make_examples
from jaxgen.report.progress import Progress
from jaxgen.trained import Run, chunk_size, draw_samples
from jaxgen.watch import NonFiniteError

REFERENCE = 50_000  # training images that samples are compared with, at most
SHOWN = 32  # samples whose nearest training images are shown
LEAST = 10  # values of labels that are named as the least covered
BOOTSTRAP_FEATURES = 512  # features up to which a difference is resampled: 8 s of a core with 128, 2 minutes with 512


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
        values["kd"], values["kd_standard_error"] = kernel_distance(features, reference.features)
        rows = np.random.default_rng(0).choice(len(reference.features), min(n, len(reference.features)), replace=False)
        found = precision_recall(reference.features[rows], features)
        values |= {"precision": found.precision, "recall": found.recall}
        values |= {"density": found.density, "coverage": found.coverage}
    if reference.judge is not None and reference.labels is not None:
        labels = attribute_coverage(reference.labels, reference.judge.read(images)[1], reference.judge.sizes)
        values |= {"label_coverage": labels.share, "label_variation": labels.total_variation}
    levels = reference.spec.levels
    values["sharpness"] = sharpness(images, levels) / sharpness(reference.train, levels)
    values["nyquist_energy"] = nyquist_energy(images, levels) / nyquist_energy(reference.train, levels)
    near = memorisation(images, reference.train, reference.test)
    if math.isfinite(near.median_ratio):
        values |= {"train_distance": near.median_ratio, "closer_than_test": near.share_closer}
    return {f"{name}/n={n}": float(value) for name, value in values.items()}


def least_covered(real: np.ndarray, read: np.ndarray, judge: readers.Reader, spec: Spec) -> list[dict[str, Any]]:
    """The values of labels that samples lack most: those of the lowest share over the real one, the lowest first.

    Args:
      real: labels of training images as the judge reads them, [M, number of labels].
      read: the same of the samples, [N, number of labels].
      judge: the judge.
      spec: names the values.

    Returns:
      `LEAST` rows at most, of `label`, `value`, `real` and `samples`, the two shares.
    """
    rows: list[dict[str, Any]] = []
    for name, one in zip(judge.labels, attribute_coverage(real, read, judge.sizes).attributes, strict=True):
        names = spec.names.get(name) or (spec.names.get("label", ()) if name in readers.OWN_LABEL.values() else ())
        for value in np.flatnonzero(one.real > one.fake).tolist():
            shares = {"real": float(one.real[value]), "samples": float(one.fake[value])}
            rows.append({"label": name, "value": names[value] if names else value, **shares})
    return sorted(rows, key=lambda row: row["samples"] / row["real"])[:LEAST]


def asked(wanted: Mapping[str, np.ndarray], read: np.ndarray, judge: readers.Reader) -> dict[str, dict[str, Any]]:
    """How often the judge reads what N samples were asked to be.

    Args:
      wanted: label → [N].
      read: what the judge reads, [N, number of labels].
      judge: the judge.

    Returns:
      For each label of `wanted` that the judge reads: `balanced_accuracy/n=N`, `recall/n=N` of each value, and the
      `judge_accuracy`, its own on real test images.
    """
    table = {}
    for i, (name, size) in enumerate(zip(judge.labels, judge.sizes, strict=True)):
        if name in wanted:
            found = balanced_accuracy(wanted[name], read[:, i], size)
            table[name] = {
                f"balanced_accuracy/n={len(read)}": found.mean,
                f"recall/n={len(read)}": [None if np.isnan(r) else float(r) for r in found.recall],
                "judge_accuracy": judge.accuracy[name],
            }
    return table


def labels_by_name(cond: Mapping[str, np.ndarray], spec: Spec, name: str) -> dict[str, np.ndarray]:
    """What `cond` asks for by label and attribute, under the names that the judge of the set `name` uses: name → [N].

    Captions and what else a judge does not read are left out.
    """
    found: dict[str, np.ndarray] = {}
    if "attribute" in cond:
        found |= {attribute: cond["attribute"][:, i] for i, attribute in enumerate(spec.names["attribute"])}
    if "label" in cond:
        found[readers.OWN_LABEL.get(name, "label")] = cond["label"]
    return found


def timed_samples(
    run: Run, mesh: Mesh, state: Any, num: int, seed: int, cond: Mapping[str, np.ndarray] | None
) -> tuple[np.ndarray, float | None]:
    """`num` images and the seconds that one of them took; the first chunk, which compiles, is not timed.

    None for the seconds of samples that are one chunk.
    """
    stamps, chunk = [], chunk_size(mesh, -(-num // 2))
    with Progress(num, enabled=distributed.is_first(), unit="samples") as progress:

        def note(done: int) -> None:
            stamps.append(time.perf_counter())
            progress.update(done)

        images = draw_samples(run, mesh, state, num, seed, cond, note, chunk)["image"]
    return images, (stamps[-1] - stamps[0]) / (chunk * (len(stamps) - 1)) if len(stamps) > 1 else None


def measured(run: Run, data: Dataset, mesh: Mesh, found: Restored, split: str) -> dict[str, Estimate]:
    """The method's own metrics over a split, with their standard errors; arguments as of `evaluate`.

    Raises:
      NonFiniteError: a metric is NaN or infinite; names it, and the first such example.
      ValueError: no example counts for a metric: its denominators are all 0.
    """
    key = keys_of(run.config.train.seed).evaluate
    once = make_examples(run.method, data, mesh, run.config.train.batch_size, key)

    def finite(repeat: int) -> Pairs:
        values = once(found.state, split, repeat)
        for name, pair in values.items():
            if not pair[1].any():
                raise ValueError(f"no example of the {split} split counts for {name}")
            bad = np.flatnonzero(~np.isfinite(pair).all(0))
            if len(bad):
                raise NonFiniteError(
                    f"{name} is not finite at step {found.step}, for {len(bad)} of the {len(pair[0])} examples of the "
                    f"{split} split, number {bad[0]} the first; a mean without them would be no figure of the model: "
                    "look at that example, or take another --checkpoint"
                )
        return values

    return repeated(finite)


def evaluate(
    run: Run,
    data: Dataset,
    mesh: Mesh,
    found: Restored,
    split: str,
    num: int = 2000,
    seed: int = 0,
    features: str | None = None,
    against: Run | None = None,
) -> dict[str, Any]:
    """The report on a run, as JSON can hold it, but for what it shows.

    That is the samples under `image` and `nearest` to the first few of them; and what a method that takes `known`
    pictures makes of the split's first, as `known` [n, F, H, W, C] and, under its name in `rows`, [n, K].

    Args:
      run: the run, with the sampling options to use.
      data: its data.
      mesh: the mesh that is set.
      found: the run's state on it.
      split: the split that metrics are computed over, and the real images that samples are measured beside.
      num: samples; at most as many as the split has, so that the floor has the same n.
      seed: of the samples.
      features: see `make_reference`.
      against: the same run with other sampling options, whose samples from the same noise are compared with the first.

    Raises:
      NonFiniteError: see `measured`.
    """
    name = getattr(run.config.data, "name", "")
    report: dict[str, Any] = {"step": found.step, "split": split, "metrics": {}}
    num = min(num, data.spec.count(split))
    sampling = run.method.sample is not None and "image" in data.spec.shapes and num > 0
    reference = make_reference(data, split, name, features) if sampling else None
    if run.method.evaluate is not None:
        table = measured(run, data, mesh, found, split)
        report["metrics"] = {metric: estimate.to_json() for metric, estimate in table.items()}
    if reference is None:
        return report
    rows = np.random.default_rng(seed).choice(data.spec.count("train"), num, replace=False)
    keys = tuple(key for key in run.method.conditions if key in data.spec.shapes)
    cond = data.read("train", rows, keys) if keys else {}
    images, seconds = timed_samples(run, mesh, found.state, num, seed, cond)
    floor = reference.test[np.random.default_rng(0).choice(len(reference.test), num, replace=False)]
    report |= {
        "sampling": to_json(getattr(run.config.method, "sample", {})),
        "seed": seed,
        "num": num,
        "seconds_a_sample": seconds,
        "reference": {"split": "train", "num": len(reference.train)},
        "features": features or readers.FEATURES.get(name),
        "judge": readers.JUDGES.get(name),
        "samples": measure(images, reference),
        "floor": measure(floor, reference),
        "gaussian": measure(pixel_gaussian(reference.train, data.spec.levels, num, seed), reference),
    }
    if reference.judge is not None and reference.labels is not None:
        read = reference.judge.read(images)[1]
        report["least_covered"] = least_covered(reference.labels, read, reference.judge, data.spec)
        if met := asked(labels_by_name(cond, data.spec, name), read, reference.judge):
            report["asked"] = met
    if against is not None:
        others, other_seconds = timed_samples(against, mesh, found.state, num, seed, cond)
        report["against"] = {
            "sampling": to_json(against.config.method.sample),
            "samples": measure(others, reference),
            "seconds_a_sample": other_seconds,
            "times_slower": other_seconds / seconds if seconds and other_seconds else None,
        }
        if reference.embed is not None and reference.features is not None:
            size, metric = reference.features.shape[1], f"fd_difference/n={num}"
            if size <= BOOTSTRAP_FEATURES:
                distance = distance_from(moments(reference.features))
                difference = bootstrap_difference(distance, reference.embed(images), reference.embed(others))
                report["against"][metric] = difference._asdict()
            else:
                why = f"its interval takes hours with {size} features; it is computed for {BOOTSTRAP_FEATURES} or fewer"
                report["against"]["left_out"] = {metric: why}
    if "known" in run.method.conditions and "mask" not in run.method.conditions:
        known = reference.test[:SHOWN]
        made = draw_samples(run, mesh, found.state, len(known), seed, {"known": known})
        report["known"] = made["frames"]
        # What a method knows of each picture as a row of numbers: the spectrum of an encoder's Jacobian, say.
        report["rows"] = {key: x for key, x in made.items() if x.ndim == 2 and np.issubdtype(x.dtype, np.floating)}
    report["image"] = images
    shown = images[:SHOWN]
    index = nearest(shown.reshape(len(shown), -1), reference.train.reshape(len(reference.train), -1))[1]
    report["nearest"] = reference.train[index]
    return report
