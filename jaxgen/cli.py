"""The commands: `jaxgen train`, `jaxgen sample`, `jaxgen evaluate`; train.py and sample.py call the same functions."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen import catalog, runs, trainer
from jaxgen.checkpoint import Checkpoints, Restored
from jaxgen.config import (
    Experiment,
    MeshConfig,
    experiment_from_json,
    experiment_to_json,
    load_config,
    override,
)
from jaxgen.data import SOURCES, Spec
from jaxgen.method import Method
from jaxgen.program import abstract_state, keys_of, make_evaluate, make_sample
from jaxgen.report.samples import check_suffix, default_suffix, named_key, with_text, write_samples
from jaxgen.sharding import AXES, check_batch, make_mesh
from jaxgen.watch import NonFiniteError

CHUNK = 256  # samples drawn by one call of the compiled program


class Run(NamedTuple):
    """A run's config.json, read back: everything that its checkpoints need."""

    config: Experiment
    spec: Spec
    method: Method


def open_run(workdir: Path) -> Run:
    """The run in `workdir`, from its config.json alone.

    Raises:
      FileNotFoundError: no run there.
      ValueError: its method or a field is unknown to this version.
    """
    tree = runs.read_config(workdir)
    config = experiment_from_json(tree, catalog.kinds(), SOURCES)
    spec = Spec.from_json(tree["spec"])
    return Run(config, spec, catalog.make(config.method, spec))


def use_cores(batch_size: int, mesh: MeshConfig) -> None:
    """Makes every core a CPU device of its own: XLA's threads alone keep about 1.3 of 2 cores busy.

    As many devices as `mesh` multiplies to; where one of its axes is -1, a multiple of the others' product, more than
    that only where the cores are there and each device gets 8 examples. Does nothing when the user has chosen the
    number of CPU devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    count = fixed = max(1, math.prod(size for size in sizes if size != -1))  # a size below 1 is make_mesh's to refuse
    if -1 in sizes:
        counts = range(fixed, min(cores, 8) + 1, fixed)
        count = max((n for n in counts if batch_size % n == 0 and batch_size // n >= 8), default=fixed)
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}".strip()


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """`--mesh.data` and its like, for the commands that do not take the whole experiment's options."""
    for axis in AXES:
        default = getattr(MeshConfig(), axis)
        parser.add_argument(
            f"--mesh.{axis}", dest=axis, metavar="N", type=int, default=default, help=f"devices (default: {default})"
        )


def train(args: Sequence[str]) -> int:
    """`train CONFIG [--workdir DIR] [--train.steps N …]`: trains, or goes on with, a run."""
    if not args or args[0].startswith("-"):
        print(
            "usage: train CONFIG [--workdir DIR] [--train.steps N …]\n"
            "CONFIG, a Python file such as configs/ddpm_faces.py, comes before the options; "
            "`train CONFIG --help` lists them"
        )
        return 0 if set(args) & {"-h", "--help"} else 2
    path = args[0]
    parser = argparse.ArgumentParser(prog=f"train {path}", add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    known, rest = parser.parse_known_args(args[1:])
    config = override(load_config(path), rest, f"train {path} [--workdir DIR]")
    workdir = Path(known.workdir or Path("runs") / Path(path).stem)
    use_cores(config.train.batch_size, config.mesh)
    data = config.data.load()
    method = catalog.make(config.method, data.spec)
    document = experiment_to_json(config, catalog.kinds(), SOURCES) | {"spec": data.spec.to_json()}
    outcome = trainer.train(config, method, data, workdir, document)
    if outcome.reason == "done":
        draw = shlex.join(["python", "sample.py", str(workdir), "--num", "64"])
        print(f"{workdir}: done, {outcome.step} steps; next: {draw}")
    else:
        again = shlex.join(["python", "train.py", path, "--workdir", str(workdir), *rest])
        print(f"{workdir}: {outcome.reason}; saved at step {outcome.step}; to go on: {again}")
    return 0


def sample(args: Sequence[str]) -> int:
    """`sample DIR --num N --out FILE`: draws samples from a run; the method's sampling options can be overridden."""
    parser = argparse.ArgumentParser(prog="sample", add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?", type=Path, help="the run's directory")
    parser.add_argument("--num", type=int, default=64, help="how many (default: 64)")
    parser.add_argument(
        "--out", type=Path, help=".png a grid, .npz arrays, .txt text (default: DIR/samples.png or what fits)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other samples for another seed (default: 0)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    add_mesh_options(parser)
    known, rest = parser.parse_known_args(args)
    asked = not {"-h", "--help"}.isdisjoint(rest)
    if known.run is None or asked:
        parser.print_help()
        if known.run is None:
            return 0 if asked else 2
    if known.num < 1:
        raise ValueError(f"--num must be 1 or more, not {known.num}")
    run = open_run(known.run)
    config = run.config.method
    if hasattr(config, "sample"):
        import tyro  # 0.3 s, needed by the entry points alone

        options = tyro.cli(type(config.sample), default=config.sample, args=rest, prog=f"sample {known.run}")
        run = run._replace(method=catalog.make(dataclasses.replace(config, sample=options), run.spec))
    elif asked:
        return 0
    elif rest:
        raise ValueError(f"unknown option {rest[0]}: this method has no sampling options")
    if run.method.sample is None:
        raise ValueError(f"the method of {known.run} does not sample")
    chunk = min(known.num, CHUNK)
    axes = MeshConfig(known.data, known.fsdp, known.tensor)
    use_cores(chunk, axes)
    mesh = make_mesh(axes)
    draw, key = make_sample(run.method, mesh), jax.random.fold_in(keys_of(run.config.train.seed).sample, known.seed)
    with jax.set_mesh(mesh):
        abstract = abstract_state(run.method, run.spec, run.config.train.batch_size, mesh, run.config.mesh)
        shapes = jax.eval_shape(draw, abstract, key, chunk)
        if key_of_names := named_key(shapes, run.spec.names):
            shapes = {**shapes, "text": shapes[key_of_names]}
        out = known.out or known.run / f"samples{default_suffix(shapes)}"
        check_suffix(out, shapes)
        found = restore(known.run, run, abstract, known.checkpoint)
        keys = [jax.random.fold_in(key, i) for i in range(-(-known.num // chunk))]
        parts = [jax.device_get(draw(found.state, k, chunk)) for k in keys]
    samples = jax.tree.map(lambda *xs: np.concatenate(xs)[: known.num], *parts)
    write_samples(out, with_text(samples, run.spec.names))
    print(f"{out}: {known.num} samples of {known.run} at step {found.step}")
    return 0


def evaluate(args: Sequence[str]) -> int:
    """`evaluate DIR [--split test]`: the method's metrics over a split, printed as JSON."""
    parser = argparse.ArgumentParser(prog="evaluate", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's directory")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    add_mesh_options(parser)
    known = parser.parse_args(args)
    run = open_run(known.run)
    if run.method.evaluate is None:
        raise ValueError(f"the method of {known.run} has no metrics to evaluate")
    batch_size = run.config.train.batch_size
    axes = MeshConfig(known.data, known.fsdp, known.tensor)
    use_cores(batch_size, axes)
    data = run.config.data.load()
    data.spec.check(known.split, run.method.reads)
    mesh = make_mesh(axes)
    check_batch(batch_size, mesh)
    with jax.set_mesh(mesh):
        abstract = abstract_state(run.method, run.spec, batch_size, mesh, run.config.mesh)
        found = restore(known.run, run, abstract, known.checkpoint)
        key = keys_of(run.config.train.seed).evaluate
        metrics = make_evaluate(run.method, data, mesh, batch_size, key)(found.state, known.split)
    print(json.dumps({"step": found.step, "split": known.split, **metrics}))
    return 0


def restore(workdir: Path, run: Run, abstract: Any, which: str) -> Restored:
    """The run's state, laid out like `abstract`, from its `last` or `best` checkpoint, or from that of a step.

    Raises:
      ValueError: no such checkpoint, or none that is whole.
    """
    cfg = run.config.train
    checkpoints = Checkpoints(workdir / runs.CHECKPOINTS, best_metric=cfg.best_metric, best_mode=cfg.best_mode)
    step = checkpoints.best_step() if which == "best" else None
    if which == "best" and step is None:
        raise ValueError(f"no checkpoint in {workdir} carries {cfg.best_metric}; take --checkpoint last")
    if which not in ("last", "best"):
        if not which.isdigit():
            raise ValueError(f"--checkpoint takes last, best or a step, not {which!r}")
        step = int(which)
    found = checkpoints.restore(abstract, step)
    checkpoints.close()
    if found is None:
        raise ValueError(f"{workdir} has no checkpoint yet; train it first")
    return found


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"train": train, "sample": sample, "evaluate": evaluate}


def run_command(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Runs a command; an error that jaxgen raised itself is a message to the user, any other keeps its traceback."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns whenever a checkpoint carries no metric
    try:
        return command(args)
    except (ValueError, FileNotFoundError, NonFiniteError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not Path(frames[-1].filename).is_relative_to(Path(__file__).parent):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def main() -> int:
    """The console script `jaxgen`."""
    name, args = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in COMMANDS:
        print("usage: jaxgen COMMAND …\n\n" + "\n".join(f"  {c.__doc__}" for c in COMMANDS.values()))
        return 0 if name in ("-h", "--help") else 2
    return run_command(COMMANDS[name], args)
