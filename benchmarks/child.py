"""A program of a case in a process of its own, which works when it is told to. `benchmarks.pairs` starts it.

It reads its request, a JSON object, from standard input; then every line "go" is one measurement, and "end" the end.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import sys
import time
from pathlib import Path

LEAST = 0.5  # seconds of a measurement


def used() -> float:
    """CPU seconds of this process and of its children that have ended, to the microsecond (`os.times` has ticks)."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def busy(cores: list[int]) -> float:
    """Seconds for which the cores have worked for anybody, other guests of the machine's host among them."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, ticks)
            total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def measure(program, calls: int, cores: list[int]) -> dict[str, float]:
    """Seconds a call: CPU and wall time, and the time for which others worked on the cores."""
    total = {"cpu": 0.0, "wall": 0.0, "others": 0.0}
    for num in [1] * calls if program.after else [calls]:
        cpu, others, wall = used(), busy(cores), time.perf_counter()
        for _ in range(num):
            program.run()
        wall, cpu = time.perf_counter() - wall, used() - cpu
        spent = {"cpu": cpu, "wall": wall, "others": busy(cores) - others - cpu}
        total = {name: total[name] + spent[name] for name in total}
        if program.after:
            program.after()
    return {name: seconds / calls for name, seconds in total.items()}


def main() -> None:
    """Serves one request."""
    # Libraries print what they like; only this stream is the parent's.
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answer = lambda value: print(json.dumps(value), file=stream, flush=True)

    request = json.loads(sys.stdin.readline())
    cores = request["cores"]
    os.sched_setaffinity(0, cores)  # before the libraries count them
    case = importlib.import_module(request["case"])
    program = case.PROGRAMS[request["program"]](**request["options"])
    measure(program, 1, cores)  # compiles
    calls = math.ceil(LEAST / min(measure(program, 1, cores)["wall"] for _ in range(2)))
    answer({"calls": calls})
    for line in sys.stdin:
        if line.strip() == "end":
            answer(program.facts())
            return
        answer(measure(program, calls, cores))


if __name__ == "__main__":
    main()
