"""Against gensim's own files and figures; word2vec/make.py made them, and checked that gensim reads jaxgen's."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxgen.interop.word2vec import read_word2vec, write_word2vec
from jaxgen.words.vectors import WordVectors

FILES = Path(__file__).parent / "word2vec"
GENSIM = json.loads((FILES / "gensim.json").read_text("utf-8"))
MATRIX = np.array(GENSIM["matrix"], np.float32)
VECTORS = WordVectors(tuple(GENSIM["words"]), MATRIX)


@pytest.mark.parametrize("name", ["gensim.txt", "gensim.bin", "jaxgen.txt", "jaxgen.bin"])
def test_files_are_read_to_the_bit(name):
    for binary in (None, name.endswith(".bin")):
        found = read_word2vec(FILES / name, binary=binary)
        assert list(found.words) == GENSIM["words"]
        np.testing.assert_array_equal(found.matrix, MATRIX)
    first = read_word2vec(FILES / name, num=3)
    assert list(first.words) == GENSIM["words"][:3] and first.matrix.shape == (3, 5)


@pytest.mark.parametrize("name", ["jaxgen.txt", "jaxgen.bin"])
def test_what_gensim_has_read_is_still_what_is_written(name, tmp_path):
    write_word2vec(tmp_path / name, VECTORS, binary=name.endswith(".bin"))
    assert (tmp_path / name).read_bytes() == (FILES / name).read_bytes()


def test_gensim_answers_the_same():
    found = VECTORS.most_similar(["king", "woman"], ["man"], num=3)
    assert [word for word, _ in found] == [word for word, _ in GENSIM["most_similar"]]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in GENSIM["most_similar"]], rtol=1e-5)
    scores = VECTORS.analogies(FILES / "questions.txt")
    for section, (correct, asked) in GENSIM["analogies"].items():
        assert scores["total" if section == "Total accuracy" else section][:2] == (correct, asked)
    similar = VECTORS.similarities(FILES / "pairs.tsv")
    assert similar.spearman == pytest.approx(GENSIM["spearman"])
    assert 100 * similar.skipped / (similar.pairs + similar.skipped) == pytest.approx(GENSIM["unknown_percent"])


def test_vectors_that_look_like_text_survive(tmp_path):
    """Bytes of a binary vector may spell a line feed, a space or a number."""
    bytes_ = np.frombuffer(b"\n\n  1 2 3 4 5\n 6 7 \n", np.float32)
    vectors = WordVectors(("a", "b"), np.stack([bytes_, -bytes_]))
    write_word2vec(tmp_path / "v.bin", vectors, binary=True)
    found = read_word2vec(tmp_path / "v.bin", binary=True)
    assert found.words == ("a", "b")
    np.testing.assert_array_equal(found.matrix, vectors.matrix)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "v"
    whole = (FILES / "gensim.bin").read_bytes()
    for content, message in (
        (whole[:-3], "ends at vector 10 of 10"),
        ((FILES / "gensim.txt").read_bytes()[:400], "ends or breaks at vector 7 of 10"),
        (b"{}", "is no word2vec file: it starts with b'{}'"),
        (b"1 2\n\xe9 1 2\n", "holds a word that is not UTF-8"),
        (b"2 2\na 1 2\nb 1 x\n", "vector 2 of 2 holds what is no number"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_word2vec(path)
    with pytest.raises(FileNotFoundError):
        read_word2vec(tmp_path / "absent")


def test_names_with_spaces_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot hold 'new york'"):
        write_word2vec(tmp_path / "v.txt", WordVectors(("new york",), np.zeros((1, 2))))
    assert not list(tmp_path.iterdir())
