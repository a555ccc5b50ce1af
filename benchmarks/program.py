"""What a case is made of.

A case is a module of `benchmarks/cases/`; its docstring says what is compared, in its first line by a title. It holds

  ROWS: dict[str, dict]            row → the options of its programs
  PROGRAMS: dict[str, Callable]    name → `(**options) -> Program`; those named "jaxgen…" run in this environment, the
                                   others in the peers'; the first is what the peers are compared with
  GOAL: float                      how many times as fast as the best peer the first is to be; optional, 1.0
  CORES: int                       cores that each program is given; optional, 1
  CLOCK: "cpu" or "wall"           what counts; optional, "cpu". Work on several cores or on the disk has wall time

Importing it must need the standard library alone: the peers' environment has no jaxgen, and ours has no peers.
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
    """

    run: Callable[[], Any]
    facts: Callable[[], dict[str, float]] = dict
