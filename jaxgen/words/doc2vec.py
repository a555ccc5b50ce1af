"""doc2vec: vectors of documents, trained beside those of words (Le & Mikolov 2014, arXiv 1405.4053).

A document's vector d stands in every window of its text and holds what the words around a blank do not say:

  PV-DM    L = Σ_c ℓ(c, mean of d and of x_w over the words w before c)        PV-DBOW   L = Σ_c ℓ(c, d)

with ℓ from `objective`. PV-DM reads, as in the paper, the words before a blank, so that "John likes Mary" and "Mary
likes John" differ; `side="both"` is gensim's symmetric window, whose mean cannot tell them apart.

The lecture says that doc2vec does not work with unseen documents (erratum E18). It does, at a cost: `make_infer` fits
a new d by the same gradient steps while all words stay as they are (section 2.2 of the paper).

Deviations: windows of random reach and subsampling as in word2vec; the mean, not the concatenation, of the vectors;
updates a chunk of words at a time, noise words shared within it, and the logged loss that of each step's first chunk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxgen.config import check_choice
from jaxgen.data.condition import asked_or
from jaxgen.method import Method
from jaxgen.words.objective import RULES, Tables, Terms, pooled_terms
from jaxgen.words.sgd import (
    TermsAt,
    Vocabulary,
    WalkConfig,
    check_walk,
    descend_walk,
    first_vectors,
    make_vocabulary,
    rate_at,
    row_rates,
    walk,
    walk_losses,
)
from jaxgen.words.vectors import neighbors
from jaxgen.words.windows import Chunk, Side

if TYPE_CHECKING:
    from jaxgen.data import Spec

Objective = Literal["dm", "dbow"]


@dataclass(frozen=True)
class InferConfig:
    """How the vector of a new document is fitted."""

    passes: int = 50
    """Walks over its text."""
    learning_rate: float = 0.05
    """The first pass's rate; it falls linearly to none."""


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows."""

    num_neighbors: int = 5
    """Nearest documents that stand behind each document."""


@dataclass(frozen=True)
class Config(WalkConfig):
    """Document vectors."""

    objective: Objective = "dbow"
    """`dm` (the document and the words before a blank fill it) or `dbow` (the document alone)."""
    side: Side = "before"
    """Which words PV-DM sees: those `before` the blank (the paper) or on `both` sides of it (gensim)."""
    infer: InferConfig = InferConfig()
    """How new documents are fitted."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows."""


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError that says what to change, where options or data do not fit."""
    check_walk(cfg, spec)
    check_choice("method.objective", cfg.objective, get_args(Objective))
    check_choice("method.side", cfg.side, get_args(Side))
    if cfg.infer.passes < 1 or not cfg.infer.learning_rate > 0:
        raise ValueError("method.infer needs passes of 1 or more and a learning_rate above 0")
    num = len(spec.frequencies["document"])
    if not 1 <= cfg.sample.num_neighbors < num:
        raise ValueError(f"method.sample.num_neighbors must lie in 1…{num - 1}: there are {num} documents")


def document_terms(cfg: Config, vocabulary: Vocabulary, chunk: Chunk, key: jax.Array) -> Terms:
    """The losses of a chunk, PV-DM's or PV-DBOW's."""
    center = chunk.tokens[:, cfg.window : cfg.window + cfg.chunk]
    if cfg.objective == "dbow":
        chunk = chunk._replace(tokens=chunk.tokens[:, :0], mask=chunk.mask[..., :0])
    return pooled_terms(chunk, vocabulary.targets(cfg, center, key), documents=True)


def _walk(
    cfg: Config, vocabulary: Vocabulary, batch: Tables, key: jax.Array, *, balance: bool
) -> tuple[jax.Array, TermsAt]:
    terms_of = lambda chunk, key: document_terms(cfg, vocabulary, chunk, key)
    return walk(cfg, vocabulary, batch, key, terms_of, side=cfg.side, balance=balance)


def _as_documents(tokens: jax.Array, segment: jax.Array) -> dict[str, jax.Array]:
    number = jnp.broadcast_to(jnp.arange(len(tokens))[:, None], tokens.shape)
    return {"tokens": tokens, "segment": segment, "document": number}


def fit_documents(
    cfg: Config, vocabulary: Vocabulary, params: Tables, tokens: jax.Array, segment: jax.Array, key: jax.Array
) -> jax.Array:
    """Vectors [N, D] of documents [N, T], one a row, by `cfg.infer.passes` walks in which no word changes.

    The key decides the same first vector, words kept, windows and noise words for each row, so that a document's vector
    depends neither on its row nor on the others; it is zero where there is no word.
    """
    key_first, key_passes = jax.random.split(key)
    first = first_vectors(key_first, 1, cfg.dim)
    fitting = dataclasses.replace(cfg, learning_rate=cfg.infer.learning_rate)

    def fit(tokens: jax.Array, segment: jax.Array) -> jax.Array:
        batch = _as_documents(tokens[None], segment[None])

        def one_pass(tables, inputs):
            number, key = inputs
            rate = fitting.learning_rate * (1 - number / cfg.infer.passes)
            rates = row_rates(fitting, rate, {"document": np.ones(1)}, 1, cfg.chunk)
            num_chunks, terms_at = _walk(cfg, vocabulary, batch, key, balance=False)
            # All rows walk as far as the longest: with a number of its own each would carry a copy of the tables.
            return descend_walk(tables, jax.lax.pmax(num_chunks, "rows"), terms_at, rates)

        passes = (jnp.arange(cfg.infer.passes), jax.random.split(key_passes, cfg.infer.passes))
        found = jax.lax.scan(one_pass, {**params, "document": first}, passes)[0]["document"][0]
        return jnp.where((segment > 0).any(), found, 0.0)

    return jax.vmap(fit, axis_name="rows")(tokens, segment)


_fit = jax.jit(fit_documents, static_argnums=0)


def make_infer(cfg: Config, spec: Spec) -> Callable[[Tables, ArrayLike, ArrayLike, jax.Array], jax.Array]:
    """The function that gives new documents vectors, to be set beside `params["document"]`; compiled once a shape.

    Args:
      cfg, spec: the run's.

    Returns:
      `(params, tokens [N, T], segment [N, T], key) -> float32 [N, D]`: the run's tables, `state["params"]`, none of
      which changes; the documents, one a row, as `jaxgen.data.corpus.encode` makes them of texts; and what decides the
      first vector, the subsampling and the noise words. The same arguments give the same bits; a document's vector
      depends neither on its row nor on the others, and is zero without a word.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range.
    """
    check(cfg, spec)
    vocabulary = make_vocabulary(cfg, spec.frequencies["tokens"])
    return lambda params, tokens, segment, key: _fit(
        cfg, vocabulary, params, jnp.asarray(tokens), jnp.asarray(segment), key
    )


def make(cfg: Config, spec: Spec) -> Method:
    """doc2vec on the documents of `spec`; reads `tokens`, `segment` and `document` int32 [B, T].

    `sample` draws training documents (or takes `cond["title"]` [num]) and puts the nearest ones behind each:
    `document` [num, 1 + num_neighbors] and their cosines, `similarity`. `evaluate` completes documents: of the one
    that a row begins with it fits a vector to the first half that stands there, and gives `loss` in nats a word of the
    second.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data counts no words.
    """
    check(cfg, spec)
    vocabulary = make_vocabulary(cfg, spec.frequencies["tokens"])
    lengths = np.asarray(spec.frequencies["document"], np.float64)
    shares = {"document": lengths / lengths.sum(), "output": vocabulary.answers}
    if cfg.objective == "dm":
        shares["input"] = vocabulary.kept

    def init(key, batch, warm=None):
        key_words, key_documents = jax.random.split(key)
        params = {
            "output": jnp.zeros((len(vocabulary.answers), cfg.dim)),
            "document": first_vectors(key_documents, len(lengths), cfg.dim),
        }
        if cfg.objective == "dm":  # PV-DBOW does not read words
            params["input"] = first_vectors(key_words, len(vocabulary.kept), cfg.dim)
        return {"params": params, "count": jnp.zeros((), jnp.int32)}

    def step(state, batch, key):
        rate = rate_at(cfg, state["count"])
        rates = row_rates(cfg, rate, shares, len(batch["tokens"]), cfg.chunk)
        params, loss = descend_walk(state["params"], *_walk(cfg, vocabulary, batch, key, balance=True), rates)
        return {"params": params, "count": state["count"] + 1}, {"loss": loss, "learning_rate": rate}

    def sample(state, key, num, cond=None):
        drawn = jax.random.randint(key, (num,), 0, len(lengths))
        asked = asked_or(drawn, cond, "title")
        document, similarity = neighbors(state["params"]["document"], asked, cfg.sample.num_neighbors)
        return {"document": document, "similarity": similarity}

    def evaluate(state, batch, key):
        key_fit, key_rest = jax.random.split(key)
        tokens, segment, document = (batch[name] for name in ("tokens", "segment", "document"))
        own = (segment > 0) & (document == document[:, :1])
        half = jnp.arange(tokens.shape[1])[None] < own.sum(1, keepdims=True) // 2
        seen = jnp.where(own & half, segment, 0)
        fitted = fit_documents(cfg, vocabulary, state["params"], tokens, seen, key_fit)
        rest = _as_documents(tokens, jnp.where(own & ~half, segment, 0))
        chunks = _walk(cfg, vocabulary, rest, key_rest, balance=False)
        return {"loss": walk_losses({**state["params"], "document": fitted}, *chunks, len(tokens))}

    return Method(init, step, sample, evaluate, ("tokens", "segment", "document"), RULES, conditions=("title",))
