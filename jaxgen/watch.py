"""What watches a run without a human: signals, non-finite numbers, stop and rollback rules."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from jaxgen import distributed
from jaxgen.config import TrainConfig


class NonFiniteError(FloatingPointError):
    """A metric or the state became NaN or infinite; nothing of it was saved."""


class Verdict(NamedTuple):
    """What the watch asks for, `stop` or `rollback`, at which step and why; `nonfinite`: nothing is worth saving."""

    action: str
    step: int
    why: str
    nonfinite: bool = False


class Signals:
    """The signals that were caught, and whether to stop.

    Args:
      shared: of several processes, how they agree.
    """

    def __init__(self, shared: distributed.Stop | None = None):
        self._shared, self._first = shared, 0.0

    def __call__(self, step: int) -> bool:
        """Whether to stop after `step`, to be asked after every step; several processes stop after the same one."""
        return self._shared(step) if self._shared else bool(self._first)

    def waited(self) -> float:
        """Seconds since the first signal to this process; 0 where there was none."""
        return time.monotonic() - self._first if self._first else 0.0

    def note(self) -> None:
        """A signal came."""
        self._first = self._first or time.monotonic()
        if self._shared:
            self._shared.ask()


@contextlib.contextmanager
def interrupts(step: int = 0) -> Iterator[Signals]:
    """Catches SIGINT and SIGTERM instead of dying of them; a second Ctrl-C ends the program at once.

    Args:
      step: where the run stands.
    """
    several = distributed.num_processes() > 1
    signals = Signals(distributed.Stop(step) if several else None)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number, frame):
        if signals.waited() and number == signal.SIGINT:
            raise KeyboardInterrupt
        signals.note()

    # Of several processes, JAX's preemption service catches SIGTERM.
    old = {s: signal.signal(s, note) for s in ((signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM))}
    try:
        yield signals
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


class Watch:
    """The stop and rollback rules of a run over its logged metrics."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._in_a_row = [0] * len(config.rules)  # log lines in which each rule has found its metric out of bounds

    def counts(self) -> list[list[Any]]:
        """Each rule, and how many log lines in a row it has found its metric out of bounds; for JSON."""
        return [[asdict(rule), num] for rule, num in zip(self._config.rules, self._in_a_row, strict=True)]

    def restore(self, counts: Sequence[Sequence[Any]]) -> None:
        """Goes on from saved `counts`; a rule that is not among them, since rules may change, starts at 0."""
        self._in_a_row = [
            next((num for saved, num in counts if saved == asdict(rule)), 0) for rule in self._config.rules
        ]

    def rules(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        """The verdict of the first rule that fires on the metrics of the log line at `step`."""
        for i, rule in enumerate(self._config.rules):
            if (value := metrics.get(rule.metric)) is None:
                continue
            above = rule.above is not None and value > rule.above
            below = rule.below is not None and value < rule.below
            self._in_a_row[i] = self._in_a_row[i] + 1 if above or below else 0
            if self._in_a_row[i] >= rule.patience:
                self._in_a_row[i] = 0
                bound = f"above {rule.above:g}" if above else f"below {rule.below:g}"
                lines = f" for {rule.patience} log lines in a row" if rule.patience > 1 else ""
                return Verdict(rule.action, step, f"{rule.metric} = {value:g} is {bound}{lines}")
        return None

    def nonfinite(self, bad: Mapping[str, int]) -> Verdict | None:
        """The verdict on the first step (-1: none) at which each metric was not finite."""
        found = {name: int(step) for name, step in bad.items() if step >= 0}
        if not found:
            return None
        first = min(found.values())
        names = ", ".join(sorted(name for name, step in found.items() if step == first))
        return Verdict(
            self._config.on_nonfinite, first, f"{names} is not finite, first at step {first}", nonfinite=True
        )

    def state(self, step: int) -> Verdict:
        """The verdict on a state that holds a NaN or infinity after `step` though every metric was finite."""
        return Verdict(self._config.on_nonfinite, step, f"the state is not finite after step {step}", nonfinite=True)
