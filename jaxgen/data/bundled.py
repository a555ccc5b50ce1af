"""The data sets inside the package (files/PROVENANCE.md): four of images, with their texts, and two of text.

Nothing is downloaded. The arrays are read once a process and shared, read-only.
"""

from __future__ import annotations

import functools
import json
import lzma
import zipfile
import zlib
from collections import Counter
from importlib.resources import files
from typing import Any

import numpy as np

from jaxgen.data.condition import PADDING, UNKNOWN, encode, words
from jaxgen.data.dataset import Dataset, in_memory, num_held_out, unknown

# Image set → batch key → name of the array in its file.
KEYS = {
    "faces": {"image": "image", "attribute": "attribute", "tokens": "tokens"},
    "fashion": {"image": "image", "label": "label"},
    "digits": {"image": "image", "label": "label"},
    "emoji": {"image": "google", "label": "category", "tokens": "tokens", "source": "google", "target": "twitter"},
    "emoji_drawings": {"image": "drawing", "attribute": "attribute", "tokens": "tokens"},  # both vendors' as one set
}
VENDORS = ("google", "twitter")
RECORDS = ("speeches", "reviews")


# What numpy, zipfile, zlib and lzma raise of a file that is cut short or changed.
DAMAGE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)


def damaged(path: Any, error: Exception) -> ValueError:
    """The error for a bundled file that cannot be read."""
    return ValueError(f"{path}, a part of jaxgen, is damaged: {error}; install jaxgen anew")


@functools.cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    """Every array of a bundled image set; labels and attributes as int32."""
    if name not in KEYS:
        raise unknown("bundled data set", name, KEYS)
    if name == "emoji_drawings":
        return _drawings()
    path = files("jaxgen.data").joinpath("files", f"{name}.npz")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            arrays = {key: saved[key] for key in saved.files}
    except DAMAGE as error:
        raise damaged(path, error) from error
    for key, array in arrays.items():
        if key.endswith(("_label", "_attribute", "_category")):
            arrays[key] = array.astype(np.int32)
        arrays[key].setflags(write=False)
    return arrays


def _drawings() -> dict[str, np.ndarray]:
    """Google's and Twitter's emoji in turn, with category and vendor as attributes."""
    emoji, arrays = _arrays("emoji"), {}
    for split in ("train", "test"):
        pair = np.stack([emoji[f"{split}_{vendor}"] for vendor in VENDORS], 1)
        category = np.repeat(emoji[f"{split}_category"], len(VENDORS))
        vendor = np.tile(np.arange(len(VENDORS), dtype=np.int32), len(pair))
        arrays[f"{split}_drawing"] = pair.reshape(-1, *pair.shape[2:])
        arrays[f"{split}_attribute"] = np.stack([category, vendor], 1)
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
    path = files("jaxgen.data").joinpath("files", f"{name}.jsonl.xz")
    try:
        return tuple(lzma.decompress(path.read_bytes()).decode().splitlines())
    except DAMAGE as error:
        raise damaged(path, error) from error


def records(name: str) -> list[dict[str, Any]]:
    """The records of "speeches" or "reviews", fields as in PROVENANCE.md; ValueError on an unknown name."""
    return [json.loads(line) for line in _lines(name)]


def captions(name: str, split: str) -> list[str]:
    """The captions of "faces" or "emoji"; those of emoji with the tags that are no words of the caption behind them.

    Those of "emoji_drawings" stand twice, once for each vendor's drawing.
    """
    if name == "emoji_drawings":
        return [line for line in captions("emoji", split) for _ in VENDORS]
    lines = texts(name, f"{split}_caption")
    if name != "emoji":
        return lines
    pairs = zip(lines, texts(name, f"{split}_tags"), strict=True)
    return [" ".join(dict.fromkeys(words(f"{line} {tags}"))) for line, tags in pairs]


@functools.cache
def _tokens(name: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The captions of each split as tokens, and their vocabulary: words that stand twice or more in train's."""
    train = [words(text) for text in captions(name.removesuffix("_drawings"), "train")]
    counts = Counter(word for text in train for word in text)
    vocabulary = (PADDING, UNKNOWN, *sorted(word for word, count in counts.items() if count > 1))
    length = max(map(len, train))
    return {split: encode(captions(name, split), vocabulary, length) for split in ("train", "test")}, vocabulary


def load(name: str, validation: float) -> Dataset:
    """A bundled image set; `validation` (see `num_held_out`) is taken from the end of its training split.

    Keys, all images uint8 [H, W, C] and all labels int32: faces `image`, `attribute` [10]; fashion and digits
    `image`, `label`; emoji `image`, `label` (its category), and the pair `source` (Google's drawing, the same as
    `image`), `target` (Twitter's); emoji_drawings `image` (both vendors' drawings), `attribute` (category, vendor).
    Faces and both sets of emoji have their captions as `tokens` [T], of the words in `names["tokens"]` (see
    `jaxgen.data.condition`). Pixels of digits lie in 0..16 (`levels` = 17).

    Raises:
      ValueError: an unknown name.
    """
    arrays = dict(_arrays(name))
    tokens, vocabulary = _tokens(name) if "tokens" in KEYS[name] else ({}, ())
    arrays |= {f"{split}_tokens": array for split, array in tokens.items()}
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
        colors = tuple(texts("faces", "color_names"))
        names = {"attribute": tuple(texts("faces", "attribute_names")), "hair_color": colors, "clothing_color": colors}
        sizes = {"attribute": (2,) * 7 + (len(colors), len(colors), 8)}
    elif name == "emoji_drawings":
        categories = tuple(texts("emoji", "category_names"))
        names = {"attribute": ("category", "vendor"), "category": categories, "vendor": VENDORS}
        sizes = {"attribute": (len(categories), len(VENDORS))}
    else:
        lists = {"fashion": "label_names", "emoji": "category_names"}
        labels = texts(name, lists[name]) if name in lists else [str(digit) for digit in range(10)]
        names, sizes = {"label": tuple(labels)}, {"label": (len(labels),)}
    if vocabulary:
        names["tokens"], sizes["tokens"] = vocabulary, (len(vocabulary),)
    return in_memory(splits, names=names, sizes=sizes, levels=17 if name == "digits" else 256)
