"""Made-up texts that teach a language model one thing each, which the lecture says such models do.

- `copy`: 24 letters, and the same again: what is far back matters as much as what is near.
- `multitask`: translation word by word, questions about facts, reading; the task stands in the text and decides.
- `mappings`: words of four kinds, and a label that stands for each kind in this document alone: without examples the
  answer cannot be known, with one only where it is of the word's kind, with many it can.
- `parity`: whether a number of 8 bits has an odd number of ones, in half of the documents with the way to it.

The layout is that of `jaxgen.data.prompts`, whose prompts ask a trained model. What is asked in `test` of mappings and
parity is not in `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxgen.data.dataset import unknown
from jaxgen.data.documents import Document
from jaxgen.data.prompts import Example, prompt

TRAIN, HELD_OUT = 20_000, 500
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = dict(zip("cat dog bird fish tree house sun moon water stone".split(),
                 "chat chien oiseau poisson arbre maison soleil lune eau pierre".split(), strict=True))  # fmt: skip
COLOURS = dict(zip(WORDS, "black brown blue silver green white yellow grey clear red".split(), strict=True))
NAMES = ("ann", "bob", "cy", "dora", "eve")
KINDS = ("cat dog cow fox pig", "saw axe pen cup key", "fig pea yam nut oat", "run hop swim sing nod")
LABELS = ("dax", "wug", "blick", "zup", "fep", "toma", "kiki", "bouba")


def copy(rng: np.random.Generator, held_out: bool) -> str:
    """Letters, a bar, and the same letters."""
    letters = "".join(rng.choice(list(LETTERS), 24))
    return f"{letters}|{letters}"


def multitask(rng: np.random.Generator, held_out: bool) -> str:
    """One of three tasks on the same words."""
    words = [str(word) for word in rng.choice(list(WORDS), 3)]
    kind = rng.integers(3)
    if kind == 0:
        return prompt(" ".join(words), task="translate to french") + " " + " ".join(WORDS[word] for word in words)
    if kind == 1:
        return prompt(" ".join(words), task="say the colours") + " " + " ".join(COLOURS[word] for word in words)
    names = [str(name) for name in rng.choice(NAMES, 3, replace=False)]
    text = ", ".join(f"{name} has {word}" for name, word in zip(names, words, strict=True))
    i = rng.integers(3)
    return prompt(f"{text}. what has {names[i]}?", task="read and answer") + f" {words[i]}"


def labels_of(rng: np.random.Generator, held_out: bool) -> list[str]:
    """A label for each kind; a seventh of all assignments is held out."""
    while True:
        chosen = rng.permutation(len(LABELS))[: len(KINDS)].tolist()
        if (sum(label * (i + 1) for i, label in enumerate(chosen)) % 7 == 0) == held_out:
            return [LABELS[label] for label in chosen]


def mapping(rng: np.random.Generator, held_out: bool, shots: int) -> list[Example]:
    """So many words with their labels, and one more, no word twice."""
    labels = labels_of(rng, held_out)
    pairs = [(word, label) for kind, label in zip(KINDS, labels, strict=True) for word in kind.split()]
    return [Example(*pairs[i]) for i in rng.permutation(len(pairs))[: shots + 1].tolist()]


def mappings(rng: np.random.Generator, held_out: bool) -> str:
    """Words with their labels, from one to thirteen."""
    *shots, last = mapping(rng, held_out, int(rng.integers(13)))
    return f"{prompt(last.question, shots)} {last.answer}"


def parity_question(rng: np.random.Generator, held_out: bool) -> Example:
    """A number of 8 bits, whether its ones are odd, and, bit by bit, how that comes; a quarter of all is held out."""
    while True:
        number = int(rng.integers(256))
        if (37 * number % 256 < 64) == held_out:
            break
    bits = f"{number:08b}"
    running = np.cumsum([int(bit) for bit in bits]) % 2
    return Example(
        bits, "odd" if running[-1] else "even", " ".join(f"{b}:{p}" for b, p in zip(bits, running, strict=True))
    )


def parity(rng: np.random.Generator, held_out: bool) -> str:
    """A question and its answer, every second time with the way to it."""
    example = parity_question(rng, held_out)
    think = rng.random() < 0.5
    way = f" {example.reasoning}. so:" if think else ""
    return f"{prompt(example.question, think=think)}{way} {example.answer}"


TASKS: dict[str, Callable[[np.random.Generator, bool], str]] = {
    "copy": copy,
    "multitask": multitask,
    "mappings": mappings,
    "parity": parity,
}


def of_task(name: str) -> Iterator[Document]:
    """The documents of a task, the same each time; ValueError where there is none of that name."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    for split, num in (("train", TRAIN), ("validation", HELD_OUT), ("test", HELD_OUT)):
        rng = np.random.default_rng([len(split), num])
        for _ in range(num):
            yield Document(split, TASKS[name](rng, split == "test"))
