"""Writes trained classifiers where readers ship: `python -m jaxgen.metrics.ship runs/classifier_faces …`.

The name of the run's directory becomes the reader's; its accuracy on the test split goes into the file's header.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax

from jaxgen.config import MeshConfig
from jaxgen.metrics import classifier, readers
from jaxgen.program import keys_of, make_evaluate
from jaxgen.sharding import make_mesh
from jaxgen.trained import layout, open_run, restore


def ship(workdir: Path, path: Path | None = None) -> Path:
    """Writes the classifier trained in `workdir` to `path`, by default beside the readers that ship.

    Raises:
      ValueError: the run is no classifier.
    """
    run = open_run(workdir)
    config, spec = run.config.method, run.spec
    if not isinstance(config, classifier.Config):
        raise ValueError(f"{workdir} is no run of a classifier")
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        state = restore(run, layout(run, mesh), "best").state
        key = keys_of(run.config.train.seed).evaluate
        evaluate = make_evaluate(run.method, run.config.data.load(), mesh, run.config.train.batch_size, key)
        metrics = evaluate(state, "test")
    labels = tuple(classifier.label_names(config.target, spec))
    accuracy = {name: metrics[f"accuracy/{name}"] for name in labels}
    return readers.save(
        workdir.name, config, labels, spec.sizes[config.target], spec.levels, state["ema"], accuracy, path
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(ship(Path(argument)))
