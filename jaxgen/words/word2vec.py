"""word2vec: vectors of words from the words around them (Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546).

A word is a blank, and its surroundings fill it in:

  skip-gram   L = Σ_c Σ_{w in c's window} ℓ(c, x_w)        CBOW   L = Σ_c ℓ(c, mean of x_w over c's window)

with ℓ from `objective`: negative sampling or the hierarchical softmax. The vectors of use are the x_w,
`params["input"]`.

Deviations: updates are made a chunk of words at a time (see `sgd`), and noise words are by default shared within it;
the loss that training logs is that of each step's first chunk. CBOW's gradient is that of the formula, divided by the
number of words in the window, which the authors' program and gensim leave out (İrsoy et al. 2021, arXiv 2012.15332):
it takes a learning rate about `window` times as high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.data.condition import asked_or
from jaxgen.method import Method
from jaxgen.words.objective import RULES, Terms, pooled_terms, window_terms
from jaxgen.words.sgd import (
    TermsAt,
    WalkConfig,
    check_walk,
    descend_walk,
    first_vectors,
    make_vocabulary,
    mean_pairs,
    rate_at,
    row_rates,
    walk,
    walk_losses,
    walk_pairs,
)
from jaxgen.words.vectors import neighbors
from jaxgen.words.windows import Chunk

if TYPE_CHECKING:
    from jaxgen.data import Spec

Objective = Literal["skip_gram", "cbow"]


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows."""

    num_neighbors: int = 8
    """Nearest words that stand behind each word."""


@dataclass(frozen=True)
class Config(WalkConfig):
    """Word vectors."""

    objective: Objective = "skip_gram"
    """`skip_gram` or `cbow`."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows."""


def make(cfg: Config, spec: Spec) -> Method:
    """word2vec on the words of `spec`; reads `tokens` and `segment` int32 [B, T].

    `sample` draws words, the oftener training sees them (or takes `cond["word"]` [num]), and puts each one's nearest
    words behind it: `tokens` [num, 1 + num_neighbors] and their cosines, `similarity`. `evaluate` gives `loss` in nats
    a prediction, windows and noise words drawn as in training.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data counts no words.
    """
    check_walk(cfg, spec)
    check_choice("method.objective", cfg.objective, get_args(Objective))
    vocabulary = make_vocabulary(cfg, spec.frequencies["tokens"])
    size = len(vocabulary.kept)
    if not 1 <= cfg.sample.num_neighbors < size:
        raise ValueError(f"method.sample.num_neighbors must lie in 1…{size - 1}, and below the {size} words there are")

    shares = {"input": vocabulary.kept, "output": vocabulary.answers}
    pairs = mean_pairs(cfg) if cfg.objective == "skip_gram" else cfg.chunk

    def terms_of(chunk: Chunk, key: jax.Array) -> Terms:
        center = chunk.tokens[:, cfg.window : cfg.window + cfg.chunk]
        if cfg.objective == "cbow":
            return pooled_terms(chunk, vocabulary.targets(cfg, center, key), documents=False)
        return window_terms(chunk, vocabulary.targets(cfg, center, key))

    apart = cfg.objective == "skip_gram" and cfg.softmax == "negative" and not cfg.shared_negatives

    def chunks_of(batch: Any, key: jax.Array, balance: bool = True) -> tuple[jax.Array, TermsAt]:
        if apart:
            return walk_pairs(cfg, vocabulary, batch, key, balance=balance)
        return walk(cfg, vocabulary, batch, key, terms_of, balance=balance)

    def init(key, batch, warm=None):
        output = jnp.zeros((len(vocabulary.answers), cfg.dim))
        params = {"input": first_vectors(key, size, cfg.dim), "output": output}
        return {"params": params, "count": jnp.zeros((), jnp.int32)}

    def step(state, batch, key):
        rate = rate_at(cfg, state["count"])
        rates = row_rates(cfg, rate, shares, len(batch["tokens"]), pairs)
        params, loss = descend_walk(state["params"], *chunks_of(batch, key), rates)
        return {"params": params, "count": state["count"] + 1}, {"loss": loss, "learning_rate": rate}

    def sample(state, key, num, cond=None):
        share = jnp.asarray(vocabulary.kept, jnp.float32)
        drawn = jax.random.choice(key, size, (num,), replace=num > size, p=share)
        words = asked_or(drawn, cond, "word")
        tokens, similarity = neighbors(state["params"]["input"], words, cfg.sample.num_neighbors)
        return {"tokens": tokens, "similarity": similarity}

    def evaluate(state, batch, key):
        chunks = chunks_of(batch, key, balance=False)
        return {"loss": walk_losses(state["params"], *chunks, len(batch["tokens"]))}

    return Method(init, step, sample, evaluate, ("tokens", "segment"), RULES, conditions=("word",))
