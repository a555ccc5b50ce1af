"""The metrics of a run: `metrics.jsonl`, one object a line, and the same numbers as TensorBoard events.

A line is `{"step": 200, "loss": 0.123}`; `"attempt": n` follows the step after the n-th rollback. JSON has no
infinities, so "nan", "inf" and "-inf" stand as strings, and `read_metrics` turns them back into floats. Lines of the
training step end with `TIMING`, which is the machine's and not the run's: it is no metric, and differs from run to run.
"""

import json
import math
import os
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.report.atomic import naming, replacing

NON_FINITE = ("nan", "inf", "-inf")
FLUSH_SECONDS = 20  # between writes of the buffered TensorBoard events to the disk
# Means over the steps since the line before, pauses for evaluation, samples and saving left out: seconds a step,
# seconds a step that the host waited for its batch, and, where the devices' peak is known, model FLOPs utilisation.
TIMING = ("step_time", "data_wait", "mfu")


def read_metrics(path: str | os.PathLike[str], timing: bool = False) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` as dicts, without a last one that a killed run left torn.

    What depends on the run alone; `timing` adds the fields `TIMING`.

    Raises:
      ValueError: a line before the last one is no JSON object of numbers, a step among them.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row = {name: float(value) if value in NON_FINITE else value for name, value in row.items()}
            if "step" not in row or not all(isinstance(value, (int, float)) for value in row.values()):
                raise ValueError("not a step and numbers")
            rows.append({name: value for name, value in row.items() if timing or name not in TIMING})
        except (ValueError, AttributeError, RecursionError) as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}, line {number} is no JSON object with a step and numbers: {line[:80]!r}; "
                    "put a copy back, or delete the line"
                ) from error
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
        self._events: Any = None
        self._has_tensorboard = True
        self._flushed = time.monotonic()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any], attempt: int = 0) -> None:
        """Logs scalars (floats, or arrays with one element) by name."""
        values = {name: float(value) for name, value in metrics.items()}
        with naming(self.path):
            line = _line({"step": int(step), **({"attempt": int(attempt)} if attempt else {}), **values})
            start = self._file.tell()
            try:
                while line:  # a disk that gets full takes a part first
                    line = line[self._file.write(line) :]
            except OSError:
                self._file.truncate(start)  # no later line may follow a torn one
                raise
        if self._tensorboard():
            from tensorboardX.summary import scalar

            for name, value in values.items():
                self._write_event(step, summary=scalar(name, value))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows a picture, uint8 [H, W, 3], in TensorBoard."""
        if self._tensorboard():
            from tensorboardX.summary import image as picture

            self._write_event(step, summary=picture(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Writes out what is buffered."""
        self._file.close()
        if self._events is not None:
            with naming(self.path.parent / "events.out.tfevents"):
                self._events.close()

    def _write_event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with naming(self.path.parent / "events.out.tfevents"):
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()

    def _tensorboard(self) -> bool:
        """Whether there is an event file to write to; begins it where need be."""
        if self._events is None and self._has_tensorboard:
            try:
                # Not SummaryWriter, whose thread dies of a full disk and leaves its callers waiting for ever.
                from tensorboardX import event_file_writer
            except ImportError:
                self._has_tensorboard = False
                text = "tensorboardX is not installed: metrics go to metrics.jsonl alone (pip install tensorboardX)"
                warnings.warn(text, stacklevel=3)
            else:
                from tensorboardX.proto.event_pb2 import SessionLog

                with naming(self.path.parent / "events.out.tfevents"):
                    self._events = event_file_writer.EventsWriter(str(self.path.parent / "events"))
                if self._purge_step is not None:
                    self._write_event(self._purge_step, session_log=SessionLog(status=SessionLog.START))
        return self._has_tensorboard
