"""Text as tokens: what is read, kept and packed, and the tokenizers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxgen.data import SOURCES, Spec, Text, bundled, tokenizer
from jaxgen.data.tokenizer import Tokenizer

WORDS = "the cat sat on the mat and the dog sat on the cat in the hat with a bat".split()
TEXTS = [" ".join(np.random.default_rng(i).permutation(WORDS)[: 5 + i % 9]) + ", naïve ☃!" for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a .jsonl of classes, and a place for tokens."""
    path = tmp_path_factory.mktemp("texts")
    lines = [{"body": text, "kind": "cat" if "cat" in text else "none"} for text in TEXTS]
    (path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (path / "test.txt").write_text("the cat and the dog", "utf-8")
    return path


def source(folder, **options):
    options = {"tokenizer": "bytes", "length": 16, "field": "body", **options}
    return Text(f"folder:{folder}", data_dir=str(folder / "kept"), **options)


def read_all(data, split):
    return data.read(split, np.arange(data.spec.counts[split]), ("tokens", "segment"))


def documents_of(batch, begin):
    """The pieces of all rows, as lists of tokens."""
    return [
        row[segment == number].tolist()
        for row, segment in zip(batch["tokens"], batch["segment"], strict=True)
        for number in range(1, segment.max() + 1)
    ]


@pytest.mark.parametrize("packing", ["stream", "fit", "none"])
@pytest.mark.parametrize("kind", ["bytes", "bpe:300"])
def test_rows_hold_the_documents(folder, packing, kind):
    data = source(folder, packing=packing, tokenizer=kind, length=200, validation=0.1).load()
    inner = Tokenizer(data.spec.tokenizer)
    assert data.spec.counts.keys() == {"train", "validation", "test"}
    found = documents_of(read_all(data, "train"), inner.begin) + documents_of(read_all(data, "validation"), inner.begin)
    whole = [piece for piece in found if piece[0] == inner.begin and piece[-1] == inner.end]
    texts = [inner.decode(piece) for piece in whole]
    assert set(texts) <= set(TEXTS)
    assert packing == "stream" or sorted(texts) == sorted(TEXTS)
    (test,) = documents_of(read_all(data, "test"), inner.begin)
    assert inner.decode(test) == "the cat and the dog"


def test_text_is_tokenised_once(folder, monkeypatch):
    first = source(folder, tokenizer="bpe:270").load()
    kept = {path.name for path in (folder / "kept").iterdir()}
    monkeypatch.setattr(tokenizer, "train", None)
    again = source(folder, tokenizer="bpe:270").load()
    assert again.spec == first.spec and {path.name for path in (folder / "kept").iterdir()} == kept
    tokens = next(iter(folder.glob("kept/*/train.tokens"))).stat().st_size
    assert tokens > 0 and not list(folder.glob("kept/.*"))


def test_classes(folder):
    data = dataclasses.replace(
        source(folder, packing="none", label="kind", length=30), name=f"file:{folder / 'train.jsonl'}"
    ).load()
    assert data.spec.names["label"] == ("cat", "none") and data.spec.sizes["label"] == (2,)
    batch = data.read("train", np.arange(data.spec.counts["train"]), ("tokens", "segment", "label"))
    for tokens, segment, label in zip(*batch.values(), strict=True):
        text = Tokenizer("bytes").decode(tokens[segment > 0])
        original = next(t for t in TEXTS if t.encode().startswith(text.encode()[:25]))
        assert label == ("cat" not in original)


def test_reviews_with_sentiments():
    records = [r for r in bundled.records("reviews") if r["split"] == "test" and abs(r["rating"]) > 0.5]
    documents = [d for d in Text("reviews", label="sentiment").documents() if d.split == "test"]
    assert [d.label == "positive" for d in documents] == [r["rating"] > 0 for r in records]


def test_a_single_text_is_validated_on_its_end(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 90 + "y" * 10)
    data = Text(f"file:{tmp_path / 'a.txt'}", "bytes", 16, validation=0.1, data_dir=str(tmp_path)).load()
    for split, letter in (("train", "x"), ("validation", "y")):
        tokens = read_all(data, split)["tokens"]
        text = Tokenizer("bytes").decode(tokens[tokens > 0])
        assert set(text) == {letter}
    assert data.spec.counts == {"train": 7, "validation": 1}


def test_the_spec_carries_the_tokenizer(folder):
    spec = source(folder, tokenizer="bpe:300").load().spec
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert SOURCES["text"] is Text


def test_tokenizers_give_every_text_back():
    for inner in (Tokenizer("bytes"), tokenizer.train("bpe", 280, TEXTS)):
        for text in (*TEXTS, "other words\n\n  <|endoftext|> 日本", ""):
            tokens = inner.encode(text)
            assert inner.decode([inner.begin, *tokens, inner.end]) == text
            assert inner.num_bytes()[tokens].sum() == len(text.encode()), "the bytes of bits a byte"
            assert inner.begin not in tokens, "a document spelled the end of one"
        assert inner.num_bytes()[inner.end] == 0
        assert inner.library().encode(TEXTS[0], add_special_tokens=False).ids == inner.encode(TEXTS[0])
    assert len(inner.encode(TEXTS[0])) < len(TEXTS[0]) / 2 and inner.size == 280


def test_wordpiece():
    inner = tokenizer.train("wordpiece", 120, TEXTS)
    pieces = inner.encode("The CAT, sat")
    assert inner.decode(pieces).replace(" ,", ",") == "the cat, sat"
    assert inner.num_bytes() is None
    assert [inner.token(name) for name in tokenizer.WORDPIECE] == [0, 1, 2, 3, 4]
    assert (inner.begin, inner.end) == (2, 3)
    assert inner.special() == (0, 1, 2, 3, 4) and inner.piece(4) == "[MASK]"
    (cat,), (sat,) = inner.encode("cat"), inner.encode("sat")
    assert inner.encode_marked("[MASK] Cat[SEP]sat [MASK]") == [4, cat, 3, sat, 4]
    assert 4 not in inner.encode("[MASK]"), "a document spelled a blank"


@pytest.mark.parametrize("kind, size", [("wordpiece", 120), ("bpe", 300)])
def test_equal_texts_have_equal_vocabularies(kind, size):
    """Of words that are all equally frequent, so that the trainer has only ties to break."""
    texts = ["ann apples bob pears cy figs dora plums"] * 4
    assert len({tokenizer.train(kind, size, texts).saved for _ in range(5)}) == 1


def test_files_of_gpt2_and_bert(tmp_path):
    """Their formats, by hand: byte-level pairs with merges, and WordPiece by lines."""
    letters = ["a", "b", "c", "Ġ"]
    (tmp_path / "gpt2").mkdir()
    vocabulary = {piece: i for i, piece in enumerate([*letters, "ab", "Ġab", "<|endoftext|>"])}
    (tmp_path / "gpt2/vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "gpt2/merges.txt").write_text("#version: 0.2\na b\nĠ ab\n")
    gpt2 = tokenizer.read(tmp_path / "gpt2")
    assert gpt2.encode("abc ab c") == [4, 2, 5, 3, 2] and gpt2.begin == gpt2.end == 6 and gpt2.size == 7
    assert gpt2.decode([6, 4, 2, 5, 6]) == "abc ab"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    bert = tokenizer.read(tmp_path / "vocab.txt")
    assert bert.encode("Playing! [SEP] x")[:3] == [5, 6, 7] and bert.encode("zzz") == [1]
    again = Tokenizer(bert.saved)
    assert again.encode("playing") == [5, 6] and (again.begin, again.end) == (2, 3)


def test_a_runs_tokenizer(folder, tmp_path):
    spec = source(folder, tokenizer="bpe:300").load().spec
    part = {"name": "a", "config": {}}
    document = {"method": part, "data": part, "train": {}, "mesh": {}, "init_from": {}, "spec": spec.to_json()}
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert source(folder, tokenizer=f"run:{tmp_path}").load().spec.tokenizer == spec.tokenizer


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "speech"}, ValueError, "did you mean speeches"),
        ({"name": "file:absent.txt"}, FileNotFoundError, "no text file"),
        ({"tokenizer": "bpe"}, ValueError, "bpe:SIZE"),
        ({"tokenizer": "bpe:100"}, ValueError, "256 bytes and a separator come first"),
        ({"tokenizer": "words"}, ValueError, "unknown data.tokenizer='words'"),
        ({"packing": "tight"}, ValueError, "unknown data.packing='tight'"),
        ({"length": 1}, ValueError, "data.length=1 must be 2 or more"),
        ({"label": "kind"}, ValueError, "needs --data.packing none"),
        ({"label": "kind", "packing": "none"}, ValueError, "test.txt has no classes"),
        ({"field": "text"}, ValueError, "train.jsonl, line 1"),
    ],
)
def test_mistakes_get_a_message(folder, options, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(source(folder), **options).load()


def test_damaged_texts_get_a_message(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        Text(f"file:{tmp_path / 'a.txt'}", "bytes", data_dir=str(tmp_path)).load()
    with pytest.raises(ValueError, match="no saved tokenizer"):
        Tokenizer("{}")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="is no tokenizer that can be read"):
        tokenizer.read(Path(tmp_path))
