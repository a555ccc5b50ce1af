"""The command `jaxgen league`, and the table that it prints."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxgen import backend, distributed
from jaxgen.config import MeshConfig
from jaxgen.metrics import evaluation
from jaxgen.metrics.league import Entry, fingerprint, is_likelihood, ranked
from jaxgen.metrics.repeats import UNIT
from jaxgen.metrics.reporting import say_unsettled
from jaxgen.report.atomic import replacing
from jaxgen.sharding import make_mesh
from jaxgen.trained import Run, layout, open_run, restore, use_cores


def league(args: Sequence[str]) -> int:
    """`league DIR DIR … [--split test] [--out FILE]`: bits/dim of several runs on one split, with standard errors."""
    parser = argparse.ArgumentParser(prog="league", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="the runs' directories")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    parser.add_argument("--out", type=Path, help="a file for the table as JSON")
    distributed.add_options(parser)
    known = parser.parse_args(args)
    distributed.initialize(distributed.asked(known))
    runs = distributed.together(lambda: [open_run(path) for path in known.runs])
    for run in runs:
        if run.method.evaluate is None:
            raise ValueError(f"the method of {run.workdir} has no metrics to evaluate")
    backend.prepare_for(runs[0].config.train)
    use_cores(math.gcd(*(run.config.train.batch_size for run in runs)), MeshConfig())
    report = {"split": known.split, "rows": ranked(_entries(runs, known.split, known.checkpoint))}
    if distributed.is_first():
        show(report)
        if known.out:
            with replacing(known.out) as file:
                file.write((json.dumps(report, indent=2) + "\n").encode())
            print(f"{known.out}: the same figures as JSON")
    return 0


def _entries(runs: Sequence[Run], split: str, checkpoint: str) -> list[Entry]:
    """Every metric in bits/dim of every run; a ValueError unless all are of the same examples."""
    loaded = distributed.together(lambda: [run.config.data.load() for run in runs])
    prints = []
    for run, data in zip(runs, loaded, strict=True):
        data.spec.check(split, run.method.reads)
        prints.append(fingerprint(data, split, run.method.reads[0]))
        if prints[-1] != prints[0]:
            raise ValueError(
                f"{run.workdir} and {runs[0].workdir} differ in the examples of their {split} split: bits/dim compare "
                "on the same ones alone"
            )
    entries = []
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        for run, data in zip(runs, loaded, strict=True):
            found = restore(run, layout(run, mesh), checkpoint)
            table = evaluation.measured(run, data, mesh, found, split)
            own = [Entry(str(run.workdir), found.step, name, x) for name, x in table.items() if is_likelihood(name)]
            if not own:
                names = ", ".join(table)
                raise ValueError(f"the method of {run.workdir} has no likelihood in bits/dim; it reports: {names}")
            entries += own
    return entries


def show(report: Mapping[str, Any]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    caption = "exact, or an upper bound, as the metric says; above the first: paired by example, with a 95 % interval"
    titles = ("run", "step", "metric", "bits/dim", "standard error", "above the first")
    table = Table(*titles, title=f"{report['split']} split", caption=caption)
    for i, row in enumerate(report["rows"]):
        gap = row["difference"]
        above = f"{gap['difference']:.4f} ({gap['low']:.4f} … {gap['high']:.4f})" if i else "–"
        cells = (row["run"], str(row["step"]), row["metric"].removeprefix(UNIT), f"{row['value']:.4f}")
        table.add_row(*cells, f"{row['standard_error']:.4f}", above)
    Console().print(table)
    say_unsettled({f"{row['run']}, {row['metric']}": row for row in report["rows"]})
