"""How well a run of `inversion` changes and completes pictures: `python -m jaxgen.gans.flips RUN [--num 200]`.

Each attribute of two values is flipped in every picture. A network that reads attributes, and had no part in the run,
says how often the picture then shows what was asked for, and how often each other attribute still shows what it did.
Completion is of generated pictures, of which one half is hidden: a code is known to exist.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen import backend
from jaxgen.config import MeshConfig
from jaxgen.data import fill
from jaxgen.gans import inversion
from jaxgen.metrics import readers
from jaxgen.report.atomic import replacing
from jaxgen.report.images import grid, write_png
from jaxgen.sharding import make_mesh
from jaxgen.trained import draw_samples, layout, open_run, restore, use_cores

GOOD = 0.01  # mean squared error of what was seen, of pixels in [-1, 1]


class Flip(NamedTuple):
    """What flipping one attribute did: shares in 0…1, and the pictures [N, 2, H, W, C] before and after."""

    success: float
    kept: float
    pictures: np.ndarray


def flip(draw: Any, judge: readers.Reader, names: tuple[str, ...], attribute: str) -> Flip:
    """Flips `attribute` in the pictures that `draw(asked) -> {"image": uint8 [N, H, W, C]}` draws.

    Args:
      draw: the same pictures each time, with the values asked [N, A], -1 for what is left open, put in; or None.
      judge: reads the attributes.
      names: of the data's attributes.
      attribute: one of two values.
    """
    before = draw(None)["image"]
    read = judge.read(before)[1]
    place = judge.labels.index(attribute)
    asked = np.full((len(before), len(names)), -1, np.int32)
    asked[:, names.index(attribute)] = 1 - read[:, place]
    after = draw(asked)["image"]
    now = judge.read(after)[1]
    others = [i for i in range(len(judge.labels)) if i != place]
    return Flip(
        float((now[:, place] != read[:, place]).mean()),
        float((now[:, others] == read[:, others]).mean()),
        np.stack([before, after], 1),
    )


def report(workdir: Path, num: int = 200, seed: int = 0) -> dict[str, Any]:
    """The figures of a run, of `num` pictures, also written to its evaluation/flips.json with pictures beside.

    Raises:
      ValueError: no run of `inversion`, or none of data whose attributes a judge reads.
    """
    run = open_run(workdir)
    name = getattr(run.config.data, "name", "")
    if not isinstance(run.config.method, inversion.Config):
        raise ValueError(f"{workdir} is no run of inversion")
    if name not in readers.JUDGES or "attribute" not in run.spec.names:
        raise ValueError(f"no network that ships reads attributes of {name!r}")
    backend.prepare_for(run.config.train)
    use_cores(min(num, 256), MeshConfig())
    judge, names, mesh = readers.load(readers.JUDGES[name]), run.spec.names["attribute"], make_mesh(MeshConfig())
    folder = workdir / "evaluation"
    folder.mkdir(exist_ok=True)
    with jax.set_mesh(mesh):
        found = restore(run, layout(run, mesh), "last")

        def draw(asked):
            return draw_samples(run, mesh, found.state, num, seed, None if asked is None else {"attribute": asked})

        rows = {}
        for attribute, size in zip(names, run.spec.sizes["attribute"], strict=True):
            if size == 2 and attribute in judge.labels:
                done = flip(draw, judge, names, attribute)
                rows[attribute] = {"success": done.success, "kept": done.kept}
                pairs = done.pictures[:16].reshape(-1, *done.pictures.shape[2:])
                write_png(folder / f"flips-{attribute}.png", grid(pairs, columns=8))
        mask = np.stack([fill.mask_of("right", run.spec)] * num)
        ended = draw_samples(run, mesh, found.state, num, seed, {"known": draw(None)["image"], "mask": mask})
        write_png(
            folder / "completed.png", grid(ended["frames"][:8].reshape(-1, *ended["frames"].shape[2:]), columns=3)
        )
    error = ended["seen_error"]
    completion = {"mean_error": float(error.mean()), "share_good": float((error <= GOOD).mean())}
    result = {"step": found.step, "num": num, "flips": rows, "completion": completion}
    with replacing(folder / "flips.json") as file:
        file.write(json.dumps(result, indent=1).encode())
    return result


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m jaxgen.gans.flips")
    parser.add_argument("run", type=Path)
    parser.add_argument("--num", type=int, default=200, help="pictures (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = report(options.run, options.num, options.seed)
    for attribute, row in result["flips"].items():
        print(f"{attribute:16} flipped {row['success']:6.1%}   others kept {row['kept']:6.1%}")
    completion = result["completion"]
    print(f"completion: seen error {completion['mean_error']:.4f}, at most {GOOD} in {completion['share_good']:.1%}")


if __name__ == "__main__":
    main()
