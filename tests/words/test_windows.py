import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.words.windows import close_up, pair_up, take_chunk

WINDOW, CHUNK = 2, 3
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14]])
SEGMENT = jnp.array([[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0]])
DOCUMENT = jnp.array([[0, 0, 0, 0, 0, 0, 0], [0, 0, 5, 5, 5, 5, 5]])
BATCH = {"tokens": TOKENS, "segment": SEGMENT, "document": DOCUMENT}


def words(row):
    """A row's words, without the empty places."""
    return [int(token) for token in row if token]


def test_rows_close_up_in_order():
    keep = (SEGMENT > 0) & (TOKENS % 3 != 0)  # 3, 6, 9, 12 go
    text = close_up(BATCH, keep, WINDOW, CHUNK, balance=False)
    assert text.tokens.shape == (2, 9 + 2 * WINDOW)  # 7 rounded up to whole chunks, and both margins
    assert [words(row) for row in text.tokens] == [[1, 2, 4, 5, 7], [8, 10, 11]]
    assert (text.tokens[:, :WINDOW] == 0).all() and (text.segment[:, :WINDOW] == 0).all()
    assert (np.asarray(text.segment > 0) == np.asarray(text.tokens > 0)).all()
    np.testing.assert_array_equal(text.document[1, WINDOW : WINDOW + 3], [0, 5, 5])
    assert int(text.num_chunks) == 2  # 5 words in the longest row


def test_balanced_rows_are_of_one_length_and_lose_no_word():
    text = close_up(BATCH, (SEGMENT > 0) & (TOKENS > 4), WINDOW, CHUNK, balance=True)
    assert [words(row) for row in text.tokens] == [[5, 6, 7, 8], [9, 10, 11, 12]]
    assert int(text.num_chunks) == 2
    sentence = np.asarray(text.segment[0, WINDOW : WINDOW + 4])
    assert sentence[0] == sentence[1] == sentence[2] != sentence[3] != 0  # 8 came from another row


def test_nothing_left_is_no_error():
    for balance in (True, False):
        text = close_up(BATCH, jnp.zeros((2, 7), bool), WINDOW, CHUNK, balance=balance)
        assert not text.segment.any() and int(text.num_chunks) <= 1


@pytest.mark.parametrize("side", ["both", "before"])
def test_windows_hold_the_sentences_words_within_their_radius(side):
    """Against a loop over all pairs of places; every radius from 1 to the window occurs, and no other."""
    rows, window, chunk = 200, 3, 4
    tokens = jnp.tile(jnp.arange(1, 12)[None], (rows, 1))
    segment = jnp.tile(jnp.array([1] * 7 + [2] * 3 + [0])[None], (rows, 1))
    text = close_up({"tokens": tokens, "segment": segment}, segment > 0, window, chunk, balance=False)
    reach = []
    for index in range(int(text.num_chunks)):
        key = jax.random.fold_in(jax.random.key(0), index)
        found = jax.device_get(take_chunk(text, index, key, window, chunk, side))
        for row in range(rows):
            for c in range(chunk):
                place = index * chunk + c
                inside = {int(t) - 1 for t, m in zip(found.tokens[row], found.mask[row, c], strict=True) if m}
                if place >= 10:
                    assert not found.there[row, c] and not inside
                    continue
                assert found.there[row, c] and place not in inside
                sentence = range(7) if place < 7 else range(7, 10)
                possible = [
                    {q for q in sentence if 0 < abs(q - place) <= r and not (side == "before" and q > place)}
                    for r in range(1, window + 1)
                ]
                assert inside in possible
                if place == 3:  # the only place whose windows of every radius differ on both sides
                    reach.append(possible.index(inside) + 1)
    counts = np.bincount(reach, minlength=window + 1)
    assert counts[0] == 0 and len(counts) == window + 1 and counts[1:].min() > rows / window / 2


@pytest.mark.parametrize("balance", [False, True])
def test_pairs_are_the_words_of_windows_in_the_texts_order(balance):
    """Against a loop over all places; every radius occurs as often as another."""
    rows, window, chunk = 200, 3, 7
    tokens = jnp.tile(jnp.arange(1, 12)[None], (rows, 1)) + 11 * jnp.arange(rows)[:, None]
    segment = jnp.tile(jnp.array([1] * 7 + [2] * 3 + [0])[None], (rows, 1))
    text = close_up({"tokens": tokens, "segment": segment}, segment > 0, window, 4, balance=False)
    found = jax.device_get(pair_up(text, jax.random.key(0), window, chunk, balance=balance))
    assert found.center.shape[1] % chunk == 0 and found.there[:, int(found.num_chunks) * chunk :].sum() == 0
    counts = found.there.sum(1)
    assert (found.there == (np.arange(found.there.shape[1]) < counts[:, None])).all()  # closed up
    if balance:
        most = -(-counts.sum() // rows)
        np.testing.assert_array_equal(counts, np.clip(counts.sum() - most * np.arange(rows), 0, most))
    else:
        assert ((found.center - 1) // 11 == np.arange(rows)[:, None])[found.there].all()
    pairs = list(zip(found.center[found.there] - 1, found.neighbor[found.there] - 1, strict=True))
    reach, start = [], 0
    for place in (11 * row + place for row in range(rows) for place in range(10)):
        stop = start
        while stop < len(pairs) and pairs[stop][0] == place:
            stop += 1
        inside = [int(neighbor) for _, neighbor in pairs[start:stop]]
        first = place - place % 11
        sentence = range(first, first + 7) if place < first + 7 else range(first + 7, first + 10)
        possible = [[q for q in sentence if 0 < abs(q - place) <= r] for r in range(1, window + 1)]
        assert inside in possible
        if place % 11 == 3:
            reach.append(possible.index(inside))
        start = stop
    assert start == len(pairs) and np.bincount(reach).min() > rows / window / 2
