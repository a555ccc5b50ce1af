import numpy as np
import pytest

from jaxgen.words.vectors import Score, WordVectors, neighbors

# b − a + c = d exactly for man, woman, king, queen; apple lies elsewhere.
WORDS = ("man", "woman", "king", "queen", "apple")
MATRIX = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1], [0.1, 0.1, -1, 0]])
VECTORS = WordVectors(WORDS, MATRIX)


def test_similarity_is_the_cosine():
    assert VECTORS.similarity("man", "woman") == pytest.approx(1 / 2)
    assert VECTORS.similarity("king", "king") == pytest.approx(1)
    np.testing.assert_array_equal(VECTORS["queen"], [0, 1, 1, 1])
    assert "queen" in VECTORS and "prince" not in VECTORS and len(VECTORS) == 5


def test_most_similar_leaves_out_what_was_asked():
    assert [word for word, _ in VECTORS.most_similar("man", num=9)] == ["king", "woman", "queen", "apple"]
    assert VECTORS.most_similar("man", num=1)[0][1] == pytest.approx(2 / 6**0.5)
    (best, cosine), *rest = VECTORS.most_similar(["king", "woman"], ["man"])
    unit = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    mean = unit[2] + unit[1] - unit[0]
    assert best == "queen" and cosine == pytest.approx(mean @ unit[3] / np.linalg.norm(mean)) and len(rest) == 1


def test_neighbors_are_most_similar():
    found, cosines = neighbors(MATRIX, np.array([0, 4]), 2)
    for row, word in enumerate(("man", "apple")):
        expected = VECTORS.most_similar(word, num=2)
        assert [WORDS[i] for i in found[row]] == [word, *(w for w, _ in expected)]
        np.testing.assert_allclose(cosines[row], [1, *(c for _, c in expected)], rtol=1e-6)


def test_analogies_by_section():
    lines = [": people", "man woman king queen", "King QUEEN man woman", "man woman king prince", ": fruit"]
    lines += ["man king woman apple", "", "woman man queen king"]
    assert VECTORS.analogies(lines) == {"people": Score(2, 2, 1), "fruit": Score(1, 2, 0), "total": Score(3, 4, 1)}
    assert VECTORS.analogies(lines)["total"].accuracy == 3 / 4
    # Of the first three words alone nothing can be asked.
    assert VECTORS.analogies(lines, most_frequent=3)["total"] == Score(0, 0, 5)
    assert np.isnan(VECTORS.analogies([])["total"].accuracy)


def test_similarities_are_rank_correlated():
    """Cosines .5, .816, .058, .707 rank 2, 4, 1, 3; by hand 1 − 6 Σ d² / (n (n² − 1)) with d² = 0, 1, 0, 1."""
    lines = ["# man, woman, score", "man\twoman\t5", "Man\tking\t7", "man,apple,0.5", "queen king 9", "man prince 3"]
    cosines = [VECTORS.similarity(*pair) for pair in (("man", "woman"), ("man", "king"), ("man", "apple"))]
    assert cosines[2] < cosines[0] < VECTORS.similarity("queen", "king") < cosines[1]
    found = VECTORS.similarities(lines)
    assert found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15)) and (found.pairs, found.skipped) == (4, 1)
    assert np.isnan(VECTORS.similarities(lines[:2]).spearman)


def test_evaluations_read_files(tmp_path):
    (tmp_path / "questions.txt").write_text(": all\nman woman king queen\n")
    assert VECTORS.analogies(tmp_path / "questions.txt")["all"] == Score(1, 1, 0)


def test_vectors_do_not_change():
    matrix = MATRIX.astype(np.float32)
    vectors = WordVectors(WORDS, matrix)
    matrix[:] = 0
    assert vectors.matrix.any()
    with pytest.raises(ValueError, match="read-only"):
        vectors.matrix[0] = 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"no vector for 'quen' \(did you mean queen"):
        VECTORS["quen"]
    with pytest.raises(ValueError, match="needs a word to start from"):
        VECTORS.most_similar([])
    with pytest.raises(ValueError, match="line 2 of the questions is no `a b c d`: 'man woman king'"):
        VECTORS.analogies([": people", "man woman king"])
    with pytest.raises(ValueError, match="line 1 of the pairs is no `a b score`: 'man woman close'"):
        VECTORS.similarities(["man woman close"])
    with pytest.raises(ValueError, match=r"5 words need a matrix \[5, D\], not \(4, 4\)"):
        WordVectors(WORDS, MATRIX[:4])
    with pytest.raises(ValueError, match="1 words stand there twice"):
        WordVectors(("a", "b", "a"), MATRIX[:3])
