"""A trace of some steps: what the host and the devices did when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


class Profile:
    """The trace of the steps after `start` up to `stop`; a context manager, which ends a trace under way.

    Args:
      window: `START:STOP`, steps done, or empty for no trace.
      folder: where the trace goes.
      enabled: False traces nothing (every process but the first).
    """

    def __init__(self, window: str, folder: Path, enabled: bool = True):
        self._start, self._stop = map(int, window.split(":")) if window and enabled else (-1, -1)
        self._folder, self._running = folder, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._running:
            self._end()

    def missed(self, step: int) -> bool:
        """Whether a run that goes on from `step` is past the start."""
        return 0 <= self._start < step

    def begin(self, step: int, state: Any) -> None:
        """Begins the trace when `step` steps are done, those that lead to `state`: it waits for the devices there."""
        if step == self._start and not self._running:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def end(self, step: int, state: Any) -> str:
        """Ends it likewise; returns how to open it then, nothing otherwise."""
        if step != self._stop or not self._running:
            return ""
        jax.block_until_ready(state)
        return self._end()

    def _end(self) -> str:
        self._running = False
        jax.profiler.stop_trace()
        newest = max(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"), key=lambda p: p.stat().st_mtime)
        return (
            f"trace of the steps {self._start + 1} to {self._stop}: open {newest} at https://ui.perfetto.dev, or "
            f"`pip install xprof && xprof --logdir {self._folder}`"
        )
