"""The robustness grid of Gulrajani et al. (2017, arXiv 1704.00028, figure 2): `python -m jaxgen.gans.grid`.

Four ways to train, each on seven pairs of networks of which most break one of the usual recommendations, all with
settings close to their papers' and none tuned to the pair; a short run each, of networks shrunk to a CPU. Every cell
is an ordinary run in the folder, so that the command goes on where it was stopped. A cell passes when its samples are
nearer to the data, by the Fréchet distance, than those of a Gaussian of the pixels, and eight classes of ten are among
them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen import backend, catalog, trainer
from jaxgen.config import Experiment, MeshConfig, TrainConfig, experiment_to_json
from jaxgen.data import SOURCES, Images
from jaxgen.gans import gan, wgan
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig
from jaxgen.metrics import evaluation
from jaxgen.metrics.images import pixel_gaussian
from jaxgen.report.atomic import replacing
from jaxgen.report.images import grid, write_png
from jaxgen.sharding import make_mesh
from jaxgen.trained import draw_samples, layout, open_run, restore, use_cores
from jaxgen.watch import NonFiniteError

COVERED = 0.8  # share of the classes

_ADAM, _RMSPROP = PlayerConfig(learning_rate=2e-4, b1=0.5, b2=0.999), PlayerConfig("rmsprop", 5e-5, b2=0.99)
_PENALISED = PlayerConfig(learning_rate=1e-4, b1=0.0, b2=0.9)
TRAINING: dict[str, gan.Config] = {
    "dcgan": gan.Config(loss="non_saturating", gen_optimizer=_ADAM, critic_optimizer=_ADAM),
    "lsgan": gan.Config(loss="least_squares", gen_optimizer=_ADAM, critic_optimizer=_ADAM),
    "wgan_clip": wgan.Config(penalty="none", clip=0.01, gen_optimizer=_RMSPROP, critic_optimizer=_RMSPROP),
    "wgan_gp": wgan.Config(penalty="two_sided", gen_optimizer=_PENALISED, critic_optimizer=_PENALISED),
}

_DCGAN, _PLAIN = CriticConfig(widths=(24, 48), norm="batch"), CriticConfig(widths=(24, 48))
NETWORKS: dict[str, tuple[GeneratorConfig, CriticConfig]] = {
    "baseline": (GeneratorConfig(widths=(48, 24)), _DCGAN),
    "constant filters, no BN in G": (GeneratorConfig(widths=(24, 24), norm="none"), _DCGAN),
    "4-layer ReLU MLP as G": (GeneratorConfig("mlp", (256,) * 4, norm="none"), _DCGAN),
    "no normalisation": (GeneratorConfig(widths=(48, 24), norm="none"), _PLAIN),
    "gated": (GeneratorConfig(widths=(48, 24), activation="gated"), dataclasses.replace(_DCGAN, activation="gated")),
    "tanh": (GeneratorConfig(widths=(48, 24), activation="tanh"), dataclasses.replace(_DCGAN, activation="tanh")),
    "deep ResNet": (
        GeneratorConfig("resnet", (16, 16), num_blocks=4),
        CriticConfig("resnet", (16, 16), norm="batch", activation="relu", num_blocks=4),
    ),
}


def cell(training: str, networks: str, steps: int, batch_size: int) -> Experiment:
    """The experiment of one cell; `batch_size` is that of a descent."""
    cfg, (gen, critic) = TRAINING[training], NETWORKS[networks]
    if cfg.penalty != "none" and critic.norm == "batch":
        critic = dataclasses.replace(critic, norm="layer")  # as the paper does: the penalty is of single examples
    every = max(steps // 10, 1)
    return Experiment(
        method=dataclasses.replace(cfg, gen=gen, critic=critic),
        data=Images("fashion"),
        train=TrainConfig(
            steps=steps,
            batch_size=batch_size * cfg.num_critic,
            log_every=every,
            sample_every=0,
            eval_every=0,
            save_every=steps,
            keep_last=1,
        ),
    )


def run_cell(experiment: Experiment, workdir: Path, num: int) -> np.ndarray | None:
    """`num` samples uint8 [num, H, W, C] of the cell, trained where it is not yet; None where its numbers diverged.

    Raises:
      KeyboardInterrupt: training was stopped by a signal.
    """
    diverged = workdir / "diverged.txt"
    if diverged.exists():
        return None
    data = experiment.data.load()
    method = catalog.make(experiment.method, data.spec)
    document = experiment_to_json(experiment, catalog.kinds(), SOURCES) | {"spec": data.spec.to_json()}
    try:
        outcome = trainer.train(experiment, method, data, workdir, document)
    except NonFiniteError as error:
        diverged.write_text(f"{error}\n", "utf-8")
        return None
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    run, mesh = open_run(workdir), make_mesh(experiment.mesh)
    with jax.set_mesh(mesh):
        return draw_samples(run, mesh, restore(run, layout(run, mesh), "last").state, num)["image"]


def judge(images: np.ndarray | None, reference: Any, baseline: float) -> dict[str, Any]:
    """What is measured of a cell's samples, and whether it passes; `baseline` is the Gaussian's Fréchet distance."""
    if images is None:
        return {"pass": False, "why": "diverged"}
    found = evaluation.measure(images, reference)
    fd, classes = found[f"fd/n={len(images)}"], found[f"label_coverage/n={len(images)}"]
    return {"fd": fd, "classes": classes, "pass": bool(fd < baseline and classes >= COVERED)}


def table(results: dict[str, dict[str, dict[str, Any]]], baseline: float) -> str:
    """The results by networks and training, as a Markdown table."""

    def text(one: dict[str, Any]) -> str:
        verdict = "pass" if one["pass"] else "fail"
        return f"{verdict}: {one['why']}" if "why" in one else f"{verdict}: {one['fd']:.0f}, {one['classes']:.0%}"

    lines = [f"| Fréchet distance (a Gaussian: {baseline:.0f}), classes | {' | '.join(TRAINING)} |"]
    lines.append("| --- " * (1 + len(TRAINING)) + "|")
    for name, row in results.items():
        lines.append(f"| {name} | {' | '.join(text(row[training]) for training in TRAINING)} |")
    return "\n".join(lines) + "\n"


def sheet(pictures: dict[str, dict[str, np.ndarray | None]], columns: int = 4) -> np.ndarray:
    """A contact sheet, uint8 [H, W, 3]: a row a pair of networks, a column a training, sixteen samples a cell."""
    known = next((x for row in pictures.values() for x in row.values() if x is not None), None)
    if known is None:
        raise ValueError("all runs diverged: there is nothing to show")
    blank = np.zeros_like(known[:16])
    cells = lambda row: [grid(blank if x is None else x[:16], columns, scale=1) for x in row.values()]
    return np.concatenate([np.concatenate(cells(row), 1) for row in pictures.values()], 0)


def main(args: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m jaxgen.gans.grid", description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/grid"))
    parser.add_argument("--steps", type=int, default=1500, help="of each run (default: 1500)")
    parser.add_argument("--batch-size", type=int, default=32, help="of each descent (default: 32)")
    parser.add_argument("--num", type=int, default=500, help="samples that are measured (default: 500)")
    options = parser.parse_args(args)
    backend.prepare(TrainConfig())
    use_cores(options.batch_size, MeshConfig())
    data = Images("fashion").load()
    reference = evaluation.make_reference(data, "test", "fashion")
    gaussian = pixel_gaussian(reference.train, data.spec.levels, options.num, 0)
    baseline = evaluation.measure(gaussian, reference)[f"fd/n={options.num}"]
    pictures: dict[str, dict[str, np.ndarray | None]] = {}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name in NETWORKS:
        pictures[name], results[name] = {}, {}
        for training in TRAINING:
            folder = options.workdir / f"{training}-{name.replace(' ', '_').replace(',', '')}"
            images = run_cell(cell(training, name, options.steps, options.batch_size), folder, options.num)
            pictures[name][training], results[name][training] = images, judge(images, reference, baseline)
            print(f"{name}, {training}: {results[name][training]}", flush=True)
    write_png(options.workdir / "sheet.png", sheet(pictures))
    for path, text in (("table.md", table(results, baseline)), ("results.json", json.dumps(results, indent=1))):
        with replacing(options.workdir / path) as file:
            file.write(text.encode())
    print(table(results, baseline) + f"{options.workdir / 'sheet.png'}: the samples")


if __name__ == "__main__":
    main()
