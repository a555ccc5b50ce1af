"""Training from a script: experiments in one process, one after the other."""

from __future__ import annotations

from pathlib import Path

import jax

from jaxgen import backend, catalog, trainer
from jaxgen.config import Experiment, experiment_to_json
from jaxgen.data import SOURCES
from jaxgen.program import keys_of, make_evaluate
from jaxgen.sharding import make_mesh
from jaxgen.trained import layout, open_run, restore, use_cores


def train(config: Experiment, workdir: Path) -> Path:
    """Trains, or goes on with, a run as `train.py` does, and returns its directory."""
    backend.prepare(config.train)
    use_cores(config.train.batch_size, config.mesh)
    data = config.data.load()
    method = catalog.make(config.method, data.spec)
    document = experiment_to_json(config, catalog.kinds(), SOURCES) | {"spec": data.spec.to_json()}
    print(f"{workdir}:")
    trainer.train(config, method, data, workdir, document)
    return workdir


def figures(workdir: Path, split: str = "test") -> dict[str, float]:
    """The metrics of a run's best checkpoint over a split."""
    run = open_run(workdir)
    data, mesh = run.config.data.load(), make_mesh(run.config.mesh)
    with jax.set_mesh(mesh):
        state = restore(run, layout(run, mesh), "best").state
        evaluate = make_evaluate(
            run.method, data, mesh, run.config.train.batch_size, keys_of(run.config.train.seed).evaluate
        )
        return evaluate(state, split)
