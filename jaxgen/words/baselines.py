"""The baselines that do not read word order: TF-IDF, and the mean of a document's word vectors.

  TF-IDF   x_dw = count(w in d) · (ln((1 + N) / (1 + N_w)) + 1), N documents, N_w of them with w; rows at length 1,

the smoothed form of scikit-learn. "John likes Mary" and "Mary likes John" are the same document to both.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix  # comes with jax


def count_matrix(tokens: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """How often each word stands in each document: `tokens` int32 [N, T] where `mask` [N, T] → float32 [N, V].

    `size` is V. The matrix is dense: 4 N V bytes.
    """
    num = len(tokens)
    cells = (np.arange(num)[:, None] * size + tokens)[np.asarray(mask, bool)]
    return np.bincount(cells, minlength=num * size).reshape(num, size).astype(np.float32)


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """ln((1 + N) / (1 + N_w)) + 1 of every word, from the counts [N, V] of the documents that it is learned on: [V]."""
    return (np.log((1 + len(counts)) / (1 + (counts > 0).sum(0))) + 1).astype(np.float32)


def tf_idf(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Documents as unit vectors, float32 [N, V]: counts [N, V] times `weights` [V]; one without words stays zero."""
    return _unit(counts * weights)


def mean_vectors(tokens: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The mean word vector of each document, [N, D]; zero without words.

    Documents as for `count_matrix`, whose counts stay sparse here; `matrix` [V, D] has a vector a word.
    """
    mask = np.asarray(mask, bool)
    lengths = mask.sum(1)
    words = np.concatenate([[0], np.cumsum(lengths)])  # where each document's begin
    counts = csr_matrix((np.ones(words[-1], matrix.dtype), tokens[mask], words), (len(tokens), len(matrix)))
    counts.sum_duplicates()  # in the words' order, so that another order in the text gives the same bits
    return counts @ matrix / np.maximum(lengths, 1)[:, None].astype(matrix.dtype)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
