"""NMF of observed ratings, for recommendations: the sum runs over the entries that are there (lecture erratum E15).

  min_{W, H ≥ 0} Σ_{(u, i) observed} (r_ui − w_u·h_i)² + λ (‖W‖² + ‖H‖²)

Training data are triplets of user, item and rating. With one factor fixed, each row of the other is a small
least-squares problem of its own, with the matrix Σ h_i h_iᵀ over what the user rated (Zhou et al. 2008, AAIM, with
non-negativity); an epoch sums these up exactly, in batches of any size, and updates one factor, by HALS or
multiplicatively; the next epoch updates the other. Neither raises the sum. Of users or items without a training rating
the first random weights stay, which predict about the mean rating.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.classical.factors import SOLVERS
from jaxgen.classical.rows import in_epochs, matmul
from jaxgen.data.condition import asked_or
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.classical.nmf import Config
    from jaxgen.data import Spec

USERS = 256  # whose scores for all items stand in memory at once


def predict(factors: jax.Array, user: jax.Array, item: jax.Array, num_users: int) -> jax.Array:
    """Ratings [B] of pairs, `user` and `item` int32 [B]; `factors` [U + I, K] has the users' rows, then the items'."""
    return jnp.sum(factors[user] * factors[num_users + item], 1)


def products(other: jax.Array, rating: jax.Array, weight: jax.Array) -> jax.Array:
    """What each rating adds to the sums of its row: r h and, after it, h hᵀ; other [B, K] → [B, K + K²]."""
    square = other[:, :, None] * other[:, None, :]
    return jnp.concatenate([rating[:, None] * other, square.reshape(other.shape[0], -1)], 1) * weight[:, None]


def solve(factors: jax.Array, sums: jax.Array, solver: str, num_iters: int, l2: float) -> jax.Array:
    """Rows [R, K] after `num_iters` updates by their `sums` [R, K + K²]; rows without a rating stay as they are."""
    num = factors.shape[1]

    def row(f, total):
        gram = total[num:].reshape(num, num) + l2 * jnp.eye(num)
        again = lambda i, f: SOLVERS[solver](f, total[:num, None], gram)
        return jnp.where(total[num:].any(), jax.lax.fori_loop(0, num_iters, again, f[:, None])[:, 0], f)

    return jax.vmap(row)(factors, sums)


def recommend(
    factors: jax.Array, users: jax.Array, num_users: int, top_n: int, seen: jax.Array | None = None
) -> dict[str, jax.Array]:
    """The items with the highest predicted ratings.

    Args:
      factors: [U + I, K].
      users: int32 [n].
      num_users: U.
      top_n: at most so many, N = min(top_n, I).
      seen: bool [U, I], what not to recommend.

    Returns:
      `user` [n], `item` int32 [n, N], the best first and -1 where nothing is left, and their `score` [n, N].
    """
    items = factors[num_users:]

    def best(user):
        scores = matmul(items, factors[user])  # [I]
        if seen is not None:
            scores = jnp.where(seen[user], -jnp.inf, scores)
        score, item = jax.lax.top_k(scores, min(top_n, len(items)))
        left = jnp.isfinite(score)
        return {"user": user, "item": jnp.where(left, item, -1), "score": jnp.where(left, score, 0.0)}

    return jax.lax.map(best, users, batch_size=USERS)


def make(cfg: Config, spec: Spec) -> Method:
    """NMF of the `user`, `item`, `rating` triplets of `spec`; the options are checked by `nmf.make`.

    `step` reports `loss`, the batch's mean squared error, and `updates`, how often a factor has moved: once an epoch,
    not a batch. `evaluate` gives the loss of held-out ratings, the RMSE's square.
    `sample` recommends items to users: those of `cond={"user": [num]}`, or else all, in an order that the key decides.

    Raises:
      ValueError: options that ratings do not have.
    """
    if cfg.loss != "frobenius":
        raise ValueError(f"ratings have the squared error alone: set method.loss='frobenius', not {cfg.loss!r}")
    (num_users,), (num_items,) = spec.sizes["user"], spec.sizes["item"]
    count, num = spec.count("train"), cfg.num_parts

    def init(key, batch, warm=None):
        mean = batch["rating"].mean()
        draw = jax.random.uniform(key, (num_users + num_items, num), minval=0.5, maxval=1.5)
        state = {"factors": jnp.sqrt(mean / num) * draw, "sums": jnp.zeros((num_users + num_items, num + num**2))}
        state |= {"updates": jnp.zeros((), jnp.int32), "seen": jnp.zeros((), jnp.int32)}
        return state | ({"rated": jnp.zeros((num_users, num_items), bool)} if cfg.exclude_seen else {})

    def step(state, batch, key):
        user, item, rating = batch["user"], batch["item"], batch["rating"]
        size = rating.shape[0]

        def add(carry, weight):
            factors, turn = carry["factors"], carry["updates"] % 2 == 1  # the users' turn, then the items'
            row, other = jnp.where(turn, num_users + item, user), jnp.where(turn, user, num_users + item)
            sums = carry["sums"].at[row].add(products(factors[other], rating, weight))
            error = jnp.sum(weight * (rating - predict(factors, user, item, num_users)) ** 2) / size
            return {**carry, "sums": sums, "loss": carry["loss"] + error}

        def finish(carry, weight):
            factors = solve(carry["factors"], carry["sums"], cfg.solver, cfg.num_inner, cfg.l2)
            sums, updates = jnp.zeros_like(carry["sums"]), carry["updates"] + 1
            return {**carry, "factors": factors, "sums": sums, "updates": updates}

        carry, seen = in_epochs({**state, "loss": jnp.zeros(())}, state["seen"], size, count, add, finish)
        state = {name: carry[name] for name in state} | {"seen": seen}
        if cfg.exclude_seen:
            state["rated"] = state["rated"].at[user, item].set(True)
        return state, {"loss": carry["loss"], "updates": carry["updates"]}

    def sample(state, key, num_samples, cond=None):
        order = jax.random.permutation(key, num_users)[jnp.arange(num_samples) % num_users]
        return recommend(
            state["factors"], asked_or(order, cond, "user"), num_users, cfg.sample.top_n, state.get("rated")
        )

    def evaluate(state, batch, key):
        error = (batch["rating"] - predict(state["factors"], batch["user"], batch["item"], num_users)) ** 2
        return {"loss": (error, jnp.ones_like(error))}

    reads = ("user", "item", "rating")
    return Method(init, step, sample, evaluate, reads, conditions=("user",), enumerates=True)
