"""What the rows have shown, as text: on the terminal, and as a section of RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import gpu
from benchmarks.pairs import ROOT, Row

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PACKAGES = "jax jaxlib flax optax numpy torch diffusers transformers scikit-learn gensim normflows".split()
HEAD = """# Benchmarks

Ours and the peers take turns on the same pinned cores; see `python -m benchmarks --help`, which writes this file, a
section a case. Each time is the median CPU time per unit of work over the rounds kept (wall time where it says so). A
ratio is the median of the rounds' ratios, the peer's time through ours, with the least and the greatest: above 1, ours
is the faster.
"""
UNCOMMITTED = (".", ":!benchmarks/RESULTS.md", ":!docs/images/costs.png")  # but for what a run itself writes


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
    """How many times as fast as the best peer ours is; infinite where no round was kept."""
    return min((statistics.median(values) for values in row.ratios.values() if values), default=float("inf"))


def too_few(row: Row) -> str:
    """Says so where fewer rounds count than were asked for."""
    return f", fewer than {row.asked}" if row.kept < row.asked else ""


def goal_of(case: Any, name: str) -> float:
    """How many times as fast as the best peer ours is to be in a row."""
    goal = getattr(case, "GOAL", 1.0)
    return goal.get(name, 1.0) if isinstance(goal, Mapping) else goal


def goal_text(case: Any, name: str) -> str:
    """The goal of a row, in the case's words where it has some."""
    return getattr(case, "GOAL_TEXT", f"{goal_of(case, name):.2f}")


def facts_of(case: Any, row_name: str, row: Row) -> str:
    """The programs' rates, and what they say of their work, by fact: a value that all share stands once."""
    facts = {program: dict(facts) for program, facts in row.facts.items()}
    if row_name in getattr(case, "WORK", {}):
        amount, what = case.WORK[row_name]
        for program, seconds in row.seconds.items():
            facts[program] = {f"{what}/s": float(f"{amount / seconds:.3g}"), **facts[program]}
    first = next(iter(row.facts.values()), {})
    if {"GFLOP", "peak TFLOP/s"} <= first.keys():
        for program, seconds in row.seconds.items():
            facts[program]["MFU"] = float(f"{first['GFLOP'] / 1e3 / seconds / first['peak TFLOP/s']:.3g}")
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
    missed = f", below the goal of {goal_text(case, name)}" if least(row) < goal_of(case, name) else ""
    found = f"\n  {facts}" if (facts := facts_of(case, name, row)) else ""
    return (
        "; ".join(filter(None, (f"{name}: {times}", f"{ratios}{missed}")))
        + f" [{row.kept} of {row.rounds} rounds{too_few(row)}]{found}"
    )


def commit() -> str:
    """The commit that is measured, and whether the tree has changes; empty where there is no repository."""
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    try:
        name, changes = git("rev-parse", "--short=10", "HEAD").strip(), git("status", "--porcelain", "--", *UNCOMMITTED)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {name}" + " + changes" * bool(changes)


def machine() -> str:
    """Processor, cores, memory, kernel."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    name = model[1] if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def versions(pythons: Mapping[str, Path], device: str = "cpu") -> str:
    """The machine, its GPU where that is the `device`, and the versions of the environments."""
    code = (
        "import importlib.metadata as m, platform\nprint('Python', platform.python_version(), end='')\n"
        f"for p in {PACKAGES}:\n try: print(',', p, m.version(p), end='')\n except m.PackageNotFoundError: pass"
    )
    texts = [
        f"{name}: {subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout}"
        for name, python in pythons.items()
    ]
    return "; ".join([machine(), *([gpu.describe()] if device == "gpu" else []), *texts])


def section(name: str, case: Any, rows: Mapping[str, Row], where: str) -> str:
    """The section of a case."""
    programs = list(case.PROGRAMS)
    head = ["", *programs, *(f"ratio, {peer}" for peer in programs[1:]), "rounds"]
    title, _, text = case.__doc__.strip().partition("\n")
    lines = [
        f"## {title.rstrip('.')}",
        text,
        "",
        f"`python -m benchmarks {name}`, {datetime.date.today()}{commit()}. {where}.",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row_name, row in rows.items():
        cells = [row_name]
        cells += [duration(row.seconds[p]) if p in row.seconds else "not measured" for p in programs]
        cells += [ratio(row.ratios[p]) if row.ratios.get(p) else "" for p in programs[1:]]
        lines.append("| " + " | ".join([*cells, f"{row.kept} of {row.rounds}{too_few(row)}"]) + " |")
    if facts := [f"- {name}: {facts}." for name, row in rows.items() if (facts := facts_of(case, name, row))]:
        lines += ["", *facts]
    measured = {row_name: row for row_name, row in rows.items() if row.kept}
    if programs[1:] and measured:
        missed = [row_name for row_name, row in measured.items() if least(row) < goal_of(case, row_name)]
        below = [f"{row_name} (goal {goal_text(case, row_name)})" for row_name in missed]
        every = " and ".join(sorted({goal_text(case, row_name) for row_name in measured}))
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
