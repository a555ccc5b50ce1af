"""k-means: K centroids that minimise the inertia Σ_n min_k ‖x_n − c_k‖².

Lloyd's algorithm (1957; IEEE Trans. Inf. Theory 28, 1982) assigns every example to its nearest centroid and moves each
centroid to the mean of its own; neither raises the inertia. Here an epoch of batches is one such iteration, and exactly
one: the centroids move when every training example has been seen (a batch of all of them moves them every step).
Mini-batch k-means (Sculley, WWW 2010) moves each centroid after every batch to the mean of all that it was ever
assigned.

A cluster that ends up empty moves to the example that is farthest from its centroid, which leaves its old cluster (as
in scikit-learn; of the epoch's last batch, where there are several). In mini-batches, clusters whose share of the
examples has fallen far behind restart at examples of the batch drawn ∝ D². Pixels lie in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.classical.lloyd import Rows, minibatch, move, sums, zeros
from jaxgen.classical.rows import in_epochs, over_rows, vectors
from jaxgen.classical.seeding import SEEDS
from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec

Algorithm = Literal["lloyd", "minibatch"]


@dataclass(frozen=True)
class Config:
    """k-means."""

    num_clusters: int = 10
    """K, the number of clusters."""
    algorithm: Algorithm = "lloyd"
    """`lloyd` (an exact iteration an epoch, which takes examples / batch_size steps) or `minibatch` (one a batch)."""
    init: Literal["k-means++", "k-means||", "random"] = "k-means++"
    """How the first batch yields the first centroids: `k-means++`, `k-means||` or `random`."""
    reassign: float = 0.01
    """Mini-batches: a cluster with less than this share of the largest one's examples starts anew; 0 for never."""


def check(cfg: Config) -> None:
    """Raises a ValueError for an option that `make` cannot follow."""
    check_choice("method.algorithm", cfg.algorithm, get_args(Algorithm))
    check_choice("method.init", cfg.init, SEEDS)
    if cfg.num_clusters < 1:
        raise ValueError(f"method.num_clusters={cfg.num_clusters} must be 1 or more")
    if not 0 <= cfg.reassign < 1:
        raise ValueError(f"method.reassign={cfg.reassign} must lie in 0…1, and below 1")


def make(cfg: Config, spec: Spec) -> Method:
    """k-means on the images, or the vectors `x`, of `spec`.

    `step` reports `loss`, the batch's inertia an example, and `shift`, the sum of the centroids' squared moves the last
    time that they moved (a rule on it stops a run that has converged). `sample` shows the centroids, in an order that
    the key decides, again and again. `evaluate` gives `loss`, the squared distance to the nearest centroid.

    Raises:
      ValueError: an option is unknown or out of range, the first batch has fewer examples than clusters, or the data
        has no vectors.
    """
    check(cfg)
    vec, count, num = vectors(spec), spec.count("train"), cfg.num_clusters

    def near(raw, origin):
        return vec.read(raw) - origin[None]  # far from 0, the squares of x and c would drown their distance

    def assign(raw, weight, centroids, origin):
        fn = lambda rows, c, o: sums(rows._replace(x=near(rows.x, o)), c)
        return over_rows(fn, Rows(raw, weight), centroids - origin[None], origin)

    def init(key, batch, warm=None):
        x = vec.read(batch[vec.key])
        if len(x) < num:
            raise ValueError(f"{num} clusters need a first batch of {num} examples or more, not {len(x)}")
        origin, spread = x.mean(0), jnp.var(x, 0).sum()
        state = {"centroids": SEEDS[cfg.init](key, x - origin[None], num) + origin[None], "origin": origin}
        if cfg.algorithm == "minibatch":
            return state | {"counts": jnp.zeros(num), "number": jnp.zeros((), jnp.int32)}
        return state | {"total": zeros(state["centroids"]), "seen": jnp.zeros((), jnp.int32), "shift": spread}

    def lloyd_step(state, batch, key):
        raw, origin = batch[vec.key], state["origin"]
        size = raw.shape[0]

        def add(carry, weight):
            total, found = assign(raw, weight, carry["centroids"], origin)
            loss = carry["loss"] + total["inertia"] / size
            return {**carry, "total": jax.tree.map(jnp.add, carry["total"], total), "loss": loss, "found": found}

        def finish(carry, weight):
            old = carry["centroids"]
            take = lambda index: near(raw[index], origin)
            new = move(old - origin[None], carry["total"], take, weight, *carry["found"]) + origin[None]
            return {**carry, "centroids": new, "total": zeros(new), "shift": jnp.sum((new - old) ** 2)}

        nothing = {"loss": jnp.zeros(()), "found": (jnp.zeros(size, jnp.int32), jnp.zeros(size))}
        carry, seen = in_epochs({**state, **nothing}, state["seen"], size, count, add, finish)
        state = {name: carry[name] for name in state} | {"seen": seen}
        return state, {"loss": carry["loss"], "shift": carry["shift"]}

    def minibatch_step(state, batch, key):
        raw, origin = batch[vec.key], state["origin"]
        size = raw.shape[0]
        old, counts, number = state["centroids"], state["counts"], state["number"]
        total, (_, distance) = assign(raw, jnp.ones(size), old, origin)
        take = lambda index: near(raw[index], origin)
        moved = minibatch(key, old - origin[None], counts, number, total, take, distance, cfg.reassign)
        new = moved[0] + origin[None]
        shift = jnp.sum((new - old) ** 2)
        state = {"centroids": new, "origin": origin, "counts": moved[1], "number": number + 1}
        return state, {"loss": total["inertia"] / size, "shift": shift}

    def sample(state, key, num_samples, cond=None):
        check_keys(cond)
        order = jax.random.permutation(key, num)[jnp.arange(num_samples) % num]
        return vec.write(state["centroids"][order])

    def evaluate(state, batch, key):
        raw = batch[vec.key]
        distance = assign(raw, jnp.ones(raw.shape[0]), state["centroids"], state["origin"])[1][1]
        return {"loss": (distance, jnp.ones_like(distance))}

    step = lloyd_step if cfg.algorithm == "lloyd" else minibatch_step
    return Method(init, step, sample, evaluate, reads=(vec.key,), enumerates=True)
