"""What the engine's tests share: the methods under test, and training them in a folder."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import toy_methods
from jaxgen import catalog, trainer
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Experiment, MeshConfig, experiment_to_json
from jaxgen.data import SOURCES, Images, Spec
from jaxgen.method import Method
from jaxgen.program import abstract_state
from jaxgen.sharding import make_mesh

TESTS = Path(__file__).parent


def tiny(name: str) -> Experiment:
    """The tiny experiment of a catalog entry: `TINY` in tests/<section>/test_<method>.py, beside the method's tests."""
    module = catalog.CATALOG[name][0].__module__
    path = TESTS.joinpath(*module.split(".")[1:-1], f"test_{module.split('.')[-1]}.py")
    if not path.is_file():
        raise LookupError(f"the catalog's {name} has no tests: {path.relative_to(TESTS.parent)} must define TINY")
    spec = importlib.util.spec_from_file_location(f"tiny_{name}", path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    experiment = getattr(found, "TINY", None)
    if not isinstance(experiment, Experiment):
        raise LookupError(f"{path.relative_to(TESTS.parent)} must define TINY, the tiny Experiment of {name}")
    train = dataclasses.replace(toy_methods.SHORT, batch_size=experiment.train.batch_size)
    return dataclasses.replace(experiment, train=train)


def experiments() -> dict[str, Experiment]:
    """Every method under the contract: the whole catalog, and the toys."""
    found = {name: tiny(name) for name in list(catalog.CATALOG) if name not in toy_methods.TOYS}
    toy_methods.register()
    return toy_methods.EXPERIMENTS | found


def with_train(experiment: Experiment, **changes: Any) -> Experiment:
    """The experiment with fields of its TrainConfig replaced."""
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **changes))


def method_of(experiment: Experiment, spec: Spec) -> Method:
    """The experiment's method: the same functions each time, so that JAX finds again what it has traced and compiled.

    Nothing is lost: a method is pure functions, whose state is what the trainer passes them.
    """
    return _made(experiment.method, json.dumps(spec.to_json()))


@functools.cache
def _made(config: Any, spec: str) -> Method:
    return catalog.make(config, Spec.from_json(json.loads(spec)))


def document(experiment: Experiment) -> dict[str, Any]:
    """What config.json holds."""
    spec = experiment.data.load().spec
    return experiment_to_json(experiment, catalog.kinds(), SOURCES) | {"spec": spec.to_json()}


def train(experiment: Experiment, workdir: Path, devices: int = 1, **changes: Any) -> trainer.Outcome:
    """Trains in `workdir` on the first so many devices."""
    experiment = with_train(experiment, **changes)
    data = experiment.data.load()
    method = method_of(experiment, data.spec)
    return trainer.train(experiment, method, data, workdir, document(experiment), jax.devices()[:devices])


def saved_state(experiment: Experiment, workdir: Path, devices: int = 1, step: int | None = None) -> Any:
    """The state of a checkpoint, on the first so many devices."""
    mesh = make_mesh(experiment.mesh, jax.devices()[:devices])
    spec = experiment.data.load().spec
    method = method_of(experiment, spec)
    abstract = abstract_state(method, spec, experiment.train.batch_size, mesh, experiment.mesh)
    checkpoints = Checkpoints(workdir / "checkpoints")
    found = checkpoints.restore(abstract, step)
    checkpoints.close()
    assert found is not None
    return found.state


def on_mesh(experiment: Experiment, data: int, fsdp: int, tensor: int = 1) -> Experiment:
    """The experiment on a mesh that splits even small arrays."""
    return dataclasses.replace(experiment, mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor, min_shard_size=8))


def leaves(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a state by path, keys as their numbers."""

    def plain(x):
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return {jax.tree_util.keystr(path): plain(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}


def optimised(function: Callable[..., Any]) -> Any:
    """`jax.jit` with the compiler's optimisation, without which the suite compiles: for what computes for long."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "1"})


def assert_bitwise(a: Any, b: Any) -> None:
    """Two states have the same structure and the same bits."""
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype, path
        assert a[path].shape == b[path].shape and a[path].tobytes() == b[path].tobytes(), path


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 digits as rows of values/16, float32 [1797, 64], and their labels."""
    data = Images("digits", validation=0).load()
    parts = [data.read(split, np.arange(data.spec.counts[split]), ("image", "label")) for split in ("train", "test")]
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("image", "label"))
    return images.reshape(len(images), -1).astype(np.float32) / 16, labels
