import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
import toy_texts as texts
from jaxgen import cli
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Corpus, Spec
from jaxgen.interop.word2vec import read_word2vec, write_word2vec
from jaxgen.words import vectors, word2vec
from jaxgen.words.vectors import WordVectors

CONFIG = word2vec.Config(dim=24, chunk=8, subsample=0, learning_rate=0.05)
REVIEWS = Corpus("reviews", length=48, min_count=20)

# The smallest run of this method, for the suites that go over the whole catalog.
TINY = Experiment(
    method=word2vec.Config(dim=8, window=2, chunk=8, shared_negatives=4, decay_steps=8),
    data=REVIEWS,
    train=TrainConfig(batch_size=8),
)

EVERY = pytest.mark.parametrize(
    "softmax, objective, rate",
    [("negative", "skip_gram", 0.05), ("negative", "cbow", 0.2), ("hierarchical", "skip_gram", 0.05)],
)


def vectors_of(text, steps=200, **options):
    data = texts.dataset([text])
    params, losses = texts.trained(word2vec, dataclasses.replace(CONFIG, **options), data, steps, batch_size=16)
    return WordVectors(data.spec.names["tokens"], np.asarray(params["input"])), losses


@EVERY
def test_a_synonym_is_the_nearest_word(softmax, objective, rate):
    """Of 60 words in pairs among 140: measured 97, 98, 100 %."""
    text = texts.synonyms(30, 8000, np.random.default_rng(0))
    found, losses = vectors_of(text, softmax=softmax, objective=objective, learning_rate=rate)
    pairs = [(f"{a}{i}", f"{b}{i}") for i in range(30) for a, b in (("left", "right"), ("right", "left"))]
    hits = [found.most_similar(word, num=1)[0][0] == synonym for word, synonym in pairs]
    assert np.mean(hits) >= 0.95
    assert losses[-10:].mean() < 0.8 * losses[0]


@EVERY
def test_capitals_are_found_by_analogy(softmax, objective, rate):
    found, _ = vectors_of(
        texts.capitals(12, 6000, np.random.default_rng(0)),
        150,
        softmax=softmax,
        objective=objective,
        learning_rate=rate,
    )
    scores = found.analogies(texts.questions(12))
    assert scores["capitals"].asked == 132 and scores["capitals"].accuracy >= 0.8  # measured: 100 %


def test_untrained_loss_is_that_of_coin_flips():
    """Outputs start at 0, so every σ is 1/2: (1 + K) ln 2 a pair, but for noise words that are the true word."""
    data = texts.dataset([texts.synonyms(30, 500, np.random.default_rng(0))])
    for shared in (0, 32):
        _, losses = texts.trained(
            word2vec, dataclasses.replace(CONFIG, shared_negatives=shared), data, 1, batch_size=16
        )
        assert 0.97 * 6 * np.log(2) < losses[0] <= 6 * np.log(2)


def test_evaluation_is_the_loss_of_brute_force_with_whole_paths():
    """Hierarchical softmax, windows of one word, no subsampling: nothing is random but the tables."""
    from jaxgen.words.huffman import huffman

    text = [["b", "a", "c", "a"], ["a", "b"], ["c", "a", "d", "b", "a"]]
    data = texts.dataset([text, [["d", "a"]]], length=5)
    spec = data.spec
    cfg = dataclasses.replace(
        CONFIG, window=1, softmax="hierarchical", chunk=2, sample=word2vec.SampleConfig(num_neighbors=1)
    )
    method = word2vec.make(cfg, spec)
    batch = jax.tree.map(jnp.asarray, data.read("train", np.arange(spec.counts["train"]), method.reads))
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"input": jax.random.normal(keys[0], (4, 24)), "output": jax.random.normal(keys[1], (3, 24))}
    numerator, denominator = jax.jit(method.evaluate)({"params": params}, batch, jax.random.key(1))["loss"]

    paths, x, u = huffman(spec.frequencies["tokens"]), np.asarray(params["input"]), np.asarray(params["output"])
    rows = np.asarray(batch["tokens"]), np.asarray(batch["segment"])
    for row, (tokens, segment) in enumerate(zip(*rows, strict=True)):
        pairs = [
            (tokens[i], tokens[j])
            for i in range(5)
            for j in (i - 1, i + 1)
            if 0 <= j < 5 and segment[i] == segment[j] > 0
        ]
        loss = 0.0
        for center, word in pairs:
            for node, code in zip(paths.nodes[center], paths.codes[center], strict=True):
                z = (1 - 2 * int(code)) * float(u[node] @ x[word])
                loss += np.log1p(np.exp(-z)) if code >= 0 else 0.0
        assert float(denominator[row]) == len(pairs)
        assert float(numerator[row]) == pytest.approx(loss, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"softmax": "hierarchical"}, {"objective": "cbow"}, {"shared_negatives": 0}], ids=str
)
def test_any_number_of_devices_trains_the_same_vectors(options, tmp_path):
    """The same batches, words kept, windows and noise, and no sum across devices: the tables agree to the bit."""
    method = dataclasses.replace(TINY.method, learning_rate=0.5, **options)
    experiment = dataclasses.replace(TINY, method=method)
    changes = {"steps": 8, "sample_every": 0, "eval_every": 0, "save_every": 8, "log_every": 8}
    for devices in (1, 8):
        harness.train(experiment, tmp_path / str(devices), devices=devices, **changes)
    one, eight = (harness.saved_state(experiment, tmp_path / n, devices=1) for n in ("1", "8"))
    harness.assert_bitwise(one, eight)
    assert float(jnp.abs(one["params"]["output"]).max()) > 0.05  # it has moved


def test_columns_can_be_split_over_devices(tmp_path):
    """Dot products are then summed across devices: equal up to rounding."""
    split = harness.on_mesh(TINY, data=2, fsdp=2, tensor=2)
    changes = {"steps": 8, "sample_every": 0, "eval_every": 0, "save_every": 8, "log_every": 8}
    harness.train(split, tmp_path / "split", devices=8, **changes)
    harness.train(TINY, tmp_path / "whole", devices=1, **changes)
    state = harness.saved_state(split, tmp_path / "split", devices=8)
    assert state["params"]["input"].sharding.spec[1] == ("fsdp", "tensor")
    whole = harness.saved_state(TINY, tmp_path / "whole", devices=1)
    for name in ("input", "output"):
        np.testing.assert_allclose(state["params"][name], whole["params"][name], rtol=1e-5, atol=1e-7)


def test_a_runs_vectors_are_read_from_its_directory(tmp_path):
    harness.train(TINY, tmp_path / "run", steps=4, sample_every=4, num_samples=3)
    assert len((tmp_path / "run" / "samples" / "000004.txt").read_text("utf-8").splitlines()) == 3
    found = vectors.of_run(tmp_path / "run")
    spec = TINY.data.load().spec
    assert found.words == spec.names["tokens"] and found.words[0] == "the"
    state = harness.saved_state(TINY, tmp_path / "run")
    np.testing.assert_array_equal(found.matrix, state["params"]["input"])
    with pytest.raises(ValueError, match="no vectors of 'document'"):
        vectors.of_run(tmp_path / "run", "document")
    assert cli.sample([str(tmp_path / "run"), "--num", "5"]) == 0
    lines = (tmp_path / "run" / "samples.txt").read_text("utf-8").splitlines()
    assert len(lines) == 5 and all(len(line.split()) == 9 for line in lines)
    first, *near = lines[0].split()
    assert near == [word for word, _ in found.most_similar(first, num=8)]
    asked = ["--condition", "word=movie", "--condition", "word=the", "--out", str(tmp_path / "two.txt")]
    assert cli.sample([str(tmp_path / "run"), "--num", "2", *asked]) == 0
    two = (tmp_path / "two.txt").read_text("utf-8").splitlines()
    assert [line.split() for line in two] == [
        [word, *(near for near, _ in found.most_similar(word, num=8))] for word in ("movie", "the")
    ]
    with pytest.raises(ValueError, match=r"word has no value 'moviee' \(did you mean movie\?\)"):
        cli.sample([str(tmp_path / "run"), "--condition", "word=moviee"])
    write_word2vec(tmp_path / "words.txt", found)
    np.testing.assert_array_equal(read_word2vec(tmp_path / "words.txt").matrix, found.matrix)


def test_samples_are_words_and_their_nearest_ones():
    spec = texts.dataset([texts.capitals(12, 500, np.random.default_rng(0))]).spec
    method = word2vec.make(dataclasses.replace(CONFIG, sample=word2vec.SampleConfig(num_neighbors=3)), spec)
    table = jax.random.normal(jax.random.key(0), (len(spec.names["tokens"]), 24))
    state = {"params": {"input": table}}
    drawn = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(1), 500)["tokens"]
    shares = np.array(spec.frequencies["tokens"]) / sum(spec.frequencies["tokens"])
    assert drawn.shape == (500, 4) and np.isin([shares.argmax()], drawn[:, 0]).all()
    asked = method.sample(state, jax.random.key(1), 2, {"word": jnp.array([5, 9])})
    known = WordVectors(spec.names["tokens"], np.asarray(table))
    for row, similarity in zip(np.asarray(asked["tokens"]), np.asarray(asked["similarity"]), strict=True):
        expected = known.most_similar(known.words[row[0]], num=3)
        assert [known.words[i] for i in row[1:]] == [word for word, _ in expected]
        np.testing.assert_allclose(similarity, [1.0, *(s for _, s in expected)], rtol=1e-5)
    open_too = method.sample(state, jax.random.key(1), 2, {"word": jnp.array([-1, 9])})["tokens"][:, 0]
    np.testing.assert_array_equal(open_too, [method.sample(state, jax.random.key(1), 2)["tokens"][0, 0], 9])
    with pytest.raises(ValueError, match="cannot take the condition label; those it takes: word"):
        method.sample(state, jax.random.key(1), 2, {"label": jnp.zeros(2)})


SPEC = texts.dataset([[["a", "b", "c"] * 9]]).spec


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"objective": "skipgram"}, r"unknown method.objective='skipgram' \(did you mean skip_gram"),
        ({"softmax": "hierarchic"}, r"unknown method.softmax='hierarchic' \(did you mean hierarchical"),
        ({"window": 0}, "method.window=0 must be 1 or more"),
        ({"subsample": -1.0}, "method.subsample=-1.0 must be 0 or more"),
        ({"learning_rate": 0.0}, "method.learning_rate=0.0 must be above 0"),
        ({}, r"num_neighbors must lie in 1…2, .* the 3 words there are"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        word2vec.make(dataclasses.replace(CONFIG, **changes), SPEC)


def test_data_without_words_are_refused():
    images = Spec(shapes={"image": (8, 8, 1)}, dtypes={"image": "uint8"}, counts={"train": 8}, names={}, sizes={})
    with pytest.raises(ValueError, match=r"does not count its words; take a text, data=Corpus"):
        word2vec.make(CONFIG, images)
