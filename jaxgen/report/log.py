"""The metrics of a run: `metrics.jsonl`, one object a line, and the same numbers as TensorBoard events.

A line is `{"step": 200, "loss": 0.123}`; `"attempt": n` follows the step after the n-th rollback. JSON has no
infinities, so "nan", "inf" and "-inf" stand as strings, and `read_metrics` turns them back into floats. Lines of the
training step end with `TIMING`, which is the machine's and not the run's: it is no metric, and differs from run to run.
"""

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.report.atomic import replacing

NON_FINITE = ("nan", "inf", "-inf")
# Means over the steps since the line before, pauses for evaluation, samples and saving left out: seconds a step,
# seconds a step that the host waited for its batch, and, where the devices' peak is known, model FLOPs utilisation.
TIMING = ("step_time", "data_wait", "mfu")


def read_metrics(path: str | os.PathLike[str], timing: bool = False) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` as dicts, without a last one that a killed run left torn.

    What depends on the run alone; `timing` adds the fields `TIMING`.

    Raises:
      ValueError: a line before the last one is no JSON object.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            kept = {name: value for name, value in row.items() if timing or name not in TIMING}
            rows.append({name: float(value) if value in NON_FINITE else value for name, value in kept.items()})
        except (ValueError, AttributeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is no JSON object: {line[:80]!r}") from error
    return rows


def trim(path: str | os.PathLike[str], step: float, attempt: int = 0, extra: Iterable[str] = ()) -> None:
    """Makes the log of a run ready to go on from `step`; atomically, and only where something changes.

    Drops a torn last line, and the lines past `step` of this attempt (or of later ones), which are computed again; also
    those of `step` itself that hold a metric named in `extra`, logged there only because it was to be the last step.
    What an earlier attempt wrote stays: it is the record of why the run rolled back.
    """
    path = Path(path)
    if not path.exists():
        return
    extra = set(extra)

    def stays(row: Mapping[str, Any]) -> bool:
        known = row["step"] < step or (row["step"] == step and extra.isdisjoint(row))
        return known or row.get("attempt", 0) < attempt

    rows = list(filter(stays, read_metrics(path, timing=True)))
    new = b"".join(map(_line, rows))
    if new != path.read_bytes():
        with replacing(path) as file:
            file.write(new)


def _line(row: Mapping[str, Any]) -> bytes:
    finite = {name: value if math.isfinite(value) else str(value) for name, value in row.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


class MetricsLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event file in `workdir`.

    Each line is written whole, at once, so that a kill can tear only the last one. Without tensorboardX installed the
    events are left out, with one warning. On several processes only the first keeps a log. A context manager: leaving
    it closes the log.

    Args:
      workdir: the run's folder.
      step: the step that a resumed run stands at: what was logged past it is dropped (see `trim`), and hidden in
        TensorBoard. None keeps every line that is whole.
      attempt: the attempt that the run goes on with.
      extra: the metrics that `step` has only because it was to be the last, see `trim`.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], step: int | None = None, attempt: int = 0, extra: Iterable[str] = ()
    ):
        self.path = Path(workdir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        trim(self.path, math.inf if step is None else step, attempt, extra)
        self._file = open(self.path, "ab", buffering=0)
        self._purge_step = None if step is None else step + 1
        self._writer: Any = None
        self._has_tensorboard = True

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any], attempt: int = 0) -> None:
        """Logs scalars (floats, or arrays with one element) by name."""
        values = {name: float(value) for name, value in metrics.items()}
        self._file.write(_line({"step": int(step), **({"attempt": int(attempt)} if attempt else {}), **values}))
        if writer := self._tensorboard():
            for name, value in values.items():
                writer.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows a picture, uint8 [H, W, 3], in TensorBoard."""
        if writer := self._tensorboard():
            writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is buffered."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        if self._writer is None and self._has_tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                self._has_tensorboard = False
                text = "tensorboardX is not installed: metrics go to metrics.jsonl alone (pip install tensorboardX)"
                warnings.warn(text, stacklevel=3)
            else:
                self._writer = SummaryWriter(str(self.path.parent), purge_step=self._purge_step, flush_secs=20)
        return self._writer
