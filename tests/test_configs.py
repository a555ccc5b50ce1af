"""Every experiment in configs/ can be read, built and saved, and says how to run it."""

import ast
import json
from pathlib import Path

import jax
import pytest

from jaxgen import catalog
from jaxgen.config import experiment_from_json, experiment_to_json, load_config
from jaxgen.data import SOURCES

CONFIGS = sorted(Path(__file__).parent.parent.joinpath("configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    config = load_config(path)
    spec = config.data.load().spec
    method = catalog.make(config.method, spec)
    jax.eval_shape(method.init, jax.random.key(0), spec.batch(config.train.batch_size, method.reads))
    tree = json.loads(json.dumps(experiment_to_json(config, catalog.kinds(), SOURCES)))
    assert experiment_from_json(tree, catalog.kinds(), SOURCES) == config
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring and f"python train.py configs/{path.name}" in docstring
    assert path.stem.startswith(tree["method"]["name"])
