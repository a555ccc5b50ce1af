"""The Huffman tree of a vocabulary, for the hierarchical softmax (Morin & Bengio 2005; Mikolov et al. 2013, 1310.4546).

Every inner node n holds a vector u_n, and a word w stands at the end of a path of left and right turns:

  P(w given h) = Π_{n on the path} σ(± u_n·h),   + where it turns left (code 0), − where it turns right (code 1).

The two turns at a node have probabilities that sum to 1, so all words' do. Frequent words have short paths: the mean
length is within one turn of the entropy of the counts, and a step costs O(log V) rather than O(V).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Paths(NamedTuple):
    """Each word's path from the root, padded to the longest."""

    nodes: np.ndarray
    """Inner nodes on the way, int32 [V, L] in 0 … V-2; V-2 is the root; 0 where padded."""
    codes: np.ndarray
    """The turns, int8 [V, L]: 0 left, 1 right, -1 where padded."""


def huffman(counts: Sequence[int]) -> Paths:
    """The paths of the words with these `counts` [V]; a pure function of them, ties broken by the words' order.

    Raises:
      ValueError: fewer than two words.
    """
    num = len(counts)
    if num < 2:
        raise ValueError(f"a Huffman tree needs two words, and there are {num}")
    heap = [(int(count), word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    parent, turn = np.zeros(2 * num - 2, np.int64), np.zeros(2 * num - 2, np.int8)
    for node in range(num, 2 * num - 1):  # words are 0 … V-1, inner nodes V … 2V-2, made from the leaves up
        (small, left), (large, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[left, right]], turn[right] = node, 1
        heapq.heappush(heap, (small + large, node))

    root = 2 * num - 2
    paths = []
    for word in range(num):
        path = []
        while word != root:
            path.append((parent[word] - num, turn[word]))
            word = parent[word]
        paths.append(path[::-1])
    longest = max(map(len, paths))
    nodes, codes = np.zeros((num, longest), np.int32), np.full((num, longest), -1, np.int8)
    for word, path in enumerate(paths):
        nodes[word, : len(path)], codes[word, : len(path)] = zip(*path, strict=True)
    return Paths(nodes, codes)
