"""What the rows have shown, as text: on the terminal, and as a section of RESULTS.md."""

from __future__ import annotations

import datetime
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pairs import ROOT, Row

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "diffusers", "transformers", "scikit-learn", "gensim")
HEAD = """# Benchmarks

Medians of CPU time a unit of work (wall time where it says so) of rounds in which ours and the peers took turns on the
same pinned cores; see `python -m benchmarks --help`, which writes this file, a section a case. A ratio is the median of
the rounds' ratios, the peer's time through ours, with the least and the greatest: above 1, ours is the faster.
"""


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def digits(value: float) -> str:
    """A fact, to six digits, large numbers to the last one."""
    return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"


def ratio(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def least(row: Row) -> float:
    """How many times as fast as the best peer ours is."""
    return min((statistics.median(values) for values in row.ratios.values()), default=float("inf"))


def goal_of(case: Any, name: str) -> float:
    """How many times as fast as the best peer ours is to be in a row."""
    goal = getattr(case, "GOAL", 1.0)
    return goal.get(name, 1.0) if isinstance(goal, Mapping) else goal


def facts_of(case: Any, row_name: str, row: Row) -> str:
    """The programs' rates, and what they say of their work, by fact: a value that all share stands once."""
    facts = {program: dict(facts) for program, facts in row.facts.items()}
    if row_name in getattr(case, "WORK", {}):
        amount, what = case.WORK[row_name]
        for program, seconds in row.seconds.items():
            facts[program] = {f"{what}/s": float(f"{amount / seconds:.3g}"), **facts[program]}
    names = dict.fromkeys(name for told in facts.values() for name in told)
    parts = []
    for name in names:
        values = {program: digits(told[name]) for program, told in facts.items() if name in told}
        same = len(values) == len(row.facts) and len(set(values.values())) == 1
        text = next(iter(values.values())) if same else ", ".join(f"{v} ({p})" for p, v in values.items())
        parts.append(f"{name} {text}")
    return "; ".join(parts)


def describe(case: Any, name: str, row: Row) -> str:
    """A row for the terminal."""
    if not row.kept:
        return f"{name}: every one of {row.rounds} rounds was disturbed"
    times = ", ".join(f"{program} {duration(t)}" for program, t in row.seconds.items())
    ratios = ", ".join(f"{peer} {ratio(values)}" for peer, values in row.ratios.items())
    missed = f", below the goal of {goal:.2f}" if least(row) < (goal := goal_of(case, name)) else ""
    found = f"\n  {facts}" if (facts := facts_of(case, name, row)) else ""
    return (
        "; ".join(filter(None, (f"{name}: {times}", f"{ratios}{missed}")))
        + f" [{row.kept} of {row.rounds} rounds]{found}"
    )


def versions(pythons: Mapping[str, Path]) -> str:
    """The machine, and the versions of both environments."""
    code = (
        "import importlib.metadata as m, platform\nprint('Python', platform.python_version(), end='')\n"
        f"for p in {PACKAGES}:\n try: print(',', p, m.version(p), end='')\n except m.PackageNotFoundError: pass"
    )
    texts = [
        f"{name}: {subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout}"
        for name, python in pythons.items()
    ]
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}; " + "; ".join(texts)


def section(name: str, case: Any, rows: Mapping[str, Row], where: str) -> str:
    """The section of a case."""
    programs = list(case.PROGRAMS)
    head = ["", *programs, *(f"ratio, {peer}" for peer in programs[1:]), "rounds"]
    title, _, text = case.__doc__.strip().partition("\n")
    lines = [
        f"## {title.rstrip('.')}",
        text,
        "",
        f"`python -m benchmarks {name}`, {datetime.date.today()}. {where}.",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row_name, row in rows.items():
        cells = [row_name]
        cells += [duration(row.seconds[p]) if p in row.seconds else "" for p in programs]
        cells += [ratio(row.ratios[p]) if row.ratios.get(p) else "" for p in programs[1:]]
        cells += [f"{row.kept} of {row.rounds}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""]
    lines += [f"- {row_name}: {facts}." for row_name, row in rows.items() if (facts := facts_of(case, row_name, row))]
    if programs[1:]:
        goals = {row_name: goal_of(case, row_name) for row_name in rows}
        below = [
            f"{row_name} (goal {goals[row_name]:.2f})" for row_name, row in rows.items() if least(row) < goals[row_name]
        ]
        every = " and ".join(f"{goal:.2f}" for goal in sorted(set(goals.values())))
        lines += ["", f"Below the goal: {'; '.join(below)}." if below else f"Goal of {every}: reached."]
    return "\n".join(lines) + "\n"


def write(name: str, case: Any, rows: Mapping[str, Row], where: str) -> None:
    """Puts the section of a case in RESULTS.md, in its old one's place."""
    text = RESULTS.read_text("utf-8") if RESULTS.exists() else HEAD
    head, *sections = re.split(r"(?m)^(?=## )", text)
    new = section(name, case, rows, where)
    places = [i for i, old in enumerate(sections) if old.splitlines()[0] == new.splitlines()[0]]
    if places:
        sections[places[0]] = new
    else:
        sections.append(new)
    RESULTS.write_text("\n\n".join(part.strip() for part in [head, *sections]) + "\n", "utf-8")
