"""Fine-tuning a language model: what is read where, the two losses, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text, batch_at
from jaxgen.language import classify, gpt
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig
from toy_texts import text_file

NET = TransformerConfig(num_layers=1, width=32, num_heads=2, context=24)
CONFIG = classify.Config(NET, optimizer=AdamWConfig(3e-3, 10, b2=0.95))
FILE = text_file()
DATA = Text(f"file:{FILE}", "bytes", 24, "none", label="verb", data_dir=FILE.rpartition("/")[0])
TINY = Experiment(CONFIG, DATA, TrainConfig(batch_size=16))


@pytest.fixture(scope="module")
def data():
    return DATA.load()


@pytest.fixture(scope="module")
def first(data):
    method = classify.make(CONFIG, data.spec)
    batch = jax.tree.map(jnp.asarray, batch_at(data, seed=0, step=0, batch_size=32, keys=method.reads))
    return method, batch, jax.jit(method.init)(jax.random.key(0), batch)


def test_the_last_token():
    assert classify.last_token(jnp.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])).tolist() == [2, 0, 3]


def test_the_loss_is_that_of_the_classes_and_half_of_the_models(first, data):
    """Of a model that starts from a run of gpt: its loss, and a head's that knows nothing yet, ln 2."""
    method, batch, _ = first
    model = gpt.make(gpt.Config(NET), data.spec)
    pretrained = jax.jit(model.init)(jax.random.key(5), batch)["params"]
    state = jax.jit(method.init)(jax.random.key(0), batch, {"pretrained": pretrained})
    nats, count = jax.jit(model.evaluate)({"params": pretrained}, batch, jax.random.key(0))["loss"]
    _, metrics = jax.jit(method.step)(state, batch, jax.random.key(0))
    assert metrics["lm_loss"] == pytest.approx(float(nats.sum() / count.sum()), rel=1e-5)
    assert metrics["class_loss"] == pytest.approx(np.log(2), abs=0.05)
    assert metrics["loss"] == pytest.approx(float(metrics["class_loss"] + 0.5 * metrics["lm_loss"]), rel=1e-6)


def test_it_learns_and_nothing_behind_a_text_counts(first, data):
    method, batch, state = first
    step = jax.jit(method.step)
    for i in range(80):
        state, _ = step(state, batch_at(data, seed=0, step=i, batch_size=32, keys=method.reads), jax.random.key(i))
    evaluate = jax.jit(method.evaluate)
    found = evaluate(state, batch, jax.random.key(0))
    assert float(found["accuracy"][0].mean()) > 0.9
    padded = {**batch, "tokens": jnp.where(batch["segment"] > 0, batch["tokens"], 99)}
    again = evaluate(state, padded, jax.random.key(0))
    np.testing.assert_array_equal(found["loss"][0], again["loss"][0])


def test_bad_options_get_a_message(data):
    with pytest.raises(ValueError, match="aux_weight=-1"):
        classify.make(dataclasses.replace(CONFIG, aux_weight=-1.0), data.spec)
    spec = dataclasses.replace(DATA, label="").load().spec
    with pytest.raises(ValueError, match="has no classes"):
        classify.make(CONFIG, spec)
