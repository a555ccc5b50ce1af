"""Tensors in safetensors files, one or several with an index, each read when it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.report.atomic import replacing

RENAMED = {"gamma": "weight", "beta": "bias"}  # of norms, in checkpoints that were TensorFlow's
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Tensors:
    """The tensors of a folder or of one file.

    Attributes:
      names: what they are called, norms as today.
    """

    def __init__(self, path: Path):
        """Opens the files; FileNotFoundError where there are none, ValueError where one is damaged."""
        from safetensors import SafetensorError, safe_open

        if path.is_file():
            files = [path]
        elif (path / INDEX).is_file():
            try:
                table = json.loads((path / INDEX).read_text("utf-8"))["weight_map"]
                files = [path / name for name in sorted(set(table.values()))]
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(f"{path / INDEX} is damaged: {error!r}") from None
        else:
            files = [path / WHOLE]
        if lacking := [file for file in files if not file.is_file()]:
            torch = " (pytorch_model.bin needs PyTorch: save it as safetensors first)" * any(path.glob("*.bin"))
            raise FileNotFoundError(f"no {lacking[0]}{torch}")
        self._open: dict[str, Any] = {}
        self._stored: dict[str, str] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="np")
            except SafetensorError as error:
                raise ValueError(f"{file} is damaged: {error}") from None
            for stored in opened.keys():  # noqa: SIM118, it is no dict
                name = re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda m: RENAMED[m[0]], stored)
                self._open[name], self._stored[name] = opened, stored
        self.names = tuple(self._open)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._open[name].get_slice(self._stored[name]).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor, in its own dtype."""
        return self._open[name].get_tensor(self._stored[name])


def write_tensors(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], most: int) -> None:
    """Writes tensors to `model.safetensors`, or to parts of at most `most` bytes each, where one does not hold more.

    All that is written whole: a part is in memory while it is filled.
    """
    from safetensors.numpy import save

    names: list[list[str]] = []
    total = 0
    for part in _parts(tensors, most):
        with replacing(folder / f"part-{len(names)}") as file:
            file.write(save(part, metadata={"format": "pt"}))
        names.append(list(part))
        total += sum(array.nbytes for array in part.values())
    if len(names) == 1:
        (folder / "part-0").replace(folder / WHOLE)
        (folder / INDEX).unlink(missing_ok=True)
        return
    table: dict[str, str] = {}
    for i, own in enumerate(names):
        name = f"model-{i + 1:05d}-of-{len(names):05d}.safetensors"
        (folder / f"part-{i}").replace(folder / name)
        table |= dict.fromkeys(own, name)
    with replacing(folder / INDEX) as file:
        file.write(json.dumps({"metadata": {"total_size": total}, "weight_map": table}, indent=2).encode())
    (folder / WHOLE).unlink(missing_ok=True)


def _parts(tensors: Iterable[tuple[str, np.ndarray]], most: int) -> Iterator[dict[str, np.ndarray]]:
    part: dict[str, np.ndarray] = {}
    for name, array in tensors:
        if part and sum(x.nbytes for x in part.values()) + array.nbytes > most:
            yield part
            part = {}
        part[name] = np.ascontiguousarray(array)
    yield part
