"""The data sets inside the package (files/PROVENANCE.md): four of images, with their texts, and two of text.

Nothing is downloaded. The arrays are read once a process and shared, read-only.
"""

from __future__ import annotations

import functools
import json
import lzma
from importlib.resources import files
from typing import Any

import numpy as np

from jaxgen.data.dataset import Dataset, in_memory, num_held_out, unknown

# Image set → batch key → name of the array in its file.
KEYS = {
    "faces": {"image": "image", "attribute": "attribute"},
    "fashion": {"image": "image", "label": "label"},
    "digits": {"image": "image", "label": "label"},
    "emoji": {"image": "google", "label": "category", "source": "google", "target": "twitter"},
}
RECORDS = ("speeches", "reviews")


@functools.cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    """Every array of a bundled image set; labels and attributes as int32."""
    if name not in KEYS:
        raise unknown("bundled data set", name, KEYS)
    with files("jaxgen.data").joinpath("files", f"{name}.npz").open("rb") as file, np.load(file) as saved:
        arrays = {key: saved[key] for key in saved.files}
    for key, array in arrays.items():
        if key.endswith(("_label", "_attribute", "_category")):
            arrays[key] = array.astype(np.int32)
        arrays[key].setflags(write=False)
    return arrays


def texts(name: str, key: str) -> list[str]:
    """A text list of an image set, e.g. `texts("faces", "train_caption")`; ValueError on an unknown name or key."""
    arrays = _arrays(name)
    lists = [key for key in arrays if key.endswith(("_caption", "_tags", "_names"))]
    if key not in lists:
        raise unknown(f"text list of {name}", key, lists)
    return arrays[key].tobytes().decode().split("\n")


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    if name not in RECORDS:
        raise unknown("bundled text set", name, RECORDS)
    packed = files("jaxgen.data").joinpath("files", f"{name}.jsonl.xz").read_bytes()
    return tuple(lzma.decompress(packed).decode().splitlines())


def records(name: str) -> list[dict[str, Any]]:
    """The records of "speeches" or "reviews", fields as in PROVENANCE.md; ValueError on an unknown name."""
    return [json.loads(line) for line in _lines(name)]


def load(name: str, validation: float) -> Dataset:
    """A bundled image set; `validation` (see `num_held_out`) is taken from the end of its training split.

    Keys, all images uint8 [H, W, C] and all labels int32: faces `image`, `attribute` [10]; fashion and digits `image`,
    `label`; emoji `image`, `label` (its category), and the pair `source` (Google's drawing, the same as `image`),
    `target` (Twitter's). Pixels of digits lie in 0..16 (`levels` = 17).

    Raises:
      ValueError: an unknown name.
    """
    arrays = _arrays(name)
    whole = {split: {k: arrays[f"{split}_{v}"] for k, v in KEYS[name].items()} for split in ("train", "test")}
    num_train = len(whole["train"]["image"])
    num_train -= num_held_out(num_train, validation)
    splits = {
        "train": {key: array[:num_train] for key, array in whole["train"].items()},
        "validation": {key: array[num_train:] for key, array in whole["train"].items()},
        "test": whole["test"],
    }
    names: dict[str, tuple[str, ...]]
    sizes: dict[str, tuple[int, ...]]
    if name == "faces":
        num_colors = len(texts("faces", "color_names"))
        names = {"attribute": tuple(texts("faces", "attribute_names"))}
        sizes = {"attribute": (2,) * 7 + (num_colors, num_colors, 8)}
    else:
        lists = {"fashion": "label_names", "emoji": "category_names"}
        labels = texts(name, lists[name]) if name in lists else [str(digit) for digit in range(10)]
        names, sizes = {"label": tuple(labels)}, {"label": (len(labels),)}
    return in_memory(splits, names=names, sizes=sizes, levels=17 if name == "digits" else 256)
