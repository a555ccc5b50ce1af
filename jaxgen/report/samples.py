"""Samples as files: a picture, arrays or text, by the file's suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgen.report.atomic import replacing
from jaxgen.report.images import grid, write_gif, write_png

if TYPE_CHECKING:
    from jaxgen.data.dataset import Spec


def _suffixes(samples: Mapping[str, Any]) -> list[str]:
    """The suffixes that fit, the most telling first."""
    fitting = [".npz"]
    if "text" in samples:
        fitting.insert(0, ".txt")
    if "frames" in samples:
        fitting.insert(0, ".gif")
    if "image" in samples or ("x" in samples and samples["x"].shape[1:] == (2,)):
        fitting.insert(0, ".png")
    return fitting


PARTED = {"tokens": " ", "document": " ", "item": "\t"}  # what stands between names; those of items may have spaces


def named_key(samples: Mapping[str, Any], spec: Spec) -> str | None:
    """Which of the samples, numbers [N, T], the data has names for: `tokens`, `document` or `item`; None where none."""
    known = {*spec.names, *(["tokens"] if spec.tokenizer else [])}
    return next((key for key in PARTED if key in samples and key in known and len(samples[key].shape) == 2), None)


def with_text(samples: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The samples, and under `text` what their `tokens`, `document` or `item` [N, T] stand for, where `spec` has it.

    A number of -1 stands for nothing. Items come after the `user` [N] that they are recommended to; behind a text with
    filled blanks stand the `candidates` for each, with their `probability`, and whether its second part `follows`.
    """
    key, names = named_key(samples, spec), spec.names
    if key is None or "text" in samples:
        return dict(samples)
    if key == "tokens" and spec.tokenizer:
        from jaxgen.data.tokenizer import Tokenizer  # imports JAX, which whoever has a `Spec` has

        tokenizer = Tokenizer(spec.tokenizer)
        texts = [tokenizer.decode(row) for row in np.asarray(samples[key]).tolist()]
        if "candidates" in samples:
            columns = (np.asarray(samples[name]) for name in ("candidates", "probability", "follows"))
            listed = [_listed(tokenizer.piece, *row) for row in zip(*columns, strict=True)]
            texts = [text + likely for text, likely in zip(texts, listed, strict=True)]
        return {**samples, "text": texts}
    rows = [[names[key][i] for i in row if i >= 0] for row in np.asarray(samples[key]).tolist()]
    if key == "item":
        users = [names["user"][i] for i in np.asarray(samples["user"]).tolist()]
        rows = [[user, *row] for user, row in zip(users, rows, strict=True)]
    return {**samples, "text": [PARTED[key].join(row) for row in rows]}


def _listed(piece: Callable[[int], str], candidates: np.ndarray, probability: np.ndarray, follows: float) -> str:
    """A line for each blank with its candidates [P, top] and their probabilities, and one on the second text."""
    blanks = [i for i, row in enumerate(candidates) if row[0] >= 0]
    percent = lambda p: f"{100 * p:.1f} %"
    likely = lambda i: zip(candidates[i].tolist(), probability[i].tolist(), strict=True)
    lines = [", ".join(f"{piece(token)} {percent(p)}" for token, p in likely(i)) for i in blanks]
    lines = [f"  blank {number}: {line}" for number, line in enumerate(lines, 1)]
    return "\n".join(["", *lines, *([f"  follows: {percent(follows)}"] if follows >= 0 else [])])


def default_suffix(samples: Mapping[str, Any]) -> str:
    """`.png` for images and points in the plane, `.txt` for text, `.npz` for anything else."""
    return _suffixes(samples)[0]


def sample_grid(samples: Mapping[str, Any]) -> np.ndarray | None:
    """The grid of the samples' images, uint8 [H, W, 3]; None where there are none."""
    return grid(samples["image"]) if "image" in samples else None


def check_suffix(path: str | os.PathLike[str], samples: Mapping[str, Any]) -> None:
    """Raises a ValueError unless samples of these shapes can be written to `path`; before they are drawn, say."""
    if Path(path).suffix.lower() not in _suffixes(samples):
        has = ", ".join(f"{name} {list(getattr(x, 'shape', [len(x)]))}" for name, x in samples.items()) or "nothing"
        fit = ", ".join(_suffixes(samples))
        raise ValueError(f"cannot write {path}: the samples have {has}; suffixes that fit: {fit}")


def write_samples(path: str | os.PathLike[str], samples: Mapping[str, Any]) -> None:
    """Writes what a method sampled to `path`, atomically, in the format that its suffix names.

    - `.png`: a grid of `image`, uint8 [N, H, W, C]; a row of `frames`, uint8 [N, F, H, W, C], for each sample where
      there are frames; or a scatter plot of the points `x` [N, 2].
    - `.gif`: the frames in turn, each the grid of all samples.
    - `.npz`: every array under its own name, unchanged (bfloat16, which the format lacks, as float32).
    - `.txt`: the strings of `text`, one a line; lines of `---` part them where one of them has several lines.

    Raises:
      ValueError: the samples cannot be written with this suffix.
    """
    check_suffix(path, samples)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = {name: _storable(np.asarray(value)) for name, value in samples.items()}
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    elif suffix == ".txt":
        texts = [str(text) for text in samples["text"]]
        parting = "\n---\n" if any("\n" in text for text in texts) else "\n"
        with replacing(path) as file:
            file.write((parting.join(texts) + "\n").encode())
    elif suffix == ".gif":
        write_gif(path, [grid(frame) for frame in np.asarray(samples["frames"]).swapaxes(0, 1)])
    elif "frames" in samples:
        frames = np.asarray(samples["frames"])
        write_png(path, grid(frames.reshape(-1, *frames.shape[2:]), columns=frames.shape[1]))
    elif "image" in samples:
        write_png(path, grid(samples["image"]))
    else:
        _write_scatter(path, np.asarray(samples["x"]))


def _storable(array: np.ndarray) -> np.ndarray:
    # numpy knows JAX's small floats as opaque bytes, and would store them as such.
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _write_scatter(path: Path, x: np.ndarray) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.scatter(x[:, 0], x[:, 1], s=4, alpha=0.5, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    with replacing(path) as file:
        figure.savefig(file, format="png")
