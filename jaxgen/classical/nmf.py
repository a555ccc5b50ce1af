"""Non-negative matrix factorization (Lee & Seung, Nature 401, 1999; NIPS 2000).

  min_{W, H ≥ 0} ‖X − W H‖²_F,   or the divergence Σ X log(X / WH) − X + WH:

each row of X [N, D] is a sum of parts, the rows of H [K, D], with weights W [N, K]; nothing is ever subtracted.
Multiplicative updates (Lee & Seung) serve both; HALS (Cichocki & Phan 2009) sets one row of a factor at a time to its
best value, and gets as far in fewer passes.

Trained as a method on images or vectors, H is the state. A step finds the weights of its batch under the present parts
and updates the parts by WᵀX and WᵀW, which remember earlier batches (Mairal et al. 2010, arXiv 0908.0050; Lefèvre, Bach
& Févotte 2011, arXiv 1106.4198): those of an epoch ago count `forget`; a batch of all training examples needs none.

Lecture erratum E15: the lecture's sum over all entries of a rating matrix reads missing ratings as zeros. On data of
user, item and rating, see `ratings`, the sum runs over what was observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import jax
import jax.numpy as jnp

from jaxgen.classical import ratings
from jaxgen.classical.factors import EPS, Loss, Solver, encode, errors, products, update
from jaxgen.classical.nndsvd import Init, start
from jaxgen.classical.rows import matmul, over_rows, vectors
from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows of ratings."""

    top_n: int = 10
    """Recommended items a user."""


@dataclass(frozen=True)
class Config:
    """Non-negative matrix factorization."""

    num_parts: int = 16
    """K, the number of parts (of factors, for ratings)."""
    loss: Loss = "frobenius"
    """`frobenius` (squared error) or `kl` (divergence); ratings have the former."""
    solver: Solver = "hals"
    """`hals` (fast) or `mu` (Lee and Seung's multiplicative updates; the divergence has no other)."""
    init: Init = "nndsvda"
    """How the first batch yields the first parts: `nndsvda`, `nndsvd` or `random`; ratings start at random."""
    num_inner: int = 20
    """Updates of the weights a batch, and of the parts (or of a factor an epoch, for ratings)."""
    forget: float = 0.3
    """Weight of the products of an epoch ago, where a batch is not the whole training set."""
    l2: float = 0.0
    """Ratings: λ of the penalty λ (‖W‖² + ‖H‖²)."""
    exclude_seen: bool = True
    """Ratings: recommend nothing that a user has rated in the training split; keeps a byte a pair of user and item."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows of ratings."""


def check(cfg: Config) -> None:
    """Raises a ValueError for an option that `make` cannot follow."""
    for name, value, choices in (("loss", cfg.loss, Loss), ("solver", cfg.solver, Solver), ("init", cfg.init, Init)):
        check_choice(f"method.{name}", value, get_args(choices))
    for name, num in (("num_parts", cfg.num_parts), ("num_inner", cfg.num_inner), ("sample.top_n", cfg.sample.top_n)):
        if num < 1:
            raise ValueError(f"method.{name}={num} must be 1 or more")
    if not (0 <= cfg.forget <= 1 and cfg.l2 >= 0):
        raise ValueError(f"method.forget={cfg.forget} must lie in 0…1, and method.l2={cfg.l2} be 0 or more")
    if cfg.loss == "kl" and cfg.solver != "mu":
        raise ValueError("method.loss='kl' has multiplicative updates alone: set method.solver='mu'")


def make(cfg: Config, spec: Spec) -> Method:
    """NMF of ratings, where `spec` has them, else of its images, or its vectors `x`, which must not be negative.

    `step` reports `loss`, the squared error (or the divergence) of a value under the parts before the update.
    `evaluate` gives the `loss` and `unexplained`, Σ ‖x − x̂‖² / Σ ‖x‖², of weights that are found for the rows in hand
    with the parts fixed. `sample` shows the parts, each scaled to a largest value of 1, in an order that the key
    decides, again and again.

    Raises:
      ValueError: an option is unknown or out of range, or the data has neither ratings nor vectors.
    """
    check(cfg)
    if "rating" in spec.shapes:
        return ratings.make(cfg, spec)
    vec, count, num = vectors(spec), spec.count("train"), cfg.num_parts

    def code(raw, parts):
        x = vec.read(raw)
        return x, encode(x, parts, cfg.num_inner, None, cfg.loss, cfg.solver)

    def init(key, batch, warm=None):
        parts = start(key, vec.read(batch[vec.key]), num, cfg.init)[1]
        size = num if cfg.loss == "frobenius" else 1
        return {"parts": parts, "numerator": jnp.zeros_like(parts), "denominator": jnp.zeros((num, size))}

    def step(state, batch, key):
        raw, parts = batch[vec.key], state["parts"]
        size = raw.shape[0]

        def add(raw, parts):
            x, w = code(raw, parts)
            return (*products(x, w, parts, None, cfg.loss), errors(x, w, parts, None, cfg.loss).sum()), ()

        (numerator, denominator, error), _ = over_rows(add, raw, parts)
        kept = cfg.forget ** (size / count) if size < count else 0.0
        if cfg.loss == "kl":
            numerator = parts * numerator  # the update's factor belongs to the parts that it was computed with
        numerator, denominator = kept * state["numerator"] + numerator, kept * state["denominator"] + denominator
        if cfg.loss == "kl":
            parts = numerator / (denominator + EPS)
        else:
            parts = update(parts, (numerator, denominator), cfg.solver, True, cfg.num_inner)
        state = {"parts": parts, "numerator": numerator, "denominator": denominator}
        return state, {"loss": error / (size * vec.dim)}

    def sample(state, key, num_samples, cond=None):
        check_keys(cond)
        shown = state["parts"][jax.random.permutation(key, num)[jnp.arange(num_samples) % num]]
        return vec.write(shown / jnp.maximum(shown.max(1, keepdims=True), EPS))

    def evaluate(state, batch, key):
        def lost(raw, parts):
            x, w = code(raw, parts)
            squares = jnp.sum((x - matmul(w, parts)) ** 2, 1)
            return (), (errors(x, w, parts, None, cfg.loss), squares, jnp.sum(x**2, 1))

        loss, squares, whole = over_rows(lost, batch[vec.key], state["parts"])[1]
        return {"loss": (loss, jnp.full_like(loss, vec.dim)), "unexplained": (squares, whole)}

    return Method(init, step, sample, evaluate, reads=(vec.key,), enumerates=True)
