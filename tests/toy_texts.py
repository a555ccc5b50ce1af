"""Texts made up for the tests, with the facts that vectors should hold."""

import atexit
import dataclasses
import functools
import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxgen.data import batch_at
from jaxgen.data.corpus import count_words, number_words, rows_of


def dataset(documents, length=64, min_count=1):
    """A `Dataset` of documents, each a list of sentences, which are lists of words; all of them train."""
    counts = count_words((sentence for document in documents for sentence in document), min_count)
    numbers = {word: i for i, word in enumerate(counts)}
    names = [f"document_{i}" for i in range(len(documents))]
    return rows_of({"train": number_words(documents, numbers)}, length, counts, names)


def synonyms(num_pairs, num_sentences, rng):
    """Sentences about one of `num_pairs` topics, in which two words mean the same: `left7` and `right7`.

    A topic goes with 12 of 80 words, each of which goes with several topics.
    """
    contexts = [rng.choice(80, 12, replace=False) for _ in range(num_pairs)]
    sentences = []
    for topic in rng.integers(num_pairs, size=num_sentences):
        context = [f"context{i}" for i in rng.choice(contexts[topic], 6)]
        sentences.append([*context[:3], f"{rng.choice(['left', 'right'])}{topic}", *context[3:]])
    return sentences


def capitals(num_countries, num_sentences, rng):
    """Sentences about a country or its capital: both go with the region's words, each with the words of its kind."""
    sentences = []
    for country in rng.integers(num_countries, size=num_sentences):
        kind = ("country", "capital")[rng.integers(2)]
        words = [f"{kind}_word{i}" for i in rng.integers(8, size=2)] + [
            f"region{country}_{i}" for i in rng.integers(3, size=2)
        ]
        sentences.append([words[0], words[2], f"{kind}{country}", words[1], words[3]])
    return sentences


def questions(num_countries):
    """Every analogy capital a : country a = capital b : country b."""
    pairs = [(a, b) for a in range(num_countries) for b in range(num_countries) if a != b]
    return [": capitals", *(f"capital{a} country{a} capital{b} country{b}" for a, b in pairs)]


def trained(module, config, data, steps, batch_size, seed=0):
    """The tables after so many steps, from 0, and the losses on the way."""
    method = module.make(dataclasses.replace(config, decay_steps=max(steps, 1)), data.spec)
    read = lambda step: batch_at(data, seed=seed, step=step, batch_size=batch_size, keys=method.reads)
    key_init, key_steps = jax.random.split(jax.random.key(seed))
    state, advance, losses = jax.jit(method.init)(key_init, read(0)), jax.jit(method.step), []
    for i in range(steps):
        state, metrics = advance(state, read(i), jax.random.fold_in(key_steps, i))
        losses.append(metrics["loss"])
    return state["params"], np.array(losses)


@functools.cache
def text_file(num: int = 400) -> str:
    """A .jsonl of short documents about who likes whom, in a folder that goes away with the process."""
    folder = tempfile.mkdtemp(prefix="jaxgen-texts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng, names, verbs = np.random.default_rng(0), ["ann", "bob", "cy", "dora"], ["likes", "sees"]
    lines = [
        {
            "text": f"{rng.choice(names)} {(verb := rng.choice(verbs))} {rng.choice(names)}" + "!" * int(i % 3),
            "verb": verb,
        }
        for i in range(num)
    ]
    path = Path(folder) / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@functools.cache
def story_file(num: int = 2000) -> str:
    """A .jsonl of documents of six sentences, each about a person and what is theirs: which fruit is whose is fixed.

    In a folder that goes away with the process, with a WordPiece tokenizer of these words, tokenizer.json, beside.
    """
    from jaxgen.data import tokenizer

    folder = Path(tempfile.mkdtemp(prefix="jaxgen-stories-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng, owners = np.random.default_rng(0), dict(ann="apples", bob="pears", cy="figs", dora="plums")
    tell = lambda name: f"{name} {rng.choice(['buys', 'eats'])} {owners[name]} ."
    stories = [" ".join(tell(name) for _ in range(6)) for name in rng.choice(list(owners), num)]
    path = folder / "stories.jsonl"
    path.write_text("\n".join(json.dumps({"text": story}) for story in stories))
    (folder / "tokenizer").mkdir()
    inner = tokenizer.train("wordpiece", 100, stories).library()
    (folder / "tokenizer/tokenizer.json").write_text(inner.to_str())
    return str(path)
