"""Programs that take turns: medians over rounds that nothing disturbed, and their ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import ENVIRONMENT

ROOT = Path(__file__).parents[1]
LEAST = 5  # rounds that a published row is to have
# Of a measurement's wall time, what others may have of all its cores together, so that two cores are no laxer than one;
# of its CPU time, by how much the wall time of a program on one core may exceed it.
DISTURBED = 0.15
MOST = 6  # times as many rounds as are asked for


class Row(NamedTuple):
    """What a row of a case has shown.

    Attributes:
      seconds: program → median seconds a unit of work.
      ratios: peer → its time through that of the first program, for each round that was kept.
      facts: program → what it says of its work.
      kept: rounds that nothing disturbed.
      rounds: rounds in all.
      asked: rounds that were to be kept.
    """

    seconds: dict[str, float]
    ratios: dict[str, list[float]]
    facts: dict[str, dict[str, Any]]
    kept: int
    rounds: int
    asked: int = LEAST


class Child:
    """A program in a process of its own, which stands still until it is told to work."""

    def __init__(self, python: Path, request: Mapping[str, Any], folder: Path, log: Path):
        num = str(len(request["cores"]))
        env = {**os.environ, "OMP_NUM_THREADS": num, "OPENBLAS_NUM_THREADS": num, "MKL_NUM_THREADS": num}
        env |= ENVIRONMENT[request["device"]] | {"PYTHONPATH": str(ROOT)}
        self.log, self.name = log, request["program"]
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=env,
                cwd=folder,
            )
        self.tell(json.dumps(request))

    def tell(self, line: str) -> None:
        """Sends a line; one that has died shows why when it is to answer."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def answer(self) -> Any:
        """The next answer; RuntimeError with the end of its log where the process has died."""
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.name} has ended:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def quiet(times: Mapping[str, float], alone: bool) -> bool:
    """Whether a measurement was undisturbed; `alone` where the program keeps a single core busy."""
    waited = alone and times["wall"] > (1 + DISTURBED) * times["cpu"]
    return not waited and times["others"] <= DISTURBED * times["wall"]


def compare(
    case: Any,
    row: str,
    pythons: Mapping[str, Path],
    cores: Sequence[int],
    pairs: int,
    folder: Path,
    show: Callable[[str], None],
) -> Row:
    """Runs one row of a case.

    Args:
      case: a module, see `benchmarks.program`.
      row: which row.
      pythons: the interpreters of the environments, `jaxgen` and `peers`.
      cores: what each program is pinned to.
      pairs: rounds to keep; a round is one measurement of each program, their order reversed from one to the next.
      folder: where the programs start, and their logs go.
      show: is told how far it is.
    """
    programs = list(case.PROGRAMS)
    clock = getattr(case, "CLOCK", "cpu")
    kept: list[dict[str, float]] = []
    with ExitStack() as stack:
        children = {}
        for i, program in enumerate(programs):
            show(f"{program} starts")
            request = {"case": case.__name__, "program": program, "options": case.ROWS[row]}
            request |= {"cores": list(cores), "device": getattr(case, "DEVICE", "cpu")}
            python = pythons["jaxgen" if program.startswith("jaxgen") else "peers"]
            children[program] = child = Child(python, request, folder, folder / f"{i}.log")
            stack.callback(child.close)
            child.answer()  # one after the other: they would disturb each other
        rounds = 0
        while len(kept) < pairs and rounds < MOST * pairs:
            times = {}
            for program in programs if rounds % 2 == 0 else reversed(programs):
                children[program].tell("go")
                times[program] = children[program].answer()
            rounds += 1
            if all(quiet(t, alone=clock == "cpu" and len(cores) == 1) for t in times.values()):
                kept.append({program: t[clock] for program, t in times.items()})
            show(f"{len(kept)} of {rounds} rounds undisturbed")
        facts = {}
        for program, child in children.items():
            child.tell("end")
            facts[program] = child.answer()
    if judge := getattr(case, "judge", None):
        for program in programs:
            facts[program] |= judge(program, folder, **case.ROWS[row])
    first, *peers = programs
    return Row(
        {p: statistics.median(t[p] for t in kept) for p in programs} if kept else {},
        {p: [t[p] / t[first] for t in kept] for p in peers},
        facts,
        len(kept),
        rounds,
        pairs,
    )
