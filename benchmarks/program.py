"""What a case is made of.

A case is a module of `benchmarks/cases/`; its docstring says what is compared, in its first line by a title. It holds

  ROWS: dict[str, dict]            row → the options of its programs
  PROGRAMS: dict[str, Callable]    name → `(**options) -> Program`; those named "jaxgen…" run in this environment, the
                                   others in the peers'; the first is what the peers are compared with
  GOAL: float | dict[str, float]   how many times as fast as the best peer the first is to be, or row → that; optional,
                                   1.0
  GOAL_TEXT: str                   the goal in words, where a ratio does not say it; optional
  CORES: int                       cores that each program is given; optional, 1
  CLOCK: "cpu" or "wall"           what counts; optional, "cpu". Work on several cores, the disk or a GPU has wall time
  DEVICE: "cpu" or "gpu"           what the programs may use; optional, "cpu". On a GPU a call ends when that is done
  WORK: dict[str, tuple]           row → (amount, of what) a unit of work is; optional, its rate is shown as well
  prepare: Callable                `(folder)` puts what the programs read into their folder; optional
  judge: Callable                  `(program, folder, **options) -> facts`, once the programs of a row have told theirs:
                                   for what a peer cannot compute of itself; optional
  draw: Callable                   `(rows)` draws a picture of all rows; optional

The last three run in this environment. The programs of a case start in one folder, which goes away with them. Importing
a case must need the standard library alone: the peers' environment has no JAX, and ours has no peers. One without peers
shows what ours takes; it may still compare two programs of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Program:
    """One program of a case, ready to run.

    Attributes:
      run: does one unit of work, and returns when it is done.
      facts: is called at the end: figures that show that the programs do the same work, or how well.
      after: is called after each `run`, and not timed: it waits for what that has left in the background, say.
    """

    run: Callable[[], Any]
    facts: Callable[[], dict[str, float]] = dict
    after: Callable[[], Any] | None = None
