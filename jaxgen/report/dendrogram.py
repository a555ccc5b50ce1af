"""The tree of a hierarchical clustering as a picture."""

import os
from typing import Any

import numpy as np

from jaxgen.report.atomic import replacing


def write_dendrogram(tree: np.ndarray, path: str | os.PathLike[str], num_leaves: int = 40, **options: Any) -> None:
    """Draws a linkage matrix [N − 1, 4] as a PNG, atomically.

    Args:
      tree: as `jaxgen.classical.hierarchical.linkage` returns it.
      path: where the picture goes.
      num_leaves: clusters to stop at on the way down; each says in brackets how many things it holds.
      **options: of scipy's `dendrogram`, `color_threshold` or `labels` say.
    """
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    dendrogram(tree, **({"p": num_leaves, "truncate_mode": "lastp", "ax": axes} | options))
    axes.set_ylabel("distance")
    with replacing(path) as file:
        figure.savefig(file, format="png")
