import numpy as np
import pytest

from jaxgen.data import SOURCES, Corpus, Spec, batch_at
from jaxgen.data.corpus import count_words, encode, read_documents, split_words

TEXT = ["The cat sat. The dog sat!", "The cat ran", "A dog ran. (The end.) The cat", "The dog sat on a mat"]
KEYS = ("tokens", "segment", "document")


def load(tmp_path, text=TEXT, **options):
    (tmp_path / "text.txt").write_text("\n".join(text) + "\n")
    options = {"length": 4, "min_count": 2, "validation": 0} | options
    return Corpus(f"file:{tmp_path / 'text.txt'}", **options).load()


def test_source_is_named():
    assert SOURCES["corpus"] is Corpus


def test_words_and_sentences():
    text = "I don't KNOW the U.S. budget:\n$1,234.50 in the 21st century... \"Größe\" 'tis so? yes (no). End_of"
    assert split_words(text) == [
        ["i", "don't", "know", "the", "u", "s"],
        ["budget"],
        ["1,234.50", "in", "the", "21st", "century"],
        ["größe", "tis", "so"],
        ["yes", "no"],
        ["end", "of"],
    ]


def test_vocabulary_is_sorted_by_count_then_by_the_alphabet(tmp_path):
    spec = load(tmp_path).spec
    counts = {"the": 6, "cat": 3, "dog": 3, "sat": 3, "a": 2, "ran": 2}
    assert spec.names["tokens"] == tuple(counts) and spec.frequencies["tokens"] == tuple(counts.values())
    assert spec.sizes == {"tokens": (6,), "document": (4,)}
    assert spec.names["document"] == ("line_1", "line_2", "line_3", "line_4")
    assert spec.frequencies["document"] == (6, 3, 6, 4)  # "end", "on", "mat" are too rare
    assert count_words([["b", "a", "b"]], 1) == {"b": 2, "a": 1}


def test_rows_are_the_documents_end_to_end(tmp_path):
    data = load(tmp_path)
    assert data.spec.counts == {"train": 5} and data.spec.shapes == {key: (4,) for key in KEYS}
    rows = data.read("train", np.arange(5), KEYS)
    text = " ".join(data.spec.names["tokens"][i] for i in rows["tokens"].ravel()[:19])
    assert text == "the cat sat the dog sat the cat ran a dog ran the the cat the dog sat a"
    np.testing.assert_array_equal(
        rows["segment"], [[1, 1, 1, 2], [1, 1, 2, 2], [1, 2, 2, 2], [1, 2, 2, 3], [1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(
        rows["document"], [[0, 0, 0, 0], [0, 0, 1, 1], [1, 2, 2, 2], [2, 2, 2, 3], [3, 3, 3, 3]]
    )
    one = data.read("train", np.array([3]), ("tokens",))
    assert set(one) == {"tokens"} and (one["tokens"] == rows["tokens"][3]).all() and one["tokens"].dtype == np.int32


def test_held_out_documents_do_not_count(tmp_path):
    data = load(tmp_path, validation=1, min_count=1)
    (held,) = set(range(4)) - {int(name[-1]) - 1 for name in data.spec.names["document"]}
    words = [word for sentence in split_words(TEXT[held]) for word in sentence]
    rest = [w for i, line in enumerate(TEXT) if i != held for s in split_words(line) for w in s]
    assert sum(data.spec.frequencies["tokens"]) == len(rest)
    rows = data.read("validation", np.arange(data.spec.counts["validation"]), KEYS)
    there = rows["segment"] > 0
    assert [data.spec.names["tokens"][i] for i in rows["tokens"][there]] == [w for w in words if w in rest]
    assert (rows["document"] == -1).all()
    several = load(tmp_path, validation=2, min_count=1)
    found = several.read("validation", np.arange(several.spec.counts["validation"]), KEYS)
    assert set(found["document"][found["segment"] > 0]) == {-1, -2}
    again = load(tmp_path, validation=1, min_count=1)
    assert again.spec == data.spec


def test_the_spec_survives_json(tmp_path):
    spec = load(tmp_path).spec
    assert Spec.from_json(spec.to_json()) == spec
    without = {key: value for key, value in spec.to_json().items() if key != "frequencies"}
    old = Spec.from_json(without)  # as runs of other data, and older ones, have it
    assert old.frequencies == {} and old.to_json() == without


def test_batches_are_whole_rows_in_shuffled_order(tmp_path):
    data = load(tmp_path)
    seen = [batch_at(data, seed=0, step=i, batch_size=5, keys=("tokens",))["tokens"] for i in range(2)]
    everything = data.read("train", np.arange(5), ("tokens",))["tokens"]
    assert not (seen[0] == seen[1]).all()
    for batch in seen:
        assert sorted(map(tuple, batch)) == sorted(map(tuple, everything))


def test_speeches_and_reviews():
    speeches = Corpus(validation=0).load().spec
    assert speeches.sizes["document"] == (210,) and "Abraham_Lincoln_1863" in speeches.names["document"]
    assert speeches.names["tokens"][:3] == ("the", "of", "to") and 10_000 < speeches.sizes["tokens"][0] < 12_000
    assert len(read_documents("reviews")) == 10603


def test_phrases_become_words(tmp_path):
    text = ["new york is far", "old york is far", "new york is old", "new rome is near", "we like new york a lot"] * 5
    data = load(tmp_path, text, phrases=1, phrase_threshold=3.5)
    words = dict(zip(data.spec.names["tokens"], data.spec.frequencies["tokens"], strict=True))
    assert words["new_york"] == 15 and words["new"] == 5 and words["york_is"] == 5
    tokens, segment = encode(["A lot of New York. New", "is"], data.spec.names["tokens"])
    assert [data.spec.names["tokens"][i] for i in tokens[0][segment[0] == 2]] == ["new"]
    assert [data.spec.names["tokens"][i] for i in tokens[1][segment[1] > 0]] == ["is"]
    assert encode(["unknown"], ("a",))[1].tolist() == [[0]]
    assert "new_york" in [data.spec.names["tokens"][i] for i in tokens[0][segment[0] == 1]]


def test_folders_hold_a_document_a_file(tmp_path):
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "b.txt").write_text("one two three. one two")
    (tmp_path / "sub dir" / "a b.txt").write_text("one three")
    (tmp_path / "notes.md").write_text("four four four")
    spec = Corpus(f"folder:{tmp_path}", length=8, min_count=2, validation=0).load().spec
    assert spec.names == {"tokens": ("one", "three", "two"), "document": ("b", "sub_dir/a_b")}
    (tmp_path / "sub dir" / "a_b.txt").write_text("one three")
    with pytest.raises(ValueError, match="a b.txt and .*a_b.txt would both be the document sub_dir/a_b"):
        Corpus(f"folder:{tmp_path}").load()


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no text 'speech' \(did you mean speeches"):
        Corpus("speech").load()
    with pytest.raises(ValueError, match="min_count=0 must be 1 or more"):
        Corpus(min_count=0).load()
    with pytest.raises(FileNotFoundError, match="no text file"):
        Corpus(f"file:{tmp_path / 'absent.txt'}").load()
    with pytest.raises(FileNotFoundError, match="no .txt files in"):
        Corpus(f"folder:{tmp_path}").load()
    with pytest.raises(ValueError, match=r"has 1 word\(s\) that occur 6 times or more.*lower min_count"):
        load(tmp_path, min_count=6)
    with pytest.raises(ValueError, match=r"has 0 word\(s\)"):
        load(tmp_path, [""])
    (tmp_path / "latin.txt").write_bytes("Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8.*convert it first"):
        Corpus(f"file:{tmp_path / 'latin.txt'}").load()
