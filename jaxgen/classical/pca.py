"""Principal component analysis (Pearson 1901; Hotelling 1933).

The K orthonormal directions V [K, D] that lose least when x ≈ m + Vᵀ z with z = V (x − m):

  min_V E ‖x − m − VᵀV (x − m)‖²,   solved by the leading eigenvectors of the covariance C = E (x − m)(x − m)ᵀ.

Three ways to them: the singular values of the data (exact), the eigenvectors of a covariance that is summed chunk by
chunk (one pass, D × D of memory), and subspace iteration Q ← orth(C Q) from random directions, a few more than K
(Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithm 4.4).

Trained as a method, the covariance streams: every batch is added to it, and the subspace of the step before is improved
by a few iterations, so that neither the data nor a D × D decomposition is ever needed at once. Samples are drawn from
the Gaussian N(m, Vᵀ Λ V) (probabilistic PCA without its noise). Pixels lie in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.classical.components import Components, inverse, moments, transform
from jaxgen.classical.rows import matmul, over_rows, vectors
from jaxgen.classical.subspace import random_directions, subspace
from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec

What = Literal["draws", "components"]


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows."""

    what: What = "draws"
    """`draws` from the Gaussian, or the `components` themselves (eigen-images, grey where they are zero)."""


@dataclass(frozen=True)
class Config:
    """Principal component analysis."""

    num_components: int = 32
    """K, the dimension of the code."""
    oversampling: int = 10
    """Directions beyond K that the iteration carries along; it converges the faster."""
    num_iters: int = 4
    """Subspace iterations a step."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows."""


def check(cfg: Config, dim: int) -> None:
    """Raises a ValueError for an option that `make` cannot follow with vectors of dimension `dim`."""
    check_choice("method.sample.what", cfg.sample.what, get_args(What))
    if not 1 <= cfg.num_components <= dim:
        raise ValueError(f"method.num_components={cfg.num_components} must lie in 1…{dim}, the dimension of the data")
    for name, value, least in (("oversampling", cfg.oversampling, 0), ("num_iters", cfg.num_iters, 1)):
        if value < least:
            raise ValueError(f"method.{name}={value} must be {least} or more")


def make(cfg: Config, spec: Spec) -> Method:
    """PCA of the images, or the vectors `x`, of `spec`.

    `step` reports `loss`, the mean squared error of a value over all data so far, and `explained`, the share of their
    variance that the K directions hold. `evaluate` gives the `loss` and `unexplained`, the share that is lost.

    Raises:
      ValueError: an option is unknown or out of range, or the data has no vectors.
    """
    vec = vectors(spec)
    check(cfg, vec.dim)
    num, width = cfg.num_components, min(cfg.num_components + cfg.oversampling, vec.dim)

    def init(key, batch, warm=None):
        raw, dim = batch[vec.key], vec.dim
        shift = over_rows(lambda rows: (vec.read(rows).sum(0), ()), raw)[0] / raw.shape[0]
        directions = random_directions(key, width, dim)
        project = lambda rows, shift, v: (jnp.sum(matmul(vec.read(rows) - shift[None], v.T) ** 2, 0), ())
        variances = over_rows(project, raw, shift, directions)[0] / raw.shape[0]
        nothing = {"count": jnp.zeros(()), "first": jnp.zeros(dim), "second": jnp.zeros((dim, dim))}
        return {"shift": shift, **nothing, "directions": directions, "variances": variances}

    def components(state):
        total = jnp.trace(state["second"]) - jnp.sum(state["first"] ** 2)
        return Components(state["shift"] + state["first"], state["directions"][:num], state["variances"][:num], total)

    def step(state, batch, key):
        raw = batch[vec.key]
        first, second = moments(raw, state["shift"], vec.read)
        count = state["count"] + raw.shape[0]
        grow = lambda mean, total: mean + (total - raw.shape[0] * mean) / count
        first, second = grow(state["first"], first), grow(state["second"], second)
        apply = lambda rows: matmul(rows, second) - matmul(rows, first)[:, None] * first[None]
        directions, variances = subspace(apply, state["directions"], cfg.num_iters)
        state = {**state, "count": count, "first": first, "second": second}
        state |= {"directions": directions, "variances": variances}
        found = components(state)
        explained = found.variances.sum()
        return state, {
            "loss": (found.total - explained) / vec.dim,
            "explained": explained / jnp.maximum(found.total, 1e-12),
        }

    def sample(state, key, num_samples, cond=None):
        check_keys(cond)
        found = components(state)
        if cfg.sample.what == "draws":
            return vec.write(inverse(found, jax.random.normal(key, (num_samples, num)), whiten=True))
        shown = found.directions[jnp.arange(num_samples) % num]
        return vec.write(0.5 + 0.5 * shown / jnp.abs(shown).max(1, keepdims=True) if vec.key == "image" else shown)

    def evaluate(state, batch, key):
        def errors(rows, found):
            x = vec.read(rows)
            lost = jnp.sum((x - inverse(found, transform(found, x))) ** 2, 1)
            return (), (lost, jnp.sum((x - found.mean[None]) ** 2, 1))

        lost, spread = over_rows(errors, batch[vec.key], components(state))[1]
        return {"loss": (lost, jnp.full_like(lost, vec.dim)), "unexplained": (lost, spread)}

    return Method(init, step, sample, evaluate, reads=(vec.key,), enumerates=cfg.sample.what == "components")
