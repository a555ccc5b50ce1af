"""The report of `evaluation` as tables on the terminal, and as JSON and pictures in the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.report.atomic import replacing
from jaxgen.report.curves import write_rows
from jaxgen.report.images import grid, write_png


def say_unsettled(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a line for each of the metrics, `Estimate.to_json` by name, whose noise was not averaged away."""
    for name, row in rows.items():
        if not row["settled"]:
            print(f"{name}: after {row['repeats']} repeats its noise is still {row['noise']:.2g}, above what was asked")


def show(report: Mapping[str, Any]) -> None:
    """Prints the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report["metrics"]:
        caption = "standard error: of the choice of the examples, and of the noise, which the metric's own draws leave"
        titles = ("metric", "value", "standard error", "noise")
        table = Table(*titles, title=f"step {report['step']}, {report['split']} split", caption=caption)
        for name, row in report["metrics"].items():
            table.add_row(name, f"{row['value']:.5g}", f"{row['standard_error']:.2g}", f"{row['noise']:.1g}")
        console.print(table)
        say_unsettled(report["metrics"])
    if "samples" in report:
        caption = "floor: real images of the split; baseline: a Gaussian of the pixels"
        features = f"features of {report['features']}" if report["features"] else "no features of this data set"
        table = Table("measure", "samples", "floor", "baseline", title=f"samples, {features}", caption=caption)
        for name in report["samples"]:
            table.add_row(name, *(f"{report[kind][name]:.4g}" for kind in ("samples", "floor", "gaussian")))
        console.print(table)
    if "against" in report:
        other = report["against"]
        table = Table("measure", "samples", "against", title="other sampling options, from the same noise")
        for name in report["samples"]:
            table.add_row(name, f"{report['samples'][name]:.4g}", f"{other['samples'][name]:.4g}")
        seconds = (report["seconds_a_sample"], other["seconds_a_sample"])
        table.add_row("seconds a sample", *("–" if one is None else f"{one:.3g}" for one in seconds))
        console.print(table)
        for name, row in other.items():
            if name.startswith("fd_difference"):
                print(f"{name}: {row['difference']:.4g}, 95 % interval {row['low']:.4g} … {row['high']:.4g}")
        for name, why in other.get("left_out", {}).items():
            print(f"{name} is left out: {why}")
    if "asked" in report:
        caption, n = "the judge's own accuracy is on real test images", f"n={report['num']}"
        titles = ("asked for", "balanced accuracy", "recall of each value", "judge's own accuracy")
        table = Table(*titles, title=f"what the judge reads, {n}", caption=caption)
        for name, row in report["asked"].items():
            recall = " ".join("–" if r is None else f"{r:.3f}" for r in row[f"recall/{n}"])
            table.add_row(name, f"{row[f'balanced_accuracy/{n}']:.3f}", recall, f"{row['judge_accuracy']:.4f}")
        console.print(table)


def write(report: Mapping[str, Any], workdir: Path) -> Path:
    """Writes the report to `evaluation/STEP.json` in the run, with pictures; a report that is there gets a sibling."""
    place, number = workdir / "evaluation" / f"{report['step']:06d}.json", 2
    while place.exists():
        place, number = place.with_name(f"{report['step']:06d}-{number}.json"), number + 1
    if "image" in report:
        write_png(place.with_name(f"{place.stem}-samples.png"), grid(report["image"][:64]))
        nearest = report["nearest"]
        pairs = np.stack([report["image"][: len(nearest)], nearest], 1)  # each sample beside its neighbour
        write_png(place.with_name(f"{place.stem}-nearest.png"), grid(pairs.reshape(-1, *pairs.shape[2:]), columns=8))
    if "known" in report:
        frames = report["known"]
        write_png(place.with_name(f"{place.stem}-known.png"), grid(frames.reshape(-1, *frames.shape[2:]), columns=8))
    for name, values in report.get("rows", {}).items():
        write_rows(place.with_name(f"{place.stem}-{name}.png"), values, name.replace("_", " "))
    plain = {name: value for name, value in report.items() if name not in ("image", "nearest", "known", "rows")}
    with replacing(place) as file:
        file.write((json.dumps(plain, indent=2) + "\n").encode())
    return place
