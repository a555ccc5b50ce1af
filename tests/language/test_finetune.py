"""One BERT, four heads: each learns a task of its own, spans are the best ones, what fits no task gets a message."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Annotated, batch_at
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import bert, finetune
from jaxgen.nets.bert import BERT, Bert
from jaxgen.optimizer import AdamWConfig
from toy_texts import story_file

FOLDER = Path(story_file()).parent
OWNERS, VERBS = {"ann": "apples", "bob": "pears"}, ("buys", "eats")
NET = dataclasses.replace(BERT, num_layers=2, width=32, num_heads=2, context=16, dropout=0.0)
CONFIG = finetune.Config(net=NET, optimizer=AdamWConfig(1e-3, 10))
STEPS = {"text": 100, "pair": 400, "span": 200, "tag": 100}  # whether two words are the same is the hardest


def line(kind, rng):
    """A text and what is told of it: whose it is, whether a verb is the same, who did it, the kinds of its words."""
    name, verb = rng.choice(list(OWNERS)), rng.choice(VERBS)
    other, also = rng.choice(["cy", "dora"]), rng.choice(VERBS)
    if kind == "text":
        return {"text": f"{other} {verb} {OWNERS[name]} .", "label": name}
    if kind == "pair":
        return {"text": f"{name} {verb} .", "pair": f"{other} {also} .", "label": str(verb == also)}
    if kind == "span":
        clauses = [f"{name} {verb} {OWNERS[name]} .", f"{other} {also} figs ."]
        return {"text": OWNERS[name], "pair": " ".join(rng.permutation(clauses)), "answer": f"{name} {verb}"}
    words = [other, verb, OWNERS[name], "."]
    return {"words": words, "tags": ["name", "verb", "fruit", None]}


def source(kind):
    path = FOLDER / f"{kind}.jsonl"
    if not path.exists():
        rng = np.random.default_rng(0)
        splits = ["train"] * 200 + ["validation"] * 40 + ["test"] * 40
        path.write_text("\n".join(json.dumps({**line(kind, rng), "split": split}) for split in splits))
    return Annotated(f"file:{path}", kind, str(FOLDER / "tokenizer"), 16)


TINY = Experiment(CONFIG, source("text"), TrainConfig(batch_size=16))


def whole(data, method, split="test"):
    return data.read(split, np.arange(data.spec.counts[split]), method.reads)


@pytest.mark.parametrize("task", STEPS)
def test_every_head_learns_its_task(task):
    data = source(task).load()
    method = finetune.make(dataclasses.replace(CONFIG, task=task), data.spec)
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=16, keys=method.reads)
    state, step, losses = jax.jit(method.init)(jax.random.key(0), read(0)), jax.jit(method.step), []
    with jax.debug_key_reuse(False):  # whose checks take longer than so small a step
        for i in range(STEPS[task]):
            state, metrics = step(state, read(i), jax.random.key(i))
            losses.append(metrics["loss"])
    guessing = {"text": 2, "pair": 2, "tag": 3}
    if task in guessing:
        assert losses[0] == pytest.approx(math.log(guessing[task]), abs=0.1)
    found = jax.jit(method.evaluate)(state, whole(data, method), jax.random.key(0))
    means = {name: float(num.sum() / den.sum()) for name, (num, den) in found.items()}
    assert means["accuracy"] > 0.8 and means["loss"] < 0.6, means
    assert task != "span" or means["f1"] >= means["accuracy"]


def test_rows_hold_what_is_told():
    """Classes, the answer's own tokens, and a tag at the first token of each word, [CLS] and [SEP] round all."""
    for task in STEPS:
        data, records = source(task).load(), [json.loads(x) for x in (FOLDER / f"{task}.jsonl").read_text().split("\n")]
        inner = Tokenizer(data.spec.tokenizer)
        key = {"span": "span", "tag": "tags"}.get(task, "label")
        batch = data.read("test", np.arange(40), ("tokens", "segment", "types", key))
        for record, tokens, segment, types, told in zip(records[-40:], *batch.values(), strict=True):
            own = tokens[segment > 0]
            assert own[0] == inner.begin and own[-1] == inner.end and (types[: len(own)] == 0).any()
            if task == "span":
                assert inner.decode(tokens[told[0] : told[1] + 1]) == record["answer"] and types[told].all()
            elif task == "tag":
                names = [data.spec.names["tags"][tag] if tag >= 0 else None for tag in told[: len(own)]]
                heads = [i for i, token in enumerate(own) if not inner.piece(int(token)).startswith("##")][1:-1]
                assert [names[i] for i in heads] == record["tags"] and names.count(None) == len(own) - 3
            else:
                assert data.spec.names["label"][told] == record["label"]
                assert inner.decode(own).replace(".", " .") == " ".join(
                    record[part] for part in ("text", "pair") if part in record
                )


def test_too_long_texts_are_cut_and_broken_lines_named(tmp_path):
    path = tmp_path / "a.jsonl"
    load = lambda kind, *lines, **changes: (
        path.write_text("\n".join(map(json.dumps, lines))),
        dataclasses.replace(source(kind), name=f"file:{path}", validation=0, **changes).load(),
    )[1]
    long = {"text": "ann " * 9, "pair": "bob " * 3 + "eats", "label": "x"}
    row = load("pair", long, length=12).read("train", np.arange(1), ("tokens", "types"))
    assert row["types"].sum() == 5 and (row["tokens"] > 0).all(), "the longer text was to lose"
    with pytest.raises(ValueError, match="cut off: raise data.length=8"):
        load("span", {**long, "answer": "eats", "text": "bob " * 3}, length=8)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: KeyError\('label'\)"):
        load("text", long, {"text": "ann"})
    with pytest.raises(ValueError, match="no 'cy' in 'bob"):
        load("span", {**long, "answer": "cy"})
    with pytest.raises(ValueError, match="would be learned"):
        load("text", long, tokenizer="wordpiece:100")


def test_tags_may_be_numbers_and_a_line_may_hold_what_splits_lines(tmp_path):
    """0 is a tag, null is none; U+2028 stands in a JSON string as it is; other files of a folder are left alone."""
    lines = [{"words": ["ann", "buys", "."], "tags": [0, 1, None]}, {"words": ["bob", "\u2028eats"], "tags": [0, 2]}]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "a.jsonl").write_text(text, "utf-8")
    (tmp_path / "readme.txt").write_text("not JSON")
    data = dataclasses.replace(source("tag"), name=f"folder:{tmp_path}", validation=0).load()
    assert data.spec.names["tags"] == ("0", "1", "2")
    told = data.read("train", np.arange(2), ("tags",))["tags"]
    assert [row[row >= 0].tolist() for row in told] == [[0, 1], [0, 2]]
    (tmp_path / "b.jsonl").write_bytes(b'{"words": ["\xff"], "tags": [1]}')
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1"):
        dataclasses.replace(source("tag"), name=f"folder:{tmp_path}", validation=0).load()


def test_spans_by_brute_force():
    start, end = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (2, 6, 9)))
    for s, e, found in zip(*map(np.asarray, (start, end, finetune.best_span(start, end))), strict=True):
        every = {(i, j): s[i] + e[j] for i in range(9) for j in range(i, 9)}
        assert tuple(found) == max(every, key=every.get)
    a, b = jnp.array([[2, 5], [2, 3], [7, 7]]), jnp.array([[4, 7], [5, 6], [7, 7]])
    np.testing.assert_allclose(finetune.overlap(a, b), [2 * 2 / 8, 0, 1])


def test_it_starts_from_a_pretrained_network():
    """Of which it takes all but the heads, bit for bit; they are tuned with the new one."""
    data, net = source("text").load(), Bert(NET, Tokenizer(source("text").load().spec.tokenizer).size)
    pretrained = jax.jit(net.init)(jax.random.key(9))
    method = finetune.make(CONFIG, data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=16, keys=method.reads)
    state = jax.jit(method.init)(jax.random.key(0), batch, {"pretrained": pretrained})
    params = state["params"]
    assert params.keys() == {"net", "pooler", "head"}
    jax.tree.map(np.testing.assert_array_equal, params["net"], pretrained["net"])
    jax.tree.map(np.testing.assert_array_equal, params["pooler"], pretrained["pooler"])
    step = jax.jit(method.step)
    state, _ = step(state, batch, jax.random.key(1))  # at the ramp's start, of rate 0
    tuned = step(state, batch, jax.random.key(2))[0]["params"]
    changed = jax.tree.map(lambda new, old: bool((new != old).any()), tuned, params)
    assert all(jax.tree.leaves(changed)), changed


def test_bad_options_get_a_message():
    spec = source("text").load().spec
    with pytest.raises(ValueError, match=r"unknown method\.task='texts'"):
        finetune.make(dataclasses.replace(CONFIG, task="texts"), spec)
    with pytest.raises(ValueError, match=r"method\.task=span reads span, which the data does not have"):
        finetune.make(dataclasses.replace(CONFIG, task="span"), spec)
    with pytest.raises(ValueError, match="BERT reads text"):
        bert.net_of(NET, None, dataclasses.replace(spec, tokenizer=""))
