"""BERT: what the loss counts, what sees what, that both tasks are learned, and blanks that are filled."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Text, batch_at, condition
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import bert
from jaxgen.language.blanks import FillConfig, types_of
from jaxgen.language.embed import sentence_vectors
from jaxgen.language.masking import mask_tokens
from jaxgen.nets.bert import BERT, Bert
from jaxgen.nets.moe import MoeConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.report.samples import with_text
from toy_texts import story_file

FILE = story_file()
FOLDER = FILE.rpartition("/")[0]
NET = dataclasses.replace(BERT, num_layers=1, width=32, num_heads=2, context=32, dropout=0.0)
CONFIG = bert.Config(NET, optimizer=AdamWConfig(3e-3, 50), sample=FillConfig(length=5, top=2))
DATA = Text(f"file:{FILE}", f"{FOLDER}/tokenizer", 24, "pairs", validation=0.2, data_dir=FOLDER)
TINY = Experiment(CONFIG, DATA, TrainConfig(batch_size=16))


@pytest.fixture(scope="module")
def data():
    return DATA.load()


@pytest.fixture(scope="module")
def method(data):
    return bert.make(CONFIG, data.spec)


@pytest.fixture(scope="module")
def trained(data, method):
    """The first and the last state of 1000 steps, and their metrics."""
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=16, keys=method.reads)
    first = jax.jit(method.init)(jax.random.key(0), read(0))
    state, step, lines = first, jax.jit(method.step), []
    with jax.debug_key_reuse(False):  # whose checks take longer than so small a step
        for i in range(1000):
            state, metrics = step(state, read(i), jax.random.key(i))
            lines.append(metrics)
    return first, state, [{name: float(value) for name, value in line.items()} for line in lines]


def whole(data, split="validation"):
    keys = ("tokens", "segment", "types", "label")
    return jax.tree.map(jnp.asarray, data.read(split, np.arange(data.spec.counts[split]), keys))


def test_the_initial_losses_are_those_of_guessing(data, trained):
    line = trained[2][0]
    assert line["mlm_loss"] == pytest.approx(math.log(data.spec.sizes["tokens"][0]), abs=0.1)
    assert line["nsp_loss"] == pytest.approx(math.log(2), abs=0.05)
    assert line["loss"] == pytest.approx(line["mlm_loss"] + line["nsp_loss"], rel=1e-6)


def test_the_loss_is_of_the_chosen_tokens_alone(data, method, trained):
    """Against the log-probabilities of all tokens, of which those that the key chooses are picked by hand."""
    first, batch, net = trained[0], whole(data), Bert(NET, data.spec.sizes["tokens"][0])
    batch = jax.tree.map(lambda x: x[:16], batch)
    _, metrics = jax.jit(method.step)(first, batch, jax.random.key(7))
    tokenizer = Tokenizer(data.spec.tokenizer)
    free = (batch["segment"] > 0) & ~jnp.isin(batch["tokens"], jnp.array(tokenizer.special()))
    words = np.setdiff1d(np.arange(tokenizer.size), tokenizer.special()).astype(np.int32)
    key_mask, _ = jax.random.split(jax.random.key(7))
    masked = mask_tokens(key_mask, batch["tokens"], free, 0.15, tokenizer.token("[MASK]"), words)

    @jax.jit
    def everything(params):
        hidden = net.apply(params, masked.tokens, batch["segment"], batch["types"])
        return jax.nn.log_softmax(net.token_logits(params, hidden), -1)

    logs = np.asarray(everything(first["params"]))
    picked = [
        -logs[row, place, batch["tokens"][row, place]]
        for row in range(16)
        for place, weight in zip(masked.places[row].tolist(), masked.weight[row].tolist(), strict=True)
        if weight
    ]
    assert metrics["mlm_loss"] == pytest.approx(np.mean(picked), rel=1e-5)


def test_logits_depend_on_what_comes_later():
    """∂ logit of a token that is not there / ∂ the embedding of the one at j: it reaches i by what i sees alone."""
    net = Bert(NET, 40)
    params = jax.jit(net.init)(jax.random.key(0))
    tokens, segment = jnp.arange(10, 20)[None], jnp.array([[1] * 8 + [0] * 2])

    @jax.jit
    @jax.jacrev
    def jacobian(table):
        changed = {**params, "net": {**params["net"], "embed": {**params["net"]["embed"], "tokens": table}}}
        return net.token_logits(changed, net.apply(changed, tokens, segment))[0, :, 30]

    found = jnp.abs(jacobian(params["net"]["embed"]["tokens"])[:, 10:20]).max(-1)  # [i, j]
    assert (found[:8, :8] > 1e-7).all(), "a token does not see another one"
    assert (found[:8, 8:] == 0).all(), "a token sees the padding"


def test_accumulation_changes_nothing(data, trained):
    batch, results = jax.tree.map(lambda x: x[:16], whole(data)), []
    for accumulate in (1, 4):
        method = bert.make(dataclasses.replace(CONFIG, accumulate=accumulate), data.spec)
        results.append(jax.jit(method.step)(trained[0], batch, jax.random.key(1))[1])
    for name in results[0]:
        assert results[0][name] == pytest.approx(float(results[1][name]), rel=1e-5), name


def means_of(method, state, data):
    found = jax.jit(method.evaluate)(state, whole(data), jax.random.key(5))
    return {name: float(num.sum() / den.sum()) for name, (num, den) in found.items()}


def test_hidden_tokens_are_learned(data, method, trained):
    """Whose fruit it is tells a hidden name; verbs are of two kinds, which a quarter of ln 2 a token cannot be told."""
    means = means_of(method, trained[1], data)
    assert means["mlm_accuracy"] > 0.7 and math.log(2) / 8 < means["mlm_loss"] < 0.7


@pytest.mark.slow
def test_pairs_are_told_apart(data, method, trained):
    """As far as can be: half of the pairs are random, a quarter of these of the same person, 7 in 8 can be told."""
    state, step = trained[1], jax.jit(method.step)
    with jax.debug_key_reuse(False):
        for i in range(1000, 2500):
            batch = batch_at(data, seed=0, step=i, batch_size=16, keys=method.reads)
            state, _ = step(state, batch, jax.random.key(i))
    assert means_of(method, state, data)["nsp_accuracy"] > 0.8


def test_a_text_of_blanks_is_no_longer_than_the_context(data, trained):
    net = dataclasses.replace(NET, context=24)
    method = bert.make(dataclasses.replace(CONFIG, net=net, sample=FillConfig(length=40)), data.spec)
    state = jax.eval_shape(method.init, jax.random.key(0), jax.tree.map(lambda x: x[:1], whole(data)))
    assert jax.eval_shape(lambda state: method.sample(state, jax.random.key(0), 2), state)["tokens"].shape == (2, 24)


def test_experts_are_refused(data):
    with pytest.raises(ValueError, match="net.moe.num_experts=1"):
        bert.make(dataclasses.replace(CONFIG, net=dataclasses.replace(NET, moe=MoeConfig(4))), data.spec)


def test_sentence_vectors_are_each_texts_own_whatever_the_batch(data):
    """Means by hand of the vectors of each text alone; texts of all lengths, out of order, the longest cut."""
    inner = Tokenizer(data.spec.tokenizer)
    bare = Bert(NET, inner.size)
    params = jax.jit(bare.init)(jax.random.key(0))
    texts = ["ann buys apples .", "bob", "bob eats pears . " * 9, "ann eats apples . bob buys pears ."]
    found = sentence_vectors(bare, params, inner, texts, length=20, batch_size=3)
    for text, vector in zip(texts, found, strict=True):
        row = jnp.array([[inner.begin, *inner.encode(text)[:18], inner.end]])
        mean = np.asarray(bare.apply(params, row, jnp.ones_like(row))[0]).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    with pytest.raises(ValueError, match="length=33 must lie between 3 and net.context=32"):
        sentence_vectors(bare, params, inner, texts, length=33)


def test_blanks_are_filled_with_what_is_likely(data, method, trained):
    prompts = ("ann eats [MASK] .", "[MASK] buys pears . [SEP] ann [MASK] apples .")
    cond = condition.spread([condition.parse(data.spec, ("masked",), text) for text in prompts], 2)
    draw = jax.jit(method.sample, static_argnums=2)
    samples = jax.device_get(draw(trained[1], jax.random.key(0), 2, jax.tree.map(jnp.asarray, cond)))
    inner = Tokenizer(data.spec.tokenizer)
    piece = lambda row, place, rank=0: inner.piece(int(samples["candidates"][row, place, rank]))
    assert piece(0, 3) == "apples" and piece(1, 1) == "bob" and {piece(1, 7), piece(1, 7, 1)} == {"buys", "eats"}
    assert (samples["candidates"][0, :3] == -1).all() and samples["follows"][0] == -1
    assert samples["probability"][0, 3, 0] > 0.5 and 0 < samples["follows"][1] < 1
    first, second = with_text(samples, data.spec)["text"]
    assert first.startswith("ann eats apples.\n  blank 1: apples ") and "follows" not in first
    percent = f"{100 * samples['follows'][1]:.1f} %"
    assert second.split("\n")[-1] == f"  follows: {percent}" and "  blank 2: " in second
    kept = cond["masked"] != inner.token("[MASK]")
    np.testing.assert_array_equal(samples["tokens"][kept], cond["masked"][kept])
    own = np.asarray(draw(trained[1], jax.random.key(0), 8)["tokens"])
    assert own.shape == (8, 7) and not np.isin(own[:, 1:-1], inner.special()).any()


def test_types_by_separators():
    tokens = jnp.array([[2, 9, 3, 8, 3, -1, -1], [2, 9, 8, 7, 3, 6, 3]])
    assert types_of(tokens, 3, 2).tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_rate": 0.0}, r"mask_rate=0\.0 must lie in \(0, 1\)"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"num_tokens": 5}, "num_tokens=5 is fewer"),
        ({"net": dataclasses.replace(NET, causal=True)}, "sees both ways"),
        ({"net": dataclasses.replace(NET, context=8)}, r"data\.length=24 tokens exceed"),
        ({"sample": FillConfig(top=0)}, r"sample\.top=0"),
    ],
)
def test_bad_options_get_a_message(data, changes, message):
    with pytest.raises(ValueError, match=message):
        bert.make(dataclasses.replace(CONFIG, **changes), data.spec)


def test_data_that_do_not_fit_get_a_message(data):
    spec = dataclasses.replace(DATA, packing="stream").load().spec
    with pytest.raises(ValueError, match="packing pairs"):
        bert.make(CONFIG, spec)
    spec = dataclasses.replace(data.spec, tokenizer="bytes")
    with pytest.raises(ValueError, match=r"no token \[MASK\]"):
        bert.make(dataclasses.replace(CONFIG, num_tokens=300), spec)
