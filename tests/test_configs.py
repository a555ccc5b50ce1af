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
from jaxgen.data import SOURCES, Images, Text, in_memory
from jaxgen.report.log import read_metrics

CONFIGS = sorted(Path(__file__).parent.parent.joinpath("configs").glob("*.py"))
# Experiments on data that is not bundled: the shape of an image, the number of classes, and a network that is small but
# has every part of the experiment's own.
ACCELERATOR = {
    "ddpm_cifar10": ((32, 32, 3), 10, {"width": 32, "multipliers": (1, 2), "num_blocks": 1}),
    "ddpm_imagenet64": ((64, 64, 3), 1000, {"width": 32, "multipliers": (1, 1), "num_blocks": 1}),
    "glow_cifar10": ((32, 32, 3), 10, {"width": 8, "steps": 2}),
}
# The same of language models: the shape of a network that is small.
LANGUAGE = {
    "gpt2_124m": {"num_layers": 2, "width": 32, "num_heads": 4, "context": 32},
    "llama_1b": {"num_layers": 2, "width": 32, "num_heads": 4, "num_kv_heads": 2, "hidden": 64, "context": 32},
}
# bits/dim: no model of uniform noise needs fewer than 8; nats: the first step's loss is that of guessing among 300.
LOSSES = {"glow_cifar10": (8, 9)} | dict.fromkeys(LANGUAGE, (np.log(300) - 0.1, np.log(300) + 0.1))
PARAMETERS = {
    "ddpm_cifar10": 35_746_307,  # 35.7 M and about 120 M in the papers
    "ddpm_imagenet64": 121_575_942,
    "gpt2_124m": 124_439_808 + 47 * 768,  # GPT-2's, and the rows that pad its vocabulary to a multiple of 128
    "llama_1b": 1_100_048_384,  # TinyLlama's
}


def stand_in(name, shrink=1):
    """Noise in the shape of the data, or smaller."""
    (*size, channels), num_classes, _ = ACCELERATOR[name]
    shape = (*(side // shrink for side in size), channels)
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (16, *shape), np.uint8), rng.integers(0, num_classes, 16, np.int32)
    splits = {split: {"image": image, "label": label} for split in ("train", "validation", "test")}
    names = {"label": tuple(map(str, range(num_classes)))}
    return in_memory(splits, names=names, sizes={"label": (num_classes,)})


def text_stand_in(length):
    """Bytes at random."""
    rows = np.random.default_rng(0).integers(0, 256, (16, length), np.int32)
    splits = {split: {"tokens": rows, "segment": np.ones_like(rows)} for split in ("train", "validation", "test")}
    data = in_memory(splits, sizes={"tokens": (257,)})
    return data._replace(spec=dataclasses.replace(data.spec, tokenizer="bytes"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path, monkeypatch):
    config = load_config(path)
    if path.stem in ACCELERATOR:
        assert config.data.name.startswith("tfds:")
        monkeypatch.setattr(Images, "load", lambda self: stand_in(path.stem))
    if path.stem in LANGUAGE:
        monkeypatch.setattr(Text, "load", lambda self: text_stand_in(self.length))
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
    # A paper's model ends in its method (dcgan, sngan), or is named after itself.
    named = path.stem.startswith(name) or path.stem.endswith(name) or model.endswith(name)
    assert named or path.stem in ("llama_1b", "bert_reviews")


@pytest.mark.parametrize("name", [*ACCELERATOR, *LANGUAGE])
def test_accelerator_configs_run_a_step_in_a_shrunk_form(name, monkeypatch, tmp_path):
    """The experiment's own mesh, options and types, on eight devices."""
    monkeypatch.setattr(Images, "load", lambda self: stand_in(name, shrink=2))
    monkeypatch.setattr(Text, "load", lambda self: text_stand_in(32))
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    small, more = (LANGUAGE[name], {"num_tokens": 300}) if name in LANGUAGE else (ACCELERATOR[name][2], {})
    net = dataclasses.replace(config.method.net, **small)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, net=net, **more))
    assert isinstance(config.mesh, MeshConfig) and config.mesh.data == -1
    config = harness.with_train(config, batch_size=8, log_every=1, sample_every=0, eval_every=0)
    harness.train(config, tmp_path, devices=8, steps=1)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    low, high = LOSSES.get(name, (0.5, 2))
    assert low < line["loss"] < high and np.isfinite(line["grad_norm"])
