"""The progress of a run: a bar on a terminal, a plain line every few seconds anywhere else."""

import contextlib
import datetime
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Progress:
    """`with Progress(total, start=step) as progress:` shows steps, loss, speed, data wait and what is left.

    Speed and data wait are means over a window of recent steps, which opens when the first step has ended: compiling it
    counts in neither, nor does what happens inside `pause`. A step costs one look at the clock; the display changes
    five times a second at most.

    Args:
      total: the step at which the run ends.
      start: the steps that the run has already.
      enabled: False shows nothing at all (every process but the first).
      interval: seconds between two plain lines, where the output is no terminal.
      console: where to write, a `rich.console.Console`; standard output by default.
      clock: the time in seconds.
      unit: what is counted, in the plural.

    Attributes:
      least_step_time: seconds a step if the devices reached their peak; None where that is unknown.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        enabled: bool = True,
        interval: float = 10.0,
        console: Any = None,
        clock: Callable[[], float] = time.perf_counter,
        unit: str = "steps",
    ):
        from rich.console import Console

        self.least_step_time: float | None = None
        self._unit = unit
        self._total, self._step, self._enabled, self._clock = total, start, enabled, clock
        self._console = console or Console()
        self._bar: Any = None
        self._period = 0.2 if self._console.is_interactive else interval
        self._metrics: Mapping[str, float] = {}
        # (time, step, seconds waited for data since the start), half a second apart or more: at least half a minute.
        self._window: deque[tuple[float, int, float]] = deque(maxlen=64)
        self._waited = self._paused = 0.0
        self._next_point = self._next_show = -float("inf")
        self._stale = False
        self.begin(start)

    def __enter__(self) -> "Progress":
        if self._enabled and self._console.is_interactive:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
            self._bar = Bar(*columns, console=self._console, auto_refresh=False)
            self._task = self._bar.add_task(self._line(), total=self._total, completed=self._step)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._enabled and self._stale:
            self._show()
        if self._bar is not None:
            self._bar.stop()

    def begin(self, step: int) -> None:
        """Says that the run stands at `step` and goes on from now: the first interval of `timing` starts here."""
        self._mark, self._mark_wait = (self._clock() - self._paused, step), 0.0
        self._timing: dict[str, float] = {}

    def timing(self, step: int) -> dict[str, float]:
        """The timing of a log line, see `jaxgen.report.log.TIMING`, when the devices have done `step` steps.

        Means over the steps since the line before it, or since `begin`; where there are none, those of that line.
        """
        (began, first), now = self._mark, self._clock() - self._paused
        num = step - first
        if self._enabled and num > 0 and now > began:
            self._timing = {"step_time": (now - began) / num, "data_wait": self._mark_wait / num}
            if self.least_step_time:
                self._timing["mfu"] = self.least_step_time / self._timing["step_time"]
            self._mark, self._mark_wait = (now, step), 0.0
        return self._timing

    def update(self, step: int, data_wait_s: float = 0.0) -> None:
        """Says that `step` steps are done, the last of which waited `data_wait_s` seconds for its batch."""
        if not self._enabled:
            return
        now = self._clock() - self._paused
        self._step, self._stale = step, True
        self._mark_wait += data_wait_s
        if self._window:
            self._waited += data_wait_s
        if now >= self._next_point:
            self._window.append((now, step, self._waited))
            self._next_point = now + 0.5
        if now >= self._next_show:
            self._show()
            self._next_show = now + self._period

    def show(self, metrics: Mapping[str, float]) -> None:
        """Hands over the latest metrics; `loss`, or the first of them, is displayed from now on."""
        self._metrics, self._stale = metrics, True

    def print(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one."""
        if self._enabled:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps what happens inside (sampling, evaluating, saving) out of the speed and the time left."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    def _show(self) -> None:
        self._stale = False
        if self._bar is None:
            self.print(self._line())
        else:
            self._bar.update(self._task, completed=self._step, description=self._line())
            self._bar.refresh()

    def _line(self) -> str:
        parts = [f"{self._unit.removesuffix('s')} {self._step}/{self._total}"]
        name = "loss" if "loss" in self._metrics else next(iter(self._metrics), None)
        if name is not None:
            parts.append(f"{name} {float(self._metrics[name]):.4g}")
        if len(self._window) > 1:
            (began, first_step, first_wait), (ended, last_step, last_wait) = self._window[0], self._window[-1]
            elapsed, steps = ended - began, last_step - first_step
            if elapsed > 0 and steps > 0:
                left = datetime.timedelta(seconds=round(max(0, self._total - self._step) * elapsed / steps))
                wait = (last_wait - first_wait) / elapsed
                parts += [f"{steps / elapsed:.3g} {self._unit}/s"]
                if self._unit == "steps":
                    parts[-1] += f" ({elapsed / steps:.3g} s each)"
                    parts += [f"data wait {100 * wait:.0f} %"]
                if self.least_step_time:
                    parts += [f"mfu {100 * self.least_step_time * steps / elapsed:.0f} %"]
                parts += [f"left {left}"]
        return "  ".join(parts)
