"""The metrics of a run as one picture of small curves; rows of numbers, such as spectra, as one curve."""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.report.atomic import replacing
from jaxgen.report.log import read_metrics


def curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`{metric: (steps [n], values [n])}` of a log's rows, in the order in which they appear, steps ascending.

    A step not past the one before means that the run went back there (a rollback): the points from it on are dropped.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name in (name for name in row if name not in ("step", "attempt")):
            past = points.setdefault(name, [])
            while past and past[-1][0] >= row["step"]:
                past.pop()
            past.append((row["step"], row[name]))
    arrays = {name: np.array(past, float) for name, past in points.items()}
    return {name: (array[:, 0], array[:, 1]) for name, array in arrays.items()}


def is_log_scale(values: np.ndarray) -> bool:
    """Whether a logarithmic axis suits `values` [n]: all positive, and the largest over 30 times the smallest."""
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > 30 * finite.min())


def write_curves(metrics_path: str | os.PathLike[str], out_png: str | os.PathLike[str]) -> None:
    """Draws every metric of a `metrics.jsonl` over the steps, a panel each, and writes the picture atomically.

    More than 200 points are drawn pale, under their mean over a fiftieth of the curve. Where the log has no metrics, no
    picture is written.
    """
    lines = curves(read_metrics(metrics_path)) if Path(metrics_path).exists() else {}
    if not lines:
        return
    from matplotlib.figure import Figure

    columns = min(3, len(lines))
    num_rows = math.ceil(len(lines) / columns)
    figure = Figure(figsize=(4 * columns, 2.6 * num_rows), dpi=110, layout="constrained")
    panels = figure.subplots(num_rows, columns, squeeze=False).flat
    for (name, (steps, values)), axes in zip(lines.items(), panels, strict=False):
        values = np.where(np.isfinite(values), values, np.nan)  # a gap in the curve
        if len(steps) > 200:
            size = len(steps) // 50
            axes.plot(steps, values, linewidth=0.8, alpha=0.3)
            smooth = np.convolve(values, np.full(size, 1 / size), mode="valid")
            axes.plot(steps[size // 2 :][: len(smooth)], smooth, color="C0", linewidth=1.4)
        else:
            axes.plot(steps, values, marker="." if len(steps) < 30 else "", linewidth=1.2)
        if is_log_scale(values):
            axes.set_yscale("log")
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.25)
    for axes in panels:  # those that are left
        axes.remove()
    figure.supxlabel("step", fontsize=10)
    with replacing(out_png) as file:
        figure.savefig(file, format="png")


def write_rows(out_png: str | os.PathLike[str], rows: np.ndarray, title: str) -> None:
    """Draws the median of rows [N, K] over 1 … K, with the band of their middle half, and writes it atomically."""
    from matplotlib.figure import Figure

    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], 0)
    number = np.arange(1, rows.shape[1] + 1)
    figure = Figure(figsize=(5, 3.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(number, low, high, alpha=0.25, linewidth=0)
    axes.plot(number, middle, marker=".", linewidth=1.2)
    if is_log_scale(low):
        axes.set_yscale("log")
    axes.set_title(f"{title}: median and middle half of {len(rows)}", fontsize=10)
    axes.grid(alpha=0.25)
    with replacing(out_png) as file:
        figure.savefig(file, format="png")
