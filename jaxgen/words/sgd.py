"""Stochastic gradient descent over text in chunks, as word2vec and doc2vec do it: plain and sparse, its rate falling.

One step of the trainer is a whole walk: the batch's rows are read from left to right, and the tables move after each
chunk of a few words of every row, so that a step makes as many small updates as the rows are long. That is why neither
optax nor `descend` is here: a gradient through them has the size of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import check_choice
from jaxgen.words.huffman import Paths, huffman
from jaxgen.words.noise import Alias, alias_table, keep_probability, noise_probability
from jaxgen.words.objective import (
    Tables,
    Targets,
    Terms,
    descend_rows,
    gather,
    losses,
    noise_targets,
    pair_terms,
    path_targets,
)
from jaxgen.words.windows import Chunk, Side, Text, close_up, pair_up, take_chunk

if TYPE_CHECKING:
    from jaxgen.data import Spec

TermsAt = Callable[[Any], Terms]
Softmax = Literal["negative", "hierarchical"]
LIMIT = 1.0  # the longest step of a row at once, as rate × pairs; at 4, vocabularies of 10 to 100 words diverge


@dataclass(frozen=True)
class WalkConfig:
    """What word2vec and doc2vec have in common."""

    dim: int = 100
    """D, the length of a vector."""
    window: int = 5
    """Words on either side that a window reaches at most; each one's reach is drawn from 1 … window."""
    softmax: Softmax = "negative"
    """`negative` (sampling) or `hierarchical` (a Huffman tree)."""
    num_negatives: int = 5
    """K, noise words a prediction."""
    noise_power: float = 0.75
    """Noise words are drawn in proportion to count^noise_power."""
    shared_negatives: int = 32
    """Noise words that a row's chunk shares, weighted to K a prediction; 0 lets every prediction draw its own K."""
    subsample: float = 1e-3
    """Frequency above which occurrences of a word are left out at random; 0 keeps all."""
    chunk: int = 16
    """Words of every row between two updates."""
    learning_rate: float = 0.025
    """The first steps' rate."""
    final_learning_rate: float = 1e-4
    """The rate from `decay_steps` on."""
    decay_steps: int = 1000
    """Steps in which the rate falls, linearly, to `final_learning_rate`."""


def check_walk(cfg: WalkConfig, spec: Spec) -> None:
    """Raises a ValueError that says what to change for an option, or data, that the walk cannot follow."""
    check_choice("method.softmax", cfg.softmax, get_args(Softmax))
    for name in ("dim", "window", "num_negatives", "chunk", "decay_steps"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"method.{name}={getattr(cfg, name)} must be 1 or more")
    for name in ("shared_negatives", "subsample", "noise_power", "final_learning_rate"):
        if getattr(cfg, name) < 0:
            raise ValueError(f"method.{name}={getattr(cfg, name)} must be 0 or more")
    if not cfg.learning_rate > 0:
        raise ValueError(f"method.learning_rate={cfg.learning_rate} must be above 0")
    if "tokens" not in spec.frequencies:
        raise ValueError("the data does not count its words; take a text, data=Corpus(…)")


class Vocabulary(NamedTuple):
    """The counts' tables: pure functions of them."""

    keep: np.ndarray
    """The share of each word's occurrences that subsampling keeps, [V]."""
    noise: Alias | None
    """The noise words' distribution, with negative sampling."""
    paths: Paths | None
    """The words' paths, with the hierarchical softmax."""
    kept: np.ndarray
    """Each word's share of the words that are kept, [V]."""
    answers: np.ndarray
    """How often a prediction touches each row of the output table on average, [V] or [V - 1]."""

    def targets(self, cfg: WalkConfig, center: jax.Array, key: jax.Array) -> Targets:
        """What the centers [B, C] are held against."""
        if self.paths is not None:
            return path_targets(center, self.paths)
        assert self.noise is not None
        return noise_targets(center, key, self.noise, cfg.num_negatives, cfg.shared_negatives)


def make_vocabulary(cfg: WalkConfig, counts: Sequence[int]) -> Vocabulary:
    """The tables of words with these `counts` [V]."""
    keep = keep_probability(counts, cfg.subsample)
    kept = keep * np.asarray(counts, np.float64)
    kept /= kept.sum()
    if cfg.softmax == "negative":
        noise = noise_probability(counts, cfg.noise_power)
        return Vocabulary(keep, alias_table(noise), None, kept, kept + cfg.num_negatives * noise)
    paths = huffman(counts)
    weights = np.where(paths.codes >= 0, kept[:, None], 0.0)
    return Vocabulary(keep, None, paths, kept, np.bincount(paths.nodes.ravel(), weights.ravel(), len(counts) - 1))


def rate_at(cfg: WalkConfig, count: jax.Array) -> jax.Array:
    """The learning rate of step number `count`, from 0."""
    left = 1 - count / cfg.decay_steps
    return jnp.maximum(cfg.learning_rate * left, cfg.final_learning_rate)


def row_rates(cfg: WalkConfig, rate: jax.Array, shares: Mapping[str, np.ndarray], size: int, pairs: int) -> Tables:
    """Each row's step, by table, float32 [V]: `rate`, less where the sum of a chunk's steps on the row would overshoot.

    Args:
      cfg: its `learning_rate` is the run's highest.
      rate: this step's learning rate, a scalar.
      shares: by table, how often a pair touches each row, on average, [V].
      size: the rows of the batch.
      pairs: pairs of a hidden vector and its center in a row's chunk, on average.
    """
    bursts = {"document": float(pairs)}  # a row's chunk may be of one document
    if cfg.softmax == "negative" and cfg.shared_negatives:
        bursts["output"] = pairs * cfg.num_negatives / cfg.shared_negatives  # a noise word answers all of them

    def rates(name: str, share: np.ndarray) -> jax.Array:
        touches = np.maximum(size * pairs * share, bursts.get(name, 0))
        return rate * jnp.asarray(np.minimum(1.0, LIMIT / np.maximum(cfg.learning_rate * touches, 1e-12)), jnp.float32)

    return {name: rates(name, share) for name, share in shares.items()}


def read_text(
    cfg: WalkConfig, vocabulary: Vocabulary, batch: Tables, key: jax.Array, *, balance: bool
) -> tuple[Text, jax.Array]:
    """The words of a batch that subsampling leaves, and the key of what is drawn later."""
    key_keep, key_chunks = jax.random.split(key)
    tokens = batch["tokens"]
    keep = jax.random.uniform(key_keep, tokens.shape) < jnp.asarray(vocabulary.keep)[tokens]
    return close_up(batch, keep & (batch["segment"] > 0), cfg.window, cfg.chunk, balance=balance), key_chunks


def walk(
    cfg: WalkConfig,
    vocabulary: Vocabulary,
    batch: Tables,
    key: jax.Array,
    terms_of: Callable[[Chunk, jax.Array], Terms],
    *,
    side: Side = "both",
    balance: bool = True,
) -> tuple[jax.Array, TermsAt]:
    """The chunks of a batch: how many there are, and the terms of number i, a pure function of i and the key."""
    text, key_chunks = read_text(cfg, vocabulary, batch, key, balance=balance)

    def terms_at(index: Any) -> Terms:
        key_window, key_noise = jax.random.split(jax.random.fold_in(key_chunks, index))
        return terms_of(take_chunk(text, index, key_window, cfg.window, cfg.chunk, side), key_noise)

    return text.num_chunks, terms_at


def walk_pairs(
    cfg: WalkConfig, vocabulary: Vocabulary, batch: Tables, key: jax.Array, *, balance: bool = True
) -> tuple[jax.Array, TermsAt]:
    """As `walk`, pair by pair: a chunk has as many pairs as `cfg.chunk` words have on average."""
    assert vocabulary.noise is not None
    noise, chunk = vocabulary.noise, mean_pairs(cfg)
    text, key_pairs = read_text(cfg, vocabulary, batch, key, balance=balance)
    key_window, key_noise = jax.random.split(key_pairs)
    pairs = pair_up(text, key_window, cfg.window, chunk, balance=balance)
    terms_at = lambda i: pair_terms(pairs, i, chunk, jax.random.fold_in(key_noise, i), noise, cfg.num_negatives)
    return pairs.num_chunks, terms_at


def mean_pairs(cfg: WalkConfig) -> int:
    """Pairs of `cfg.chunk` words on average: a window of radius 1 … w has w + 1 words."""
    return cfg.chunk * (cfg.window + 1)


def first_vectors(key: jax.Array, num: int, dim: int) -> jax.Array:
    """What a table of inputs starts from, uniform in ±1/(2 dim), [num, dim]; tables of outputs start from 0."""
    return jax.random.uniform(key, (num, dim), minval=-0.5, maxval=0.5) / dim


def descend_walk(
    tables: Tables, num_chunks: jax.Array, terms_at: TermsAt, rates: Tables
) -> tuple[dict[str, jax.Array], jax.Array]:
    """A step on each chunk in turn, of the tables that `rates` names; and the first chunk's mean loss before it."""
    first = terms_at(0)
    loss = losses(gather(tables, first), first).sum() / jnp.maximum(first.predictions.sum(), 1)
    advance = lambda i, tables: descend_rows(tables, terms_at(i), rates)
    return jax.lax.fori_loop(0, num_chunks, advance, dict(tables)), loss


def walk_losses(tables: Tables, num_chunks: jax.Array, terms_at: TermsAt, size: int) -> tuple[jax.Array, jax.Array]:
    """Each row's loss in nats, and its number of predictions, over all chunks, [B] and [B]; B is `size`."""

    def add(i, sums):
        terms = terms_at(i)
        return sums[0] + losses(gather(tables, terms), terms), sums[1] + terms.predictions

    return jax.lax.fori_loop(0, num_chunks, add, (jnp.zeros(size), jnp.zeros(size)))
