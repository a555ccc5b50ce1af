"""Pairs of texts, half of which follow each other: rows for BERT (Devlin et al. 2019, arXiv 1810.04805, appendix A.2).

  [CLS] A [SEP] B [SEP],   label `next` where B stands behind A in its document, `random` where it is of another one.

A document is cut into chunks of whole sentences, each as long as a row, and a chunk between two sentences into A and B;
in half of the pairs, sentences of another document take B's place, as many tokens as near as can be, lest the length
tell the label. A tenth of the chunks are cut short at random. What is too long loses tokens at either end, the longer
text first. Each training chunk makes several pairs, each with other draws, all of them functions of the row's number.

Deviations: a chunk of one sentence is cut inside it, where BERT's own script makes no pair that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxgen.data.dataset import Batch, Dataset, Spec
from jaxgen.data.tokenizer import Tokenizer

LABELS = ("next", "random")
PASSES = 4  # pairs that a training chunk makes; elsewhere one
SHORT = 0.1  # of chunks, those that are cut short
ENDS = ".!?"  # of sentences


class Sentences(NamedTuple):
    """Sentence s holds the tokens `starts[s]` … `stops[s]` - 1; document d the sentences from `first[d]` on."""

    starts: np.ndarray
    stops: np.ndarray
    first: np.ndarray


class Pair(NamedTuple):
    """Where A and B lie in the tokens, from … to, and the label."""

    a: tuple[int, int]
    b: tuple[int, int]
    label: int


def sentences_of(tokens: np.ndarray, offsets: np.ndarray, marks: Sequence[int]) -> Sentences:
    """Cuts documents into sentences behind every run of `marks`.

    Args:
      tokens: of all documents, each with a token before its first and one behind its last, which are left out.
      offsets: where each document begins, and at last where they end, int [N + 1].
      marks: tokens that end a sentence.
    """
    begins, ends = offsets[:-1] + 1, offsets[1:] - 1
    begins, ends = begins[ends > begins], ends[ends > begins]
    marked = np.isin(tokens, marks)
    cuts = np.flatnonzero(marked[:-1] & ~marked[1:]) + 1
    cuts = cuts[cuts < ends[np.searchsorted(begins, cuts, "right") - 1]]
    starts = np.sort(np.concatenate([begins, cuts]))
    document = np.searchsorted(begins, starts, "right") - 1
    stops = np.minimum(np.append(starts[1:], ends[-1:]), ends[document])
    return Sentences(starts, stops, np.searchsorted(document, np.arange(len(begins) + 1)))


def chunks_of(sentences: Sentences, room: int) -> np.ndarray:
    """Runs of sentences of one document, each the shortest of `room` tokens or more, or what is left: int [C, 2].

    Those of a single token, which cannot be cut into two, are left out.
    """
    found = []
    for first, last in zip(sentences.first[:-1].tolist(), sentences.first[1:].tolist(), strict=True):
        while first < last:
            full = int(np.searchsorted(sentences.stops, sentences.starts[first] + room))
            stop = min(full + 1, last)
            if sentences.stops[stop - 1] - sentences.starts[first] > 1:
                found.append((first, stop))
            first = stop
    return np.array(found, np.int64).reshape(-1, 2)


def draw_pair(sentences: Sentences, chunk: tuple[int, int], room: int, rng: np.random.Generator) -> Pair:
    """A pair of at most `room` tokens from the sentences `chunk[0]` … `chunk[1]` - 1."""
    starts, stops, documents = sentences
    first, last = chunk
    start = int(starts[first])
    if rng.random() < SHORT:
        last = min(last, int(np.searchsorted(stops, start + rng.integers(2, room + 1))) + 1)
    stop = int(stops[last - 1])
    middle = int(starts[rng.integers(first + 1, last)] if last > first + 1 else rng.integers(start + 1, stop))
    a, b, label = (start, middle), (middle, stop), int(rng.random() < 0.5)
    if label:
        here = int(np.searchsorted(documents, first, "right")) - 1
        other = int(rng.integers(len(documents) - 2))
        b = _other(sentences, other + (other >= here), stop - middle, rng)
    size_a, size_b = a[1] - a[0], b[1] - b[0]
    if size_a + size_b > room:
        kept = max(min(size_a, room // 2), room - size_b)
        a, b = _cut(a, kept, rng), _cut(b, room - kept, rng)
    return Pair(a, b, label)


def _other(sentences: Sentences, document: int, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Sentences of a document from a random one on, as near `size` tokens as can be."""
    first, last = sentences.first[document], sentences.first[document + 1]
    starts, stops = sentences.starts[first:last], sentences.stops[first:last]
    # Of the sentences behind which there are as many tokens, where there are such.
    begin = rng.integers(max(1, np.searchsorted(starts, stops[-1] - size, "right")))
    end = begin + np.abs(stops[begin:] - starts[begin] - size).argmin()
    return int(starts[begin]), int(stops[end])


def _cut(piece: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[int, int]:
    """`size` tokens of a piece; each of those that go is of its front or its back, at random."""
    front = int(rng.binomial(piece[1] - piece[0] - size, 0.5))
    return piece[0] + front, piece[0] + front + size


def pairs(
    tokens: Mapping[str, np.ndarray], offsets: Mapping[str, np.ndarray], length: int, chosen: Tokenizer
) -> Dataset:
    """Rows of pairs: `tokens`, `segment` (1, and 0 where the row is padded), `types` (1 from B on), `label`.

    Args:
      tokens: split → its tokens.
      offsets: split → where each document begins, see `sentences_of`.
      length: tokens of a row.
      chosen: their tokenizer.

    Raises:
      ValueError: rows without room, a split of a single document, or nothing to pair.
    """
    room = length - 3
    if room < 2:
        raise ValueError(f"data.length={length} must be 5 or more: a row holds [CLS], two texts and two [SEP]")
    marks = [found[0] for mark in ENDS if len(found := chosen.encode(mark)) == 1]
    sentences = {split: sentences_of(tokens[split], offsets[split], marks) for split in tokens}
    chunks = {split: chunks_of(found, room) for split, found in sentences.items()}
    for split in sentences:
        if len(sentences[split].first) < 3 or not len(chunks[split]):
            raise ValueError(f"the split {split} has too few documents: half of the pairs are of two different ones")
    keys = ("tokens", "segment", "types")
    spec = Spec(
        shapes={**dict.fromkeys(keys, (length,)), "label": ()},
        dtypes=dict.fromkeys((*keys, "label"), "int32"),
        counts={split: len(found) * (PASSES if split == "train" else 1) for split, found in chunks.items()},
        names={"label": LABELS},
        sizes={"tokens": (chosen.size,), "label": (len(LABELS),)},
        tokenizer=chosen.saved,
    )

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        rows, labels = np.zeros((3, len(indices), length), np.int32), np.zeros(len(indices), np.int32)
        for row, index in enumerate(np.asarray(indices).tolist()):
            rng = np.random.default_rng([len(split), index])
            first, last = chunks[split][index % len(chunks[split])].tolist()
            drawn = draw_pair(sentences[split], (first, last), room, rng)
            a, b = (tokens[split][slice(*piece)] for piece in (drawn.a, drawn.b))
            write_pair(rows[:, row], a, b, chosen)
            labels[row] = drawn.label
        batch = {"tokens": rows[0], "segment": rows[1], "types": rows[2], "label": labels}
        return {key: batch[key] for key in keys}

    return Dataset(spec, read)


def write_pair(
    row: np.ndarray, a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, chosen: Tokenizer
) -> None:
    """Writes [CLS] a [SEP] b [SEP], or [CLS] a [SEP] where `b` is empty, into zeros: tokens, segment, types, [3, T]."""
    whole = [chosen.begin, *a, chosen.end, *((*b, chosen.end) if len(b) else ())]
    row[0, : len(whole)], row[1, : len(whole)] = whole, 1
    row[2, len(a) + 2 : len(whole)] = 1
