import numpy as np
import pytest

from jaxgen.words.baselines import count_matrix, inverse_frequency, mean_vectors, tf_idf

TOKENS = np.array([[0, 1, 1, 2], [2, 2, 3, 0], [4, 0, 0, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])


def test_counts():
    counts = count_matrix(TOKENS, MASK, 6)
    np.testing.assert_array_equal(counts, [[1, 2, 1, 0, 0, 0], [0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
    assert counts.dtype == np.float32


def test_tf_idf_by_hand():
    counts = count_matrix(TOKENS, MASK, 6)
    rare, common, never = np.log(4 / 2) + 1, np.log(4 / 3) + 1, np.log(4 / 1) + 1
    weights = inverse_frequency(counts)
    np.testing.assert_allclose(weights, [rare, rare, common, rare, rare, never], rtol=1e-6)
    row = np.array([rare, 2 * rare, common, 0, 0, 0])
    np.testing.assert_allclose(tf_idf(counts, weights)[0], row / np.linalg.norm(row), rtol=1e-6)
    assert not tf_idf(np.zeros((1, 6)), weights).any()


def test_tf_idf_is_that_of_scikit_learn():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    counts = np.random.default_rng(0).poisson(0.5, (20, 30)).astype(np.float32)
    theirs = text.TfidfTransformer().fit_transform(counts).toarray()
    np.testing.assert_allclose(tf_idf(counts, inverse_frequency(counts)), theirs, rtol=1e-5, atol=1e-7)


def test_mean_vectors():
    matrix = np.arange(12.0).reshape(6, 2)
    means = mean_vectors(TOKENS, MASK, matrix)
    np.testing.assert_allclose(means[0], (matrix[0] + 2 * matrix[1] + matrix[2]) / 4)
    np.testing.assert_allclose(means, count_matrix(TOKENS, MASK, 6) @ matrix / MASK.sum(1)[:, None])
    np.testing.assert_array_equal(mean_vectors(TOKENS[:1], np.zeros((1, 4)), matrix), [[0, 0]])
