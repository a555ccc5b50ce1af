"""Pairs of texts: what follows, what is of another document, and how long they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.data import Text
from jaxgen.data.pairs import PASSES, chunks_of, draw_pair, pairs, sentences_of
from jaxgen.data.tokenizer import Tokenizer
from toy_texts import story_file

MARK, LENGTH = 3, 32
CHOSEN = SimpleNamespace(begin=1, end=2, size=10**6, saved="", encode=lambda mark: [MARK])


def corpus(num_documents=40, seed=0):
    """Documents of sentences that end with a mark; every other token is 10 and its place, which no other one is."""
    rng, tokens, offsets = np.random.default_rng(seed), [], [0]
    for _ in range(num_documents):
        sizes = rng.integers(2, 12, rng.integers(1, 9))
        text = [10] * int(sizes.sum())
        for end in np.cumsum(sizes) - 1:
            text[end] = MARK
        tokens += [1, *text, 2]
        offsets.append(len(tokens))
    tokens = np.array(tokens)
    return np.where(tokens == 10, 10 + np.arange(len(tokens)), tokens), np.array(offsets)


@pytest.fixture(scope="module")
def case():
    tokens, offsets = corpus()
    return tokens, offsets, pairs({"train": tokens}, {"train": offsets}, LENGTH, CHOSEN)


def test_sentences_by_hand():
    #                 0  1  2  3  4  5  6  7  8  9  10 11 12 13 14
    tokens = np.array([1, 7, 7, 3, 3, 8, 2, 1, 2, 1, 9, 3, 9, 3, 2])
    found = sentences_of(tokens, np.array([0, 7, 9, 15]), [3])
    assert found.starts.tolist() == [1, 5, 10, 12] and found.stops.tolist() == [5, 6, 12, 14]
    assert found.first.tolist() == [0, 2, 4], "the empty document has gone"
    assert chunks_of(found, 4).tolist() == [[0, 1], [2, 4]], "a chunk of one token cannot be cut in two"
    assert chunks_of(found, 5).tolist() == [[0, 2], [2, 4]]


def test_pairs_are_what_they_say(case):
    """By the tokens, each of which says where it stands."""
    tokens, offsets, data = case
    num = data.spec.counts["train"]
    batch = data.read("train", np.arange(num), ("tokens", "segment", "types", "label"))
    follows = 0
    for row, segment, types, label in zip(*batch.values(), strict=True):
        own = row[segment > 0]
        first, last = np.flatnonzero(own == 2)
        assert own[0] == 1 and last == len(own) - 1 and not row[len(own) :].any()
        assert types.tolist() == [0] * (first + 1) + [1] * (last - first) + [0] * (LENGTH - len(own))
        where = []
        for piece in (own[1:first], own[first + 1 : last]):
            known = np.flatnonzero(piece > MARK)
            if not len(known):
                break  # a mark alone does not say where it stands
            begin = piece[known[0]] - 10 - known[0]
            np.testing.assert_array_equal(tokens[begin : begin + len(piece)], piece)
            where.append((begin, begin + len(piece)))
        if len(where) < 2:
            continue
        a, b = (int(np.searchsorted(offsets, begin, "right")) for begin, _ in where)
        assert (a == b) == (label == 0)
        if label == 0 and len(own) < LENGTH:
            follows += 1
            assert where[0][1] == where[1][0], "not cut, and yet not side by side"
    assert follows > num / 8
    assert abs(batch["label"].mean() - 0.5) < 3 * 0.5 / num**0.5


def test_rows_are_functions_of_their_numbers_and_no_pass_is_the_other(case):
    _, _, data = case
    num = data.spec.counts["train"] // PASSES
    read = lambda i: data.read("train", np.array(i), ("tokens",))["tokens"]
    np.testing.assert_array_equal(read([5, 9]), np.stack([read([5])[0], read([9])[0]]))
    first, second = read(range(num)), read(range(num, 2 * num))
    assert 0.5 < (first != second).any(1).mean()


def test_the_length_does_not_tell_the_label():
    tokens, offsets = corpus(400, seed=1)
    sentences = sentences_of(tokens, offsets, [MARK])
    chunks, rng = chunks_of(sentences, 40), np.random.default_rng(0)
    drawn = [draw_pair(sentences, tuple(chunk), 40, rng) for chunk in chunks.tolist() for _ in range(8)]
    sizes = np.array([p.a[1] - p.a[0] + p.b[1] - p.b[0] for p in drawn])
    labels = np.array([p.label for p in drawn])
    assert sizes.max() == 40 and all(p.a[1] > p.a[0] and p.b[1] > p.b[0] for p in drawn)
    assert sizes[labels == 0].mean() == pytest.approx(sizes[labels == 1].mean(), rel=0.08)


def test_text_as_pairs_and_what_cannot_be(tmp_path):
    folder = story_file().rpartition("/")[0]
    source = lambda **changes: Text(
        **{"name": f"file:{story_file()}", "tokenizer": f"{folder}/tokenizer", "length": 32, "packing": "pairs"}
        | {"data_dir": str(tmp_path)} | changes
    )  # fmt: skip
    data = source().load()
    assert data.spec.names["label"] == ("next", "random") and data.spec.shapes == source().unread().shapes
    batch = data.read("validation", np.arange(data.spec.counts["validation"]), ("tokens", "types", "label"))
    inner = Tokenizer(data.spec.tokenizer)
    people = [{name for name in ("ann", "bob", "cy", "dora") if name in inner.decode(row)} for row in batch["tokens"]]
    by_label = [[len(found) for found, own in zip(people, batch["label"], strict=True) if own == i] for i in (0, 1)]
    assert set(by_label[0]) == {1}, "a story is of one person"
    assert np.mean(by_label[1]) == pytest.approx(1 + 3 / 4, abs=0.15), "others are of another one in three of four"
    with pytest.raises(ValueError, match=r"data\.length=4 must be 5 or more"):
        source(length=4).load()
    with pytest.raises(ValueError, match="validation has too few documents"):
        source(validation=1).load()
    few = source(few=7, few_seed=1).load()
    assert few.spec.counts["train"] == 7 and few.spec.counts["validation"] == data.spec.counts["validation"]
    kept = few.read("train", np.arange(7), ("tokens",))["tokens"]
    whole = data.read("train", np.arange(data.spec.counts["train"]), ("tokens",))["tokens"]
    assert all((whole == row).all(1).any() for row in kept)
    assert (kept != source(few=7).load().read("train", np.arange(7), ("tokens",))["tokens"]).any()
    with pytest.raises(ValueError, match=r"data\.few=99999"):
        source(few=99999).load()
