"""GPT: what the loss counts, that packing changes nothing, and texts of a small trained model."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen import cli, runs
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Text, batch_at
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import gpt
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.moe import MoeConfig
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.sharding import make_mesh
from jaxgen.start import restore_sources
from toy_texts import text_file

NET = TransformerConfig(num_layers=2, width=32, num_heads=2, context=64)
CONFIG = gpt.Config(NET, optimizer=AdamWConfig(3e-3, 10, b2=0.95, weight_decay=0.1), sample=SampleConfig(length=12))
FILE = text_file()
DATA = Text(f"file:{FILE}", "bytes", 56, "fit", validation=0.4, data_dir=FILE.rpartition("/")[0])
TINY = Experiment(CONFIG, DATA, TrainConfig(batch_size=16))
TEXTS = [json.loads(line)["text"] for line in Path(FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def data():
    return DATA.load()


@pytest.fixture(scope="module")
def trained(data):
    """The state after 250 steps, and the losses on the way."""
    method = gpt.make(CONFIG, data.spec)
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=16, keys=method.reads)
    state, step, losses = jax.jit(method.init)(jax.random.key(0), read(0)), jax.jit(method.step), []
    for i in range(250):
        state, metrics = step(state, read(i), jax.random.key(i))
        losses.append(float(metrics["loss"]))
    return state, losses


def totals(data, params, split, **changes):
    """Sums of nats and tokens, and of bits and bytes, over a split."""
    method = gpt.make(dataclasses.replace(CONFIG, **changes), data.spec)
    batch = data.read(split, np.arange(data.spec.counts[split]), method.reads)
    found = jax.jit(method.evaluate)({"params": params}, batch, jax.random.key(0))
    return {name: tuple(float(x.sum()) for x in pair) for name, pair in found.items()}


def test_the_initial_loss_is_that_of_guessing(trained):
    assert trained[1][0] == pytest.approx(math.log(257), abs=0.1)


def test_what_is_predicted():
    tokens, segment = jnp.array([[1, 2, 3, 4, 5, 0]]), jnp.array([[1, 1, 2, 2, 2, 0]])
    labels, weight = gpt.targets(tokens, segment)
    assert labels[0, :5].tolist() == [2, 3, 4, 5, 0] and weight.tolist() == [[1, 0, 1, 1, 0, 0]]
    assert gpt.targets(tokens, jnp.ones((1, 6), int))[1].tolist() == [[1, 1, 1, 1, 1, 0]]


def test_packing_changes_no_loss(data, trained):
    params = trained[0]["params"]
    packed = totals(data, params, "validation")
    for packing in ("none", "stream"):
        other = dataclasses.replace(DATA, packing=packing).load()
        assert other.spec.counts["validation"] > (packing == "none") * 2 * data.spec.counts["validation"]
        if packing == "none":
            alone = totals(other, params, "validation")
            assert alone["loss"][1] == packed["loss"][1]
            assert alone["loss"][0] == pytest.approx(packed["loss"][0], rel=1e-5)
        else:
            cut = totals(other, params, "validation")["loss"]
            assert cut[1] == packed["loss"][1] and cut[0] > packed["loss"][0]  # documents are cut, and lose context


def test_bits_are_of_the_texts_bytes(data, trained):
    found = totals(data, trained[0]["params"], "validation")
    held_out = np.random.default_rng(0).permutation(400)[-160:]
    assert found["bits_per_byte"][1] == sum(len(TEXTS[i].encode()) for i in held_out)
    assert found["loss"][1] == sum(len(TEXTS[i].encode()) + 1 for i in held_out)
    assert found["bits_per_byte"][0] == pytest.approx(found["loss"][0] / math.log(2), rel=1e-5)


def test_it_learns_the_texts(data, trained):
    """To near their entropy: who, verb, whom and the number of signs, ln 4 + ln 2 + ln 4 + ln 3 nats a text."""
    found = totals(data, trained[0]["params"], "validation")
    nats_a_text = found["loss"][0] / 160
    assert math.log(96) - 0.1 < nats_a_text < math.log(96) + 1.5
    method = gpt.make(dataclasses.replace(CONFIG, sample=SampleConfig(length=20)), data.spec)  # the longest has 17
    draw = jax.jit(method.sample, static_argnums=2)
    decode = Tokenizer(data.spec.tokenizer).decode
    texts = [decode(row) for row in np.asarray(draw(trained[0], jax.random.key(1), 32)["tokens"])]
    assert np.mean([text in set(TEXTS) for text in texts]) > 0.7
    prompt = np.array([[-1, 256, *b"bob l"], [256, *b"cy see"]], np.int32)
    texts = [decode(row) for row in np.asarray(draw(trained[0], jax.random.key(1), 2, {"prompt": prompt})["tokens"])]
    assert texts[0].startswith("bob likes ") and texts[1].startswith("cy sees ")


def test_accumulation_weighs_parts_by_their_tokens(data):
    batch = batch_at(data, seed=0, step=0, batch_size=8, keys=("tokens", "segment"))
    batch["segment"] = batch["segment"] * (np.arange(8)[:, None] % 3 != 0)  # some rows are empty, some full
    results = []
    for accumulate in (1, 4):
        cfg = dataclasses.replace(CONFIG, accumulate=accumulate, net=dataclasses.replace(NET, num_layers=1))
        method = gpt.make(cfg, data.spec)
        state = jax.jit(method.init)(jax.random.key(0), batch)
        results.append(jax.jit(method.step)(state, batch, jax.random.key(1))[1])
    for name in results[0]:
        assert results[0][name] == pytest.approx(float(results[1][name]), rel=1e-5)


def test_experts_add_their_terms_to_the_loss(data):
    """What is logged adds up, and every expert gets a gradient; padding is no token of theirs."""
    net = dataclasses.replace(NET, num_layers=1, width=16, hidden=16, moe=MoeConfig(4, 2, balance_weight=0.5))
    method = gpt.make(dataclasses.replace(CONFIG, net=net), data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=8, keys=method.reads)
    state = jax.jit(method.init)(jax.random.key(0), batch)
    after, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    metrics = {name: float(value) for name, value in metrics.items()}
    terms = 0.5 * metrics["router/balance"] + 0.001 * metrics["router/z"]
    assert metrics["loss"] == pytest.approx(metrics["lm_loss"] + terms, rel=1e-6)
    assert metrics["router/dropped"] == pytest.approx(0, abs=1e-6)
    padded = {**batch, "tokens": jnp.where(batch["segment"] > 0, batch["tokens"], 7)}
    assert (padded["tokens"] != batch["tokens"]).any(), "no row is padded"
    again = jax.jit(method.step)(state, padded, jax.random.key(1))[1]
    for name in ("router/balance", "router/z", "router/entropy"):
        assert float(again[name]) == metrics[name], name
    tight = dataclasses.replace(net, moe=dataclasses.replace(net.moe, capacity=0.5))
    few = jax.jit(gpt.make(dataclasses.replace(CONFIG, net=tight), data.spec).step)(state, batch, jax.random.key(1))[1]
    assert net.dropout == 0 and few["router/dropped"] > 0.1, "places are limited in training, without dropout too"
    assert 1 <= metrics["router/balance"] and 0 < metrics["router/entropy"] <= math.log(4)
    moments = after["opt_state"][1][0].mu["blocks"]["moe"]
    assert all((x != 0).any((2, 3)).all() for x in (moments["up"]["kernel"], moments["down"]["kernel"]))
    for changes, message in (
        ({"accumulate": 2}, "not exact with method.net.moe"),
        ({"core": "lstm"}, "core=transformer"),
    ):
        with pytest.raises(ValueError, match=message):
            gpt.make(dataclasses.replace(CONFIG, net=net, **changes), data.spec)


def test_decay_is_of_matrices_alone(data):
    params = jax.eval_shape(gpt.make_core("transformer", NET, 257).init, jax.random.key(0))
    kept = {jax.tree_util.keystr(p) for p, on in jax.tree_util.tree_leaves_with_path(gpt.decayed(params)) if not on}
    assert kept and all(any(name in path for name in ("bias", "scale", "positions")) for path in kept)


def test_an_lstm_of_equal_size(data):
    count = lambda core: sum(
        x.size for x in jax.tree.leaves(jax.eval_shape(gpt.make_core(core, NET, 257).init, jax.random.key(0)))
    )
    assert count("lstm") == pytest.approx(count("transformer"), rel=0.02)
    method = gpt.make(dataclasses.replace(CONFIG, core="lstm"), data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=16, keys=method.reads)
    state, step = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.step)
    losses = []
    for i in range(25):
        state, metrics = step(state, batch, jax.random.key(i))
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(math.log(257), abs=0.1) and losses[-1] < losses[0] - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": "gru"}, "unknown method.core='gru'"),
        ({"net": dataclasses.replace(NET, context=16)}, r"data\.length=56 tokens exceed method\.net\.context=16"),
        ({"net": dataclasses.replace(NET, causal=False)}, "causal"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"core": "lstm", "net": dataclasses.replace(NET, remat=True)}, r"neither net\.remat"),
        ({"sample": SampleConfig(stop=("<|stop|>",))}, r"no token '<\|stop\|>'"),
    ],
)
def test_bad_options_get_a_message(data, changes, message):
    with pytest.raises(ValueError, match=message):
        gpt.make(dataclasses.replace(CONFIG, **changes), data.spec)


def test_a_run_with_another_tokenizer_is_no_start(data, tmp_path):
    runs.write_config(tmp_path / "run", harness.document(TINY))
    experiment = dataclasses.replace(TINY, init_from={"pretrained": f"{tmp_path / 'run'}:params"})
    other = dataclasses.replace(data.spec, tokenizer="another")
    with pytest.raises(ValueError, match=r"another tokenizer than this data: give --data\.tokenizer run:.*/run"):
        restore_sources(experiment, gpt.make(CONFIG, data.spec), other, {}, make_mesh(MeshConfig()))


def test_the_commands_write_stream_and_refuse(tmp_path, monkeypatch, capsys):
    """A run of two steps: texts with prompts, the same text streamed, sampling options, what does not fit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt_tiny.py").write_text(
        "import dataclasses\nfrom test_gpt import TINY\nfrom jaxgen.config import TrainConfig\n"
        "config = dataclasses.replace(TINY, train=TrainConfig(steps=2, batch_size=8, eval_every=0, num_samples=2))\n"
    )
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    call = lambda command, *args: cli.run_command(cli.COMMANDS[command], [str(arg) for arg in args])
    assert call("train", "gpt_tiny.py", "--workdir", "run", "--mesh.data", 8) == 0
    assert (tmp_path / "run/samples/000002.txt").is_file()
    short = ["--length", 6, "--mesh.data", 8, "--condition", "ann "]
    assert call("sample", "run", "--num", 1, *short) == 0
    (text,) = [(tmp_path / "run/samples.txt").read_text("utf-8")]
    capsys.readouterr()
    assert call("sample", "run", "--stream", *short) == 0
    assert capsys.readouterr().out == text and text.startswith("ann ")
    assert call("sample", "run", "--stream", "--condition", 70 * "a") == 2
    assert "a prompt of 71 tokens fills net.context=64" in capsys.readouterr().err
    assert call("sample", "run", "--stream", "--beams", 2) == 2
