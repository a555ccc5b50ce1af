"""The networks that read images for the measures, as they ship: features of each bundled set, and a judge of `faces`.

Each is a run of `configs/classifier_*.py`, written by `save` (`make readers` trains and writes all of them). A file
holds the averaged weights, and its header what rebuilds the network and how well it reads.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxgen.checksum import by_path
from jaxgen.config import closest, from_json, to_json
from jaxgen.metrics import classifier
from jaxgen.numerics import to_unit
from jaxgen.report.atomic import replacing
from jaxgen.sharding import constrain

FEATURES = {
    "faces": "classifier_faces",
    "fashion": "classifier_fashion",
    "emoji": "classifier_emoji",
    "emoji_drawings": "classifier_emoji",
}
"""Bundled set → the network whose features measure samples of it."""
JUDGES = FEATURES | {"faces": "classifier_faces_judge"}
"""Bundled set → the network that reads labels of samples; that of `faces` has no part in the distances."""
OWN_LABEL = {"emoji": "category"}
"""Bundled set → what its judge calls the `label` of the set, where that is not `label`."""
CHUNK = 500  # images a call of the network


class Reader(NamedTuple):
    """A network that reads images.

    Attributes:
      name: under which it ships.
      labels: what its heads read, in order; `label` is the class.
      sizes: number of values of each label.
      accuracy: label → share of real test images that it reads right.
      read: images uint8 [N, H, W, C] → features float32 [N, D] and labels int32 [N, number of labels].
    """

    name: str
    labels: tuple[str, ...]
    sizes: tuple[int, ...]
    accuracy: Mapping[str, float]
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _path(name: str) -> Path:
    return Path(str(files("jaxgen.metrics").joinpath("weights", f"{name}.safetensors")))


def save(
    name: str,
    config: classifier.Config,
    labels: tuple[str, ...],
    sizes: tuple[int, ...],
    levels: int,
    params: Any,
    accuracy: Mapping[str, float],
    path: Path | None = None,
) -> Path:
    """Writes a reader's file, by default where those that ship lie."""
    from safetensors.numpy import save as to_bytes

    header = {
        "config": to_json(config),
        "labels": labels,
        "sizes": sizes,
        "levels": levels,
        "accuracy": dict(accuracy),
    }
    # Half precision halves the files, and changes hardly a reading.
    flat = {path: np.asarray(x, np.float16) for path, x in by_path(params).items()}
    path = path or _path(name)
    with replacing(path) as file:
        file.write(to_bytes(flat, {"reader": json.dumps(header)}))
    return path


def load(name: str, path: Path | None = None) -> Reader:
    """A reader by the name under which it ships, or from the file at `path`.

    Raises:
      ValueError: no reader of that name.
    """
    from safetensors import safe_open

    names = sorted(set(JUDGES.values()) | set(FEATURES.values()))
    if path is None and name not in names:
        raise ValueError(f"no reader {name!r}{closest(name, names)}")
    params: dict[str, Any] = {}
    with safe_open(str(path or _path(name)), "numpy") as file:
        header = json.loads(file.metadata()["reader"])
        for key in file.keys():  # noqa: SIM118 — no mapping
            *parents, leaf = key.split("/")
            place = params
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = file.get_tensor(key).astype(np.float32)
    config, sizes = from_json(classifier.Config, header["config"]), tuple(header["sizes"])
    net = classifier.Classifier(config, sizes)

    @jax.jit
    def forward(params, image):
        readings = net.apply(params, to_unit(image, header["levels"]))
        labels = jnp.stack([logits.argmax(1) for logits in readings.logits], 1)
        return constrain(readings.features, P()), constrain(labels, P())  # whole, so that every process has them

    def read(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [np.arange(i, i + CHUNK) % len(images) for i in range(0, len(images), CHUNK)]
        parts = [jax.device_get(forward(params, images[row])) for row in rows]
        features, labels = (np.concatenate(each)[: len(images)] for each in zip(*parts, strict=True))
        return features, labels.astype(np.int32)

    return Reader(name, tuple(header["labels"]), sizes, header["accuracy"], read)


def feature_function(text: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function that `FILE.py:FUNCTION` names: images uint8 [N, H, W, C] → features [N, D].

    Raises:
      FileNotFoundError: no such file.
      ValueError: not of that form, or no such function in it.
    """
    place, _, name = text.rpartition(":")
    if not place.endswith(".py") or not name:
        raise ValueError(f"--features takes FILE.py:FUNCTION, such as inception.py:features, not {text!r}")
    if not Path(place).is_file():
        raise FileNotFoundError(f"no file {place} for --features")
    # Dataclasses look their module up by its name while it runs; this one hides no package, since none has a colon.
    spec = importlib.util.spec_from_file_location(f"features:{Path(place).resolve()}", place)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ValueError(f"{place} has no function {name!r}{closest(name, names)}")
    return function
