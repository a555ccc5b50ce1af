"""What word2vec draws: the words it keeps, and the noise words it tells the true ones from.

Subsampling (Mikolov et al. 2013, 1310.4546, section 2.3) keeps an occurrence of a word of relative frequency f with
probability min(1, √(t/f) + t/f): the formula of the authors' program, which the paper prints as √(t/f) alone. Noise
words are drawn in proportion to count^0.75 (section 2.2), by Walker's alias method: two draws a word, whatever V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Alias(NamedTuple):
    """A discrete distribution over 0 … V-1 as V equal cells, each shared by two outcomes."""

    accept: np.ndarray
    """The share of cell i that is outcome i, float32 [V]."""
    other: np.ndarray
    """The outcome that has the rest of the cell, int32 [V]."""


def keep_probability(counts: Sequence[int], threshold: float) -> np.ndarray:
    """With which probability an occurrence of each word is kept, float32 [V]; all 1 when `threshold` is 0."""
    frequency = np.asarray(counts, np.float64) / np.sum(counts)
    ratio = threshold / frequency if threshold else np.ones_like(frequency)
    return np.minimum(1.0, np.sqrt(ratio) + ratio).astype(np.float32)


def noise_probability(counts: Sequence[int], power: float) -> np.ndarray:
    """count^power, normalised, float64 [V]."""
    weight = np.asarray(counts, np.float64) ** power
    return weight / weight.sum()


def alias_table(probability: np.ndarray) -> Alias:
    """Walker's table of a distribution [V], by Vose's linear-time construction."""
    num = len(probability)
    share = np.asarray(probability, np.float64) * num
    accept, other = np.ones(num), np.arange(num)
    small, large = np.flatnonzero(share < 1).tolist(), np.flatnonzero(share >= 1).tolist()
    while small and large:
        poor, rich = small.pop(), large[-1]
        accept[poor], other[poor] = share[poor], rich
        share[rich] -= 1 - share[poor]
        if share[rich] < 1:
            small.append(large.pop())
    return Alias(accept.astype(np.float32), other.astype(np.int32))


def draw_alias(key: jax.Array, table: Alias, shape: tuple[int, ...]) -> jax.Array:
    """Independent draws, int32 of this shape; a draw takes 32 bits, so probabilities are exact to V / 2³² of a cell."""
    num = len(table.accept)
    bits = jax.random.bits(key, shape, "uint32")  # one number for both, where randint and uniform would take three
    cell = (bits % num).astype(jnp.int32)
    share = (bits // num).astype(jnp.float32) / (2**32 / num)
    return jnp.where(share < jnp.asarray(table.accept)[cell], cell, jnp.asarray(table.other)[cell])
