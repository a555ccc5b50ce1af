"""The contract, checked on every method of the catalog and on the four toy shapes."""

import dataclasses
import functools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen import catalog
from jaxgen.config import experiment_from_json
from jaxgen.data import SOURCES, batch_at
from jaxgen.program import keys_of, make_evaluate
from jaxgen.report.log import read_metrics
from jaxgen.sharding import make_mesh

EXPERIMENTS = harness.experiments()
EVERY = pytest.mark.parametrize("name", EXPERIMENTS)


@functools.cache
def built(name):
    """Each method's experiment, data and functions, made once: what JAX has traced it finds again."""
    experiment = EXPERIMENTS[name]
    data = experiment.data.load()
    return experiment, data, catalog.make(experiment.method, data.spec)


@pytest.fixture(scope="module")
def first():
    """Each method's first state, batch and compiled step on one device, made once."""
    cache = {}

    def get(name):
        if name not in cache:
            experiment, data, method = built(name)
            size = experiment.train.batch_size
            batch = jax.tree.map(jnp.asarray, batch_at(data, seed=0, step=0, batch_size=size, keys=method.reads))
            cache[name] = batch, jax.jit(method.init), jax.jit(method.step)
        return cache[name]

    return get


def test_every_catalog_entry_has_a_tiny_experiment_beside_its_tests(monkeypatch):
    monkeypatch.setitem(catalog.CATALOG, "untested", (json.JSONDecoder, None))
    with pytest.raises(LookupError, match="untested has no tests"):
        harness.tiny("untested")


@EVERY
def test_the_config_survives_json(name):
    experiment = EXPERIMENTS[name]
    text = json.dumps(harness.document(experiment))
    assert experiment_from_json(json.loads(text), catalog.kinds(), SOURCES) == experiment


@EVERY
def test_init_is_a_function_of_its_key(name, first):
    batch, init, _ = first(name)
    a = init(jax.random.key(0), batch)
    harness.assert_bitwise(a, init(jax.random.key(0), batch))
    if name != "toy_kmeans":  # starts from the batch alone
        other = harness.leaves(init(jax.random.key(1), batch))
        assert any((value != other[path]).any() for path, value in harness.leaves(a).items())


@EVERY
def test_step_is_a_pure_function_that_keeps_the_states_layout(name, first):
    batch, init, step = first(name)
    state = init(jax.random.key(0), batch)
    before = harness.leaves(state)
    a, metrics = step(state, batch, jax.random.key(1))
    b, _ = step(state, batch, jax.random.key(1))
    harness.assert_bitwise(a, b)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, a)
    after = harness.leaves(a)
    assert any((after[path] != value).any() for path, value in before.items()), "the step changed nothing"
    assert "loss" in metrics
    for key, value in metrics.items():
        assert value.shape == () and np.isfinite(value), key


@EVERY
def test_sample_draws_num_things_from_its_key(name, first):
    method = built(name)[2]
    if method.sample is None:
        pytest.skip("does not sample")
    batch, init, _ = first(name)
    state, sample = init(jax.random.key(0), batch), jax.jit(method.sample, static_argnums=2)
    a, b = sample(state, jax.random.key(5), 4), sample(state, jax.random.key(5), 4)
    harness.assert_bitwise(a, b)
    for key, value in a.items():
        assert value.shape[0] == 4, key
    if "image" in a:
        assert a["image"].dtype == jnp.uint8 and a["image"].ndim == 4
    other = sample(state, jax.random.key(6), 4)
    assert any((np.asarray(a[key]) != np.asarray(other[key])).any() for key in a)


@EVERY
def test_evaluation_does_not_see_the_padding(name, first):
    """Over a split that no batch size divides, sums by hand; and the method's own sums are one an example."""
    experiment, data, method = built(name)
    if method.evaluate is None:
        pytest.skip("does not evaluate")
    batch, init, _ = first(name)
    state = init(jax.random.key(0), batch)
    key, size = method.reads[0], experiment.train.batch_size

    def evaluate(state, batch, noise):
        value = batch[key].astype(jnp.float32).reshape(size, -1).sum(1)
        own = method.evaluate(state, {name: batch[name] for name in method.reads}, noise)
        return {"value": (value, jnp.ones(size)), "weighted": (value, value**2), **own}

    small = data._replace(spec=dataclasses.replace(data.spec, counts={"validation": size + 3}))
    mesh, keys = make_mesh(experiment.mesh, jax.devices()[:1]), keys_of(0)
    with jax.set_mesh(mesh):
        metrics = make_evaluate(method._replace(evaluate=evaluate), small, mesh, size, keys.evaluate)(
            state, "validation"
        )
    numerators, denominators = jax.eval_shape(method.evaluate, state, batch, jax.random.key(0))["loss"]
    values = data.read("validation", np.arange(size + 3), (key,))[key].astype(float).reshape(size + 3, -1).sum(1)
    assert metrics["value"] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
    assert metrics["weighted"] == pytest.approx(values.sum() / (values**2).sum(), rel=1e-5, abs=1e-6)
    assert numerators.shape == denominators.shape == (size,)
    assert np.isfinite(metrics["loss"])


@EVERY
def test_donated_states_share_no_buffers(name, first):
    batch, init, _ = first(name)
    state = init(jax.random.key(0), batch)
    pointers = [
        x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    ]
    assert len(pointers) == len(set(pointers))


@EVERY
def test_resume_is_bitwise_on_one_device(name, tmp_path):
    """Train 4, stop, go on to 8 = train 8: parameters, optimizer, EMA and metrics; though one alone draws samples."""
    experiment = EXPERIMENTS[name]
    harness.train(experiment, tmp_path / "straight", steps=8)
    harness.train(experiment, tmp_path / "halves", steps=4, sample_every=0)
    harness.train(experiment, tmp_path / "halves", steps=8, sample_every=0)
    check_resumed(experiment, tmp_path, devices=1)


SHAPES = ["toy_gan", "toy_kmeans", "toy_lm", "toy_lora", "ddpm"]


@pytest.mark.parametrize("name", SHAPES)
def test_resume_is_bitwise_on_a_mesh_and_goes_on_with_one_device(name, tmp_path):
    """The same on 4×2 devices, the state split for real; then their checkpoint on 1: arrays bitwise, losses 1e-6."""
    experiment = harness.on_mesh(EXPERIMENTS[name], data=4, fsdp=2)
    harness.train(experiment, tmp_path / "straight", devices=8, steps=8)
    harness.train(experiment, tmp_path / "halves", devices=8, steps=4, sample_every=0)
    single = shutil.copytree(tmp_path / "halves", tmp_path / "single")
    harness.train(experiment, tmp_path / "halves", devices=8, steps=8, sample_every=0)
    state = check_resumed(experiment, tmp_path, devices=8)
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state)), "nothing is split"

    one = harness.on_mesh(EXPERIMENTS[name], data=1, fsdp=1)
    harness.assert_bitwise(
        harness.saved_state(experiment, single, devices=8, step=4), harness.saved_state(one, single, devices=1, step=4)
    )
    harness.train(one, single, devices=1, steps=8, sample_every=0)
    a, b = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("straight", "single"))
    for x, y in zip(a, b, strict=True):
        for metric in {"loss", "eval/loss"} & x.keys():
            # Of the run's largest loss: a GAN's is a difference of scores, which passes through 0 with their rounding.
            scale = max(abs(line[metric]) for line in a if metric in line)
            np.testing.assert_allclose(y[metric], x[metric], 1e-6, 1e-6 * scale, err_msg=f"{metric}, {x['step']}")


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)], ids=lambda shape: "x".join(map(str, shape)))
def test_resume_is_bitwise_on_every_topology(name, shape, tmp_path):
    """Replicas alone, a state split four ways, and tensor parallelism beside both."""
    experiment = harness.on_mesh(EXPERIMENTS[name], *shape)
    harness.train(experiment, tmp_path / "straight", devices=8, steps=8)
    harness.train(experiment, tmp_path / "halves", devices=8, steps=4)
    harness.train(experiment, tmp_path / "halves", devices=8, steps=8)
    state = check_resumed(experiment, tmp_path, devices=8)
    replicated = all(x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
    assert replicated == (shape == (8, 1, 1))


def check_resumed(experiment, folder, devices):
    straight, halves = (
        harness.saved_state(experiment, folder / run, devices, step=8) for run in ("straight", "halves")
    )
    harness.assert_bitwise(straight, halves)
    a, b = (read_metrics(folder / run / "metrics.jsonl") for run in ("straight", "halves"))
    assert a == b and a[-1]["step"] == 8
    return straight
