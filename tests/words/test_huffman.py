import numpy as np
import pytest

from jaxgen.words.huffman import huffman

COUNTS = (45, 16, 13, 12, 9, 5)  # the example of Cormen et al., Introduction to Algorithms, section 16.3


def turns(paths, word):
    return "".join(map(str, paths.codes[word][paths.codes[word] >= 0]))


def test_the_textbooks_tree():
    lengths = [len(turns(huffman(COUNTS), word)) for word in range(6)]
    assert lengths == [1, 3, 3, 3, 4, 4]
    assert sum(n * length for n, length in zip(COUNTS, lengths, strict=True)) == 224


def test_codes_are_prefix_free_and_complete():
    counts = np.random.default_rng(0).integers(1, 1000, 57)
    paths = huffman(counts)
    codes = [turns(paths, word) for word in range(57)]
    assert all(not a.startswith(b) for a in codes for b in codes if a != b)
    assert sum(2.0 ** -len(code) for code in codes) == 1  # Kraft's equality: no branch leads nowhere


def test_mean_length_is_within_one_turn_of_the_entropy():
    counts = np.random.default_rng(1).integers(1, 10_000, 300)
    p = counts / counts.sum()
    mean = sum(q * len(turns(huffman(counts), word)) for word, q in enumerate(p))
    entropy = -(p * np.log2(p)).sum()
    assert entropy <= mean < entropy + 1


def test_words_with_the_same_turns_so_far_stand_at_the_same_node():
    paths = huffman(COUNTS)
    node_of = {}
    for word in range(6):
        code = turns(paths, word)
        for i in range(len(code)):
            assert node_of.setdefault(code[:i], paths.nodes[word, i]) == paths.nodes[word, i]
    assert sorted(node_of.values()) == list(range(5)) and node_of[""] == 4  # every inner node once, V-2 the root
    assert (paths.nodes[paths.codes < 0] == 0).all()


def test_one_word_makes_no_tree():
    with pytest.raises(ValueError, match="needs two words, and there are 1"):
        huffman([3])
