"""Non-negative factors as functions of arrays: updates, and codes under fixed parts.

Sources and objectives stand in `nmf`. Either factor is updated by the same functions, since X ≈ W H is Xᵀ ≈ Hᵀ Wᵀ: they
take y [M, n] ≈ g f with g [M, K] fixed and return a better f [K, n].
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxgen.classical.rows import matmul, over_rows

Loss = Literal["frobenius", "kl"]
Solver = Literal["hals", "mu"]
EPS = 1e-12  # keeps what is divided by away from 0


def hals(f: jax.Array, num: jax.Array, gram: jax.Array) -> jax.Array:
    """One sweep over the rows of f [K, n], each set to its best value ≥ 0; num = gᵀy [K, n], gram = gᵀg [K, K]."""

    def row(k, f):
        best = f[k] + (num[k] - matmul(gram[k], f)) / jnp.maximum(gram[k, k], EPS)
        return f.at[k].set(jnp.maximum(best, 0))

    return jax.lax.fori_loop(0, f.shape[0], row, f)


def mu(f: jax.Array, num: jax.Array, gram: jax.Array) -> jax.Array:
    """Lee and Seung's multiplicative update for the squared error, f ∘ gᵀy / (gᵀg f); arguments as for `hals`."""
    return f * num / (matmul(gram, f) + EPS)


SOLVERS = {"hals": hals, "mu": mu}


def products(
    y: jax.Array, g: jax.Array, f: jax.Array, mask: jax.Array | None = None, loss: Loss = "frobenius"
) -> tuple[jax.Array, jax.Array]:
    """What an update of f [K, n] needs of y [M, n] and g [M, K]; sums over the M rows, so that chunks add up.

    Returns:
      For the squared error gᵀy and gᵀg; with a mask [M, n] of the observed entries gᵀ(mask ∘ y) and gᵀ(mask ∘ g f); for
      the divergence gᵀ(mask ∘ y / (g f)) and gᵀ mask. The update of the latter two is f ∘ the quotient.
    """
    if loss == "kl":
        ratio = y / (matmul(g, f) + EPS)
        if mask is None:
            return matmul(g.T, ratio), g.sum(0)[:, None]
        return matmul(g.T, mask * ratio), matmul(g.T, mask)
    if mask is None:
        return matmul(g.T, y), matmul(g.T, g)
    return matmul(g.T, mask * y), matmul(g.T, mask * matmul(g, f))


def update(
    f: jax.Array, found: tuple[jax.Array, jax.Array], solver: Solver, is_gram: bool, num_iters: int = 1
) -> jax.Array:
    """f after `num_iters` updates by `solver` with the `products` found; multiplied once where they hold no gᵀg."""
    num, den = found
    if is_gram:
        return jax.lax.fori_loop(0, num_iters, lambda i, f: SOLVERS[solver](f, num, den), f)
    return f * num / (den + EPS)


def encode(
    x: jax.Array,
    parts: jax.Array,
    num_iters: int,
    mask: jax.Array | None = None,
    loss: Loss = "frobenius",
    solver: Solver = "hals",
) -> jax.Array:
    """The weights W ≥ 0 [N, K] of rows x [N, D] under fixed parts H [K, D]: `num_iters` updates from equal weights.

    For the squared error without gaps a multiplicative update comes before them, which gives the weights x's scale.
    """
    x, mask = x.T, None if mask is None else mask.T
    f = jnp.ones((parts.shape[0], x.shape[1]), x.dtype)
    if loss == "frobenius" and mask is None:
        num, gram = products(x, parts.T, f)
        return update(mu(f, num, gram), (num, gram), solver, True, num_iters).T
    again = lambda i, f: update(f, products(x, parts.T, f, mask, loss), solver, False)
    return jax.lax.fori_loop(0, num_iters, again, f).T


def iterate(
    x: jax.Array,
    w: jax.Array,
    h: jax.Array,
    mask: jax.Array | None = None,
    loss: Loss = "frobenius",
    solver: Solver = "hals",
) -> tuple[jax.Array, jax.Array]:
    """One update of W [N, K], then one of H [K, D], for x [N, D] ≥ 0.

    `mask` [N, D] is 1 where an entry is observed and 0 where it is missing. Neither update raises the objective.
    `solver` chooses for the squared error of a table without gaps; elsewhere the updates are multiplicative. One pass
    over the data.
    """
    is_gram = loss == "frobenius" and mask is None

    def rows(chunk: Any, h: jax.Array) -> tuple[Any, jax.Array]:
        x, w, mask = chunk
        num, den = products(x.T, h.T, w.T, None if mask is None else mask.T, loss)
        if is_gram and solver == "mu":
            num = jax.lax.optimization_barrier(num.T).T  # a product of its own, as w lies
        w = update(w.T, (num, den), solver, is_gram).T
        return products(x, w, h, mask, loss), w

    found, w = over_rows(rows, (x, w, mask), h)
    return w, update(h, found, solver, is_gram)


def errors(
    x: jax.Array, w: jax.Array, h: jax.Array, mask: jax.Array | None = None, loss: Loss = "frobenius"
) -> jax.Array:
    """Each row's squared error, or its divergence Σ x log(x / x̂) − x + x̂ [N]; over the observed entries."""
    y = matmul(w, h)
    each = (x - y) ** 2 if loss == "frobenius" else xlogy(x, x / jnp.maximum(y, EPS)) - x + y
    return jnp.sum(each if mask is None else mask * each, 1)


def fit(
    x: jax.Array,
    w: jax.Array,
    h: jax.Array,
    max_iter: int,
    tol: float = 0.0,
    mask: jax.Array | None = None,
    loss: Loss = "frobenius",
    solver: Solver = "hals",
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Iterates until ten iterations lower the objective by no more than `tol` of its first value; arguments as above.

    Returns:
      W [N, K], H [K, D], the objective [] (sum of `errors`), and the number of iterations.
    """

    def objective(w, h):
        each = lambda chunk, h: (errors(chunk[0], chunk[1], h, chunk[2], loss).sum(), ())
        return over_rows(each, (x, w, mask), h)[0]

    def ten(carry):
        w, h, last, _, number = carry
        num = jnp.minimum(10, max_iter - number)
        w, h = jax.lax.fori_loop(0, num, lambda i, f: iterate(x, f[0], f[1], mask, loss, solver), (w, h))
        return w, h, objective(w, h), last, number + num

    first = objective(w, h)
    going = lambda carry: (carry[4] < max_iter) & ((carry[4] == 0) | (carry[3] - carry[2] > tol * first))
    w, h, value, _, number = jax.lax.while_loop(going, ten, (w, h, first, first, jnp.array(0, jnp.int32)))
    return w, h, value, number
