"""Text as a walk in chunks: every row of a batch is read from left to right, `chunk` words of it at a time.

What is random (which words subsampling leaves out, how far each window reaches) is a function of the key, the row and
the place alone, so that it is the same on any number of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Side = Literal["both", "before"]


class Text(NamedTuple):
    """The words that are left, with `window` empty places before and behind them."""

    tokens: jax.Array
    """int32 [B, W]."""
    segment: jax.Array
    """The sentence's number, one that no other sentence of the batch has, 0 where there is no word; int32 [B, W]."""
    document: jax.Array
    """int32 [B, W]."""
    num_chunks: jax.Array
    """Chunks until the end of the longest row, a scalar."""


class Chunk(NamedTuple):
    """`chunk` words of every row, the centers, and `window` places on either side of them."""

    tokens: jax.Array
    """int32 [B, S], S = chunk + 2 window."""
    document: jax.Array
    """The centers' documents, int32 [B, C]."""
    there: jax.Array
    """Whether there is a center, bool [B, C]."""
    mask: jax.Array
    """Whether a place lies in a center's window, bool [B, C, S]."""


class Pairs(NamedTuple):
    """Words and the words in their windows, pair by pair, in the order of the text."""

    center: jax.Array
    """int32 [B, N]."""
    neighbor: jax.Array
    """int32 [B, N]."""
    there: jax.Array
    """Whether there is a pair, bool [B, N]."""
    num_chunks: jax.Array
    """Chunks until the end of the longest row, a scalar."""


def close_up(batch: Mapping[str, jax.Array], keep: jax.Array, window: int, chunk: int, *, balance: bool) -> Text:
    """The kept words of a batch, closed up: windows are taken after words have gone, as in the authors' program.

    Args:
      batch: `tokens`, `segment` and, if need be, `document`, all [B, T].
      keep: which words stay, bool [B, T]; padding is not kept.
      window, chunk: the empty places at both ends, and the size to whose multiple the rows are padded.
      balance: whether the words that are left are dealt out to rows of one length, or stay in their rows.
    """
    size, length = keep.shape
    row, column, longest = _places(keep, balance)
    width = -(-length // chunk) * chunk + 2 * window
    column = jnp.where(keep, column + window, width)  # what goes is written nowhere
    segment = batch["segment"] + (length + 1) * jnp.arange(size)[:, None]

    def put(x: jax.Array) -> jax.Array:
        return jnp.zeros((size, width), jnp.int32).at[row, column].set(x, mode="drop")

    document = put(batch["document"]) if "document" in batch else jnp.zeros((size, width), jnp.int32)
    return Text(put(batch["tokens"]), put(segment), document, -(-longest // chunk))


def take_chunk(text: Text, index: jax.Array, key: jax.Array, window: int, chunk: int, side: Side = "both") -> Chunk:
    """Chunk number `index`, each center's window cut to a radius drawn uniformly from 1 … window.

    A window holds the words of the center's sentence within its radius, without the center itself; with `side`
    "before", those to the left of it alone.
    """
    span = chunk + 2 * window
    tokens, segment, document = (jax.lax.dynamic_slice_in_dim(x, index * chunk, span, 1) for x in text[:3])
    centers = slice(window, window + chunk)
    radius = jax.random.randint(key, (tokens.shape[0], chunk), 1, window + 1)
    offset = jnp.arange(span)[None, :] - jnp.arange(chunk)[:, None] - window  # [C, S]
    candidate = offset < 0 if side == "before" else offset != 0
    near = candidate[None] & (jnp.abs(offset)[None] <= radius[..., None])
    there = segment[:, centers] > 0
    together = (segment[:, None, :] == segment[:, centers, None]) & there[..., None]
    return Chunk(tokens, document[:, centers], there, near & together)


def pair_up(text: Text, key: jax.Array, window: int, chunk: int, *, balance: bool) -> Pairs:
    """Every center with every word of its window, cut as in `take_chunk`; rows have room for whole chunks of pairs.

    With `balance` they are dealt out to rows of one length, in the order of the text; else they stay in their rows.
    """
    size, width = text.tokens.shape
    num = width - 2 * window
    centers = slice(window, window + num)
    segment = text.segment[:, centers]
    radius = jax.random.randint(key, (size, num), 1, window + 1)
    offsets = [offset for offset in range(-window, window + 1) if offset]
    beside = lambda x: jnp.stack([x[:, window + o : window + o + num] for o in offsets], -1)  # [B, W, 2 window]
    near = jnp.abs(jnp.asarray(offsets))[None, None] <= radius[..., None]
    there = (near & (beside(text.segment) == segment[..., None]) & (segment > 0)[..., None]).reshape(size, -1)
    center = jnp.repeat(text.tokens[:, centers], len(offsets), 1)
    room = -(-there.shape[1] // chunk) * chunk
    row, column, longest = _places(there, balance)
    put = lambda x: jnp.zeros((size, room), x.dtype).at[row, jnp.where(there, column, room)].set(x, mode="drop")
    return Pairs(put(center), put(beside(text.tokens).reshape(size, -1)), put(there), -(-longest // chunk))


def _places(keep: jax.Array, balance: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where what is kept of [B, T] goes when it closes up: its row and column, and the length of the longest row."""
    size, length = keep.shape
    if not balance:
        return jnp.arange(size)[:, None], jnp.cumsum(keep, 1) - 1, keep.sum(1).max()
    place = jnp.cumsum(keep.ravel()).reshape(size, length) - 1
    longest = jnp.maximum(-(-keep.sum() // size), 1)
    return place // longest, place % longest, longest
