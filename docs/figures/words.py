"""Draws docs/images/words_map.png and docs/images/addresses_map.png.

Run: python docs/figures/words.py runs/word2vec_speeches runs/doc2vec_speeches
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxgen.words.vectors import of_run

IMAGES = Path(__file__).parents[1] / "images"
GROUPS = {
    "countries": "spain france mexico britain germany japan china cuba austria portugal chile",
    "money": "treasury debt taxes deficit expenditures budget loans bonds currency gold",
    "war": "army navy soldiers troops forces enemy weapons battle fleet guns armies",
    "law": "court courts jurisdiction constitution judicial supreme trial laws",
    "work and home": "workers families children schools parents health wages",
}
LABELS = {
    "George_Washington_1790", "Thomas_Jefferson_1801", "James_Monroe_1823", "Andrew_Jackson_1832", "James_Polk_1848",
    "Abraham_Lincoln_1862", "Ulysses_S_Grant_1871", "Grover_Cleveland_1887", "Theodore_Roosevelt_1905",
    "Woodrow_Wilson_1917", "Calvin_Coolidge_1926", "Franklin_D_Roosevelt_1942", "Harry_S_Truman_1950",
    "John_F_Kennedy_1962", "Richard_Nixon_1972", "Jimmy_Carter_1979", "Ronald_Reagan_1985", "William_J_Clinton_1996",
    "George_W_Bush_2003", "Barack_Obama_2012", "Donald_J_Trump_2019", "Joseph_R_Biden_2021",
}  # fmt: skip


def plane(x: np.ndarray) -> np.ndarray:
    """The first two principal components of the rows [N, D], [N, 2]."""
    centered = jnp.asarray(x) - jnp.asarray(x).mean(0, keepdims=True)
    u, s, _ = jnp.linalg.svd(centered, full_matrices=False)
    return np.asarray(u[:, :2] * s[:2])


def draw_words(run: str) -> None:
    """Words of five fields, chosen by hand and coloured by field, in the plane of their unit vectors."""
    vectors = of_run(run)
    chosen = [
        (word, field) for field, text in GROUPS.items() for word in dict.fromkeys(text.split()) if word in vectors
    ]
    xy = plane(np.stack([vectors.unit[vectors.number(word)] for word, _ in chosen]))
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, field in enumerate(GROUPS):
        rows = [i for i, (_, f) in enumerate(chosen) if f == field]
        axes.scatter(xy[rows, 0], xy[rows, 1], s=8, color=f"C{number}", label=field)
        for i in rows:
            axes.annotate(
                chosen[i][0], xy[i], xytext=(3, 2), textcoords="offset points", fontsize=8, color=f"C{number}"
            )
    axes.margins(x=0.08)
    axes.legend(fontsize=8, frameon=False)
    axes.set_xticks([]), axes.set_yticks([])
    figure.savefig(IMAGES / "words_map.png")


def draw_addresses(run: str) -> None:
    """Every training address in the plane of all their unit vectors, coloured by year."""
    vectors = of_run(run, "document")
    years = np.array([int(name.rsplit("_", 1)[1]) for name in vectors.words])
    xy = plane(vectors.unit)
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    points = axes.scatter(*xy.T, c=years, cmap="viridis", s=14)
    for name in sorted(LABELS & set(vectors.words)):
        *_, last, year = name.split("_")
        place = xy[vectors.number(name)]
        axes.annotate(f"{last} {year}", place, xytext=(4, 3), textcoords="offset points", fontsize=8)
    figure.colorbar(points, label="year", shrink=0.8)
    axes.set_xticks([]), axes.set_yticks([])
    figure.savefig(IMAGES / "addresses_map.png")


if __name__ == "__main__":
    draw_words(sys.argv[1])
    draw_addresses(sys.argv[2])
