"""Every experiment in configs/ can be read, built and saved, and says how to run it."""

import ast
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import harness
from jaxgen import catalog
from jaxgen.config import MeshConfig, experiment_from_json, experiment_to_json, load_config
from jaxgen.data import SOURCES, Images, in_memory
from jaxgen.report.log import read_metrics

CONFIGS = sorted(Path(__file__).parent.parent.joinpath("configs").glob("*.py"))
# Experiments on data that is not bundled: the shape of an image, the number of classes, and a network that is small but
# has every part of the experiment's own.
ACCELERATOR = {
    "ddpm_cifar10": ((32, 32, 3), 10, {"width": 32, "multipliers": (1, 2), "num_blocks": 1}),
    "ddpm_imagenet64": ((64, 64, 3), 1000, {"width": 32, "multipliers": (1, 1), "num_blocks": 1}),
    "glow_cifar10": ((32, 32, 3), 10, {"width": 8, "steps": 2}),
}
LOSSES = {"glow_cifar10": (8, 9)}  # bits/dim: no model of uniform noise needs fewer than 8
PARAMETERS = {"ddpm_cifar10": 35_746_307, "ddpm_imagenet64": 121_575_942}  # 35.7 M and about 120 M in the papers


def stand_in(name, shrink=1):
    """Noise in the shape of the data, or smaller."""
    (*size, channels), num_classes, _ = ACCELERATOR[name]
    shape = (*(side // shrink for side in size), channels)
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (16, *shape), np.uint8), rng.integers(0, num_classes, 16, np.int32)
    splits = {split: {"image": image, "label": label} for split in ("train", "validation", "test")}
    names = {"label": tuple(map(str, range(num_classes)))}
    return in_memory(splits, names=names, sizes={"label": (num_classes,)})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path, monkeypatch):
    config = load_config(path)
    if path.stem in ACCELERATOR:
        assert config.data.name.startswith("tfds:")
        monkeypatch.setattr(Images, "load", lambda self: stand_in(path.stem))
    spec = config.data.load().spec
    method = catalog.make(config.method, spec)
    state = jax.eval_shape(method.init, jax.random.key(0), spec.batch(config.train.batch_size, method.reads))
    if path.stem in PARAMETERS:
        assert sum(leaf.size for leaf in jax.tree.leaves(state["params"])) == PARAMETERS[path.stem]
    tree = json.loads(json.dumps(experiment_to_json(config, catalog.kinds(), SOURCES)))
    assert experiment_from_json(tree, catalog.kinds(), SOURCES) == config
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring and f"python train.py configs/{path.name}" in docstring
    name, model = tree["method"]["name"], path.stem.split("_")[0]
    assert path.stem.startswith(name) or model.endswith(name)  # a paper's model ends in its method: dcgan, sngan


@pytest.mark.parametrize("name", ACCELERATOR)
def test_accelerator_configs_run_a_step_in_a_shrunk_form(name, monkeypatch, tmp_path):
    """The experiment's own mesh, options and types, on eight devices."""
    monkeypatch.setattr(Images, "load", lambda self: stand_in(name, shrink=2))
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    net = dataclasses.replace(config.method.net, **ACCELERATOR[name][2])
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, net=net))
    assert isinstance(config.mesh, MeshConfig) and config.mesh.data == -1
    config = harness.with_train(config, batch_size=8, log_every=1, sample_every=0, eval_every=0)
    harness.train(config, tmp_path, devices=8, steps=1)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    low, high = LOSSES.get(name, (0.5, 2))
    assert low < line["loss"] < high and np.isfinite(line["grad_norm"])
