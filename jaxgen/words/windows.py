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


def close_up(batch: Mapping[str, jax.Array], keep: jax.Array, window: int, chunk: int, *, balance: bool) -> Text:
    """The kept words of a batch, closed up: windows are taken after words have gone, as in the authors' program.

    Args:
      batch: `tokens`, `segment` and, if need be, `document`, all [B, T].
      keep: which words stay, bool [B, T]; padding is not kept.
      window, chunk: the empty places at both ends, and the size to whose multiple the rows are padded.
      balance: whether the words that are left are dealt out to rows of one length, or stay in their rows.
    """
    size, length = keep.shape
    if balance:
        place = jnp.cumsum(keep.ravel()).reshape(size, length) - 1
        longest = jnp.maximum(-(-keep.sum() // size), 1)
        row, column = place // longest, place % longest
    else:
        row, column = jnp.arange(size)[:, None], jnp.cumsum(keep, 1) - 1
        longest = keep.sum(1).max()
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
