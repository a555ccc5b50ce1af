"""A trained run, opened again: its method from config.json, its state on a mesh, samples of it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen import catalog, distributed, runs
from jaxgen.checkpoint import Checkpoints, Restored
from jaxgen.config import Experiment, MeshConfig, closest, experiment_from_json
from jaxgen.data import SOURCES, Spec
from jaxgen.method import Method
from jaxgen.program import abstract_state, keys_of, make_sample

CHUNK = 256  # samples drawn by one call of the compiled program


class Run(NamedTuple):
    """A run's config.json, read back: everything that its checkpoints need."""

    workdir: Path
    config: Experiment
    spec: Spec
    method: Method

    def with_sampling(self, options: Any) -> Run:
        """The same run, sampled with other options of the `sample` section of its method, or of what that wraps."""

        def changed(method: Any) -> Any:
            if hasattr(method, "base"):
                return dataclasses.replace(method, base=changed(method.base))
            return dataclasses.replace(method, sample=options)

        config = dataclasses.replace(self.config, method=changed(self.config.method))
        return self._replace(config=config, method=catalog.make(config.method, self.spec))


def open_run(workdir: Path) -> Run:
    """The run in `workdir`, from its config.json alone.

    Raises:
      FileNotFoundError: no run there.
      ValueError: its method or a field is unknown to this version, or holds a value of another type.
    """
    tree = runs.read_config(workdir)
    try:
        config = experiment_from_json(tree, catalog.kinds(), SOURCES)
        spec = Spec.from_json(tree.get("spec"))
    except ValueError as error:
        raise ValueError(f"{workdir / runs.CONFIG}: {error}") from None
    return Run(workdir, config, spec, catalog.make(config.method, spec))


def use_cores(batch_size: int, mesh: MeshConfig) -> None:
    """Makes every core a CPU device of its own: XLA's threads alone keep about 1.3 of 2 cores busy.

    As many devices as `mesh` multiplies to, over all processes; where one of its axes is -1, a multiple of the others'
    product, more than that only where the cores are there and each device gets 8 examples. Does nothing when the user
    has chosen the number of CPU devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes, num = (mesh.data, mesh.fsdp, mesh.tensor), distributed.num_processes()
    fixed = max(1, math.prod(size for size in sizes if size != -1))  # a size below 1 is make_mesh's to refuse
    count = max(1, fixed // num)
    if -1 in sizes:
        least = math.lcm(fixed, num) // num
        counts = range(least, min(cores, 8) + 1, least)
        count = max((n for n in counts if batch_size % (n * num) == 0 and batch_size // (n * num) >= 8), default=least)
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}".strip()


def layout(run: Run, mesh: Mesh) -> Any:
    """The state's shapes and its shardings on `mesh`."""
    return abstract_state(run.method, run.spec, run.config.train.batch_size, mesh, run.config.mesh)


def restore(run: Run, abstract: Any, which: str) -> Restored:
    """The run's state, laid out like `abstract`, from its `last` or `best` checkpoint, or from that of a step.

    Raises:
      ValueError: no such checkpoint, or none that is whole.
    """
    cfg, workdir = run.config.train, run.workdir
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


def chunk_size(mesh: Mesh, num: int, most: int = CHUNK) -> int:
    """`num` samples, or `most`, rounded up to what splits over the mesh: the surplus is drawn and thrown away."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-min(num, most) // ways) * ways


def draw_samples(
    run: Run,
    mesh: Mesh,
    state: Any,
    num: int,
    seed: int = 0,
    cond: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """`num` samples of the run, drawn in chunks that are split over the devices of `mesh`.

    Those of a method that `enumerates` are one chunk.

    Args:
      run: which run.
      mesh: the mesh that is set.
      state: the run's state on it.
      num: how many samples; the noise of the first n is the same whatever `num`.
      seed: other samples for another seed.
      cond: what is asked for, `{key: [num, ...]}` with the method's `conditions`, or None.
      progress: called with the number of samples drawn so far, after each chunk.
      chunk: samples a call of the compiled program, see `chunk_size`; other samples for another size.

    Raises:
      ValueError: the method does not sample, or takes no such condition.
    """
    chunk = chunk or chunk_size(mesh, num, num if run.method.enumerates else CHUNK)
    cond = dict(cond or {})
    for name in cond:
        if name not in run.method.conditions:
            hint = closest(name, run.method.conditions)
            raise ValueError(f"samples of {run.workdir} take no condition {name!r}{hint}")
    draw, key = make_sample(run.method, mesh), jax.random.fold_in(keys_of(run.config.train.seed).sample, seed)
    parts = []
    for i in range(-(-num // chunk)):
        rows = np.arange(i * chunk, (i + 1) * chunk) % num  # the last chunk is as large as the others
        part = draw(state, jax.random.fold_in(key, i), chunk, {name: x[rows] for name, x in cond.items()} or None)
        parts.append(jax.device_get(part))
        if progress:
            progress(min((i + 1) * chunk, num))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:num], *parts)
