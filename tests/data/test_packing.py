"""Rows of tokens: every token predicted once, nothing cut that fits, few rows."""

import numpy as np
import pytest

from jaxgen.data.packing import pack

SIZES = np.random.default_rng(0).integers(2, 40, 300)
OFFSETS = np.concatenate([[0], np.cumsum(SIZES)])


@pytest.mark.parametrize("packing", ["stream", "fit", "none"])
@pytest.mark.parametrize("length", [2, 16, 39, 500])
def test_every_token_but_a_documents_first_is_predicted_once(packing, length):
    starts, stops, rows = pack(OFFSETS, length, packing)
    document = np.repeat(np.arange(len(SIZES)), SIZES)
    predicted = np.zeros(OFFSETS[-1], int)
    for start, stop in zip(starts, stops, strict=True):
        assert start < stop and document[start] == document[stop - 1], "a piece of two documents"
        predicted[start + 1 : stop] += 1
    expected = np.ones(OFFSETS[-1], int)
    expected[OFFSETS[:-1]] = 0
    np.testing.assert_array_equal(predicted, expected)
    used = np.add.reduceat(stops - starts, rows[:-1])
    assert rows[0] == 0 and rows[-1] == len(starts) and used.max() <= length and used.min() >= 1


def test_fit_cuts_nothing_that_fits_and_fills_its_rows():
    starts, stops, rows = pack(OFFSETS, 40, "fit")
    assert sorted(starts) == OFFSETS[:-1].tolist()
    used = np.add.reduceat(stops - starts, rows[:-1])
    assert used.mean() / 40 > 0.95
    assert len(pack(OFFSETS, 40, "none").rows) == 301


def test_stream_fills_its_rows_in_order():
    starts, stops, rows = pack(np.array([0, 5, 9, 30]), 8, "stream")
    found = [[(starts[p], stops[p]) for p in range(rows[i], rows[i + 1])] for i in range(len(rows) - 1)]
    assert found == [[(0, 5), (5, 8)], [(7, 9), (9, 15)], [(14, 22)], [(21, 29)], [(28, 30)]]


def test_best_fit_by_hand():
    """6, 5, 4, 3, 2 into rows of 10: 6 + 4, 5 + 3 + 2."""
    offsets = np.concatenate([[0], np.cumsum([3, 6, 2, 5, 4])])
    starts, stops, rows = pack(offsets, 10, "fit")
    found = [(stops - starts)[rows[i] : rows[i + 1]].tolist() for i in range(len(rows) - 1)]
    assert sorted(map(sorted, found)) == [[2, 3, 5], [4, 6]]


def test_bad_options_get_a_message():
    with pytest.raises(ValueError, match=r"unknown data\.packing='best'"):
        pack(OFFSETS, 8, "best")
    with pytest.raises(ValueError, match=r"data\.length=1 must be 2 or more"):
        pack(OFFSETS, 1, "fit")
