"""What a run leaves to look at: metrics.jsonl, TensorBoard events, samples/, curves.png."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxgen import runs
from jaxgen.report.curves import write_curves
from jaxgen.report.log import MetricsLog
from jaxgen.report.samples import default_suffix, sample_grid, write_samples


class Record:
    """The record of one run. Every process knows what was logged, only one writes it.

    Args:
      workdir: the run's directory.
      writing: whether this process is the one that writes.
    """

    def __init__(self, workdir: Path, writing: bool):
        self._workdir, self._writing = workdir, writing
        self._log: MetricsLog | None = None
        self._step = -1  # of the last line
        self._values: dict[str, float] = {}  # all that was logged for it
        self._extra: list[str] = []  # the names of these that were not due

    def open(self, step: int, attempt: int, extra: Iterable[str]) -> None:
        """Begins to write; see `jaxgen.report.log.MetricsLog`."""
        if self._writing:
            self._log = MetricsLog(self._workdir, step, attempt, extra)

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        attempt: int,
        due: bool = True,
        timing: Mapping[str, float] | None = None,
    ) -> None:
        """Logs a line of metrics; `due` is false where the step has it only because it is the run's last.

        `timing` (see `jaxgen.report.log.TIMING`) stands in the line and is otherwise forgotten: it is no metric.
        """
        if step != self._step:
            self._step, self._values, self._extra = step, {}, []
        self._values |= values
        if not due:
            self._extra += values
        if self._log:
            self._log.write(step, {**values, **(timing or {})}, attempt)

    def logged(self, step: int) -> tuple[dict[str, float], list[str]]:
        """All metrics that were logged for `step`, the newest, and the names of those that were not due."""
        return (self._values, self._extra) if step == self._step else ({}, [])

    def write_samples(self, step: int, samples: Mapping[str, Any]) -> None:
        """Writes samples/STEP, in the format that fits, and shows images in TensorBoard."""
        if self._log:
            write_samples(self._workdir / runs.SAMPLES / f"{step:06d}{default_suffix(samples)}", samples)
            if (picture := sample_grid(samples)) is not None:
                self._log.write_image(step, "samples", picture)

    def has_samples(self, step: int) -> bool:
        """Whether samples of `step` are there."""
        return any((self._workdir / runs.SAMPLES).glob(f"{step:06d}.*"))

    def write_curves(self) -> None:
        """Draws curves.png of what metrics.jsonl holds, if anything."""
        if self._writing:
            write_curves(self._workdir / runs.METRICS, self._workdir / runs.CURVES)

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._log:
            self._log.close()
