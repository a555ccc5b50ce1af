"""Rows of tokens from documents: where each row's pieces lie in one long array of tokens (for `pairs`, see there).

A piece is a run of tokens of one document; in training no piece sees another. Where a document is cut, the next piece
begins with the last token of the one before, so that every token but a document's first is predicted once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from jaxgen.config import check_choice

Packing = Literal["stream", "fit", "none", "pairs"]


class Pieces(NamedTuple):
    """Row i holds the pieces `rows[i]` … `rows[i + 1] - 1`; piece p the tokens `starts[p]` … `stops[p] - 1`."""

    starts: np.ndarray
    stops: np.ndarray
    rows: np.ndarray

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.rows) - 1


def pack(offsets: np.ndarray, length: int, packing: Packing) -> Pieces:
    """Packs documents into rows of `length` tokens.

    Args:
      offsets: where each document begins in the tokens, and at last where they end, int [N + 1].
      length: tokens of a row, 2 at least.
      packing: `stream` cuts the documents, end to end, every `length` tokens: rows are full, in the documents' order.
        `fit` cuts only documents longer than a row and fills rows with whole ones, best fit decreasing. `none` gives
        every piece of `fit` a row of its own.

    Raises:
      ValueError: an unknown packing, or rows of fewer than two tokens.
    """
    check_choice("data.packing", packing, get_args(Packing))
    if length < 2:
        raise ValueError(f"data.length={length} must be 2 or more: a row has a token to predict from")
    if packing == "stream":
        return _stream(offsets, length)
    starts, stops = _cut(offsets, length)
    if packing == "none":
        return Pieces(starts, stops, np.arange(len(starts) + 1))
    row = _best_fit(stops - starts, length)
    order = np.argsort(row, kind="stable")
    rows = np.concatenate([[0], np.cumsum(np.bincount(row))]) if len(row) else np.zeros(1, int)
    return Pieces(starts[order], stops[order], rows)


def _stream(offsets: np.ndarray, length: int) -> Pieces:
    total = int(offsets[-1])
    cuts = np.arange(0, max(total - 1, 1), length - 1)
    starts = np.unique(np.concatenate([cuts, offsets[:-1]]))
    row = np.searchsorted(cuts, starts, "right") - 1
    next_document = offsets[np.minimum(np.searchsorted(offsets, starts, "right"), len(offsets) - 1)]
    stops = np.minimum(np.minimum(cuts[row] + length, next_document), total)
    return Pieces(starts, stops, np.searchsorted(row, np.arange(len(cuts) + 1)))


def _cut(offsets: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    begins, ends = offsets[:-1], offsets[1:]
    num = np.maximum(1, -(-(ends - begins - 1) // (length - 1)))
    document = np.repeat(np.arange(len(num)), num)
    within = np.arange(len(document)) - np.repeat(np.cumsum(num) - num, num)
    starts = begins[document] + within * (length - 1)
    return starts, np.minimum(starts + length, ends[document])


def _best_fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """The row of each piece: the fullest that has room, the longest pieces first."""
    row = np.empty(len(sizes), np.int64)
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by the room that is left
    rooms = 0  # bit r is set where there is a row with room r
    num = 0
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            found = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, found, num = length, num, num + 1
        row[piece] = found
        open_rows[room - size].append(found)
        rooms |= 1 << (room - size)
    return row
