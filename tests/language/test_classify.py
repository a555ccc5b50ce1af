"""Fine-tuning a language model: what is read where, the two losses, and that it learns."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Annotated, Text, batch_at
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


WORDS = ("ann", "bob", "cy", "dora")


def told(kind, tmp_path):
    """Pairs that begin with the same name or not, and choices of which one repeats the text."""
    rng, lines = np.random.default_rng(0), []
    for i in range(200):
        name, other, verb = *rng.choice(WORDS, 2, replace=False), rng.choice(["eats", "buys"])
        if kind == "pair":
            same = bool(rng.integers(2))
            told = {"pair": f"{name if same else other} {verb}", "label": str(same)}
        else:
            choices = [str(name), str(other)]
            right = int(rng.integers(2))
            told = {"choices": choices[::-1] if right else choices, "label": right}
        lines.append({"text": str(name), "split": "train" if i < 150 else "test", **told})
    path = tmp_path / f"{kind}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return Annotated(f"file:{path}", kind, "bytes", 24, validation=0).load()


def test_a_choice_is_the_likeliest_of_its_rows(tmp_path):
    """Each is read by itself, and where it stands does not matter."""
    data = told("choice", tmp_path)
    method = classify.make(CONFIG, data.spec)
    batch = data.read("test", np.arange(50), method.reads)
    assert batch["tokens"].shape == (50, 2, 24) and data.spec.sizes["label"] == (2,)
    right = batch["tokens"][0, batch["label"][0]].tolist()
    end = right.index(256, 1)
    assert right[1:end] == right[end + 1 : 2 * end] and right[2 * end] == 256  # `begin A end A end`
    state, evaluate = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.evaluate)
    assert state["params"]["head"]["kernel"].shape == (32, 1)
    found = evaluate(state, batch, jax.random.key(0))
    turned = {name: batch[name][:, ::-1] for name in ("tokens", "segment")} | {"label": 1 - batch["label"]}
    again = evaluate(state, turned, jax.random.key(0))
    np.testing.assert_allclose(found["loss"][0], again["loss"][0], rtol=1e-4)
    np.testing.assert_allclose(found["lm_loss"][0], again["lm_loss"][0], rtol=1e-4)


def test_a_pair_without_an_order_is_read_in_both(tmp_path):
    data = told("pair", tmp_path)
    method = classify.make(dataclasses.replace(CONFIG, both_orders=True), data.spec)
    batch = data.read("test", np.arange(50), method.reads)
    swapped = np.asarray(classify.exchanged(*(jnp.asarray(batch[k]) for k in ("tokens", "segment", "types"))))
    for row, other, segment, types in zip(batch["tokens"], swapped, batch["segment"], batch["types"], strict=True):
        a, b = row[(segment > 0) & (types == 0)][1:-1], row[types == 1][:-1]
        begin, end = row[0], row[segment > 0][-1]
        np.testing.assert_array_equal(other[segment > 0], [begin, *b, end, *a, end])
    there = {**batch, "tokens": swapped}
    num_b = batch["types"].sum(1, keepdims=True)
    t, size = np.arange(24)[None], (batch["segment"] > 0).sum(1, keepdims=True)
    there["types"] = ((t >= num_b + 1) & (t < size)).astype(np.int32)
    state, evaluate = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.evaluate)
    found, again = (evaluate(state, x, jax.random.key(0)) for x in (batch, there))
    np.testing.assert_allclose(found["loss"][0], again["loss"][0], rtol=1e-4)
    once = jax.jit(classify.make(CONFIG, data.spec).evaluate)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(*(once(state, x, jax.random.key(0))["loss"][0] for x in (batch, there)), rtol=1e-4)


def test_bad_options_get_a_message(data):
    with pytest.raises(ValueError, match="both_orders is of pairs"):
        classify.make(dataclasses.replace(CONFIG, both_orders=True), data.spec)
    with pytest.raises(ValueError, match="aux_weight=-1"):
        classify.make(dataclasses.replace(CONFIG, aux_weight=-1.0), data.spec)
    spec = dataclasses.replace(DATA, label="").load().spec
    with pytest.raises(ValueError, match="has no classes"):
        classify.make(CONFIG, spec)
