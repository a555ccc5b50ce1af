"""The objective that word2vec and doc2vec share, and its gradient step on the few rows of the tables that it touches.

A hidden vector h, one word's or the mean of a window, predicts a word c. With negative sampling (Mikolov et al. 2013,
arXiv 1310.4546, equation 4), and with the hierarchical softmax (equation 3, see `huffman`):

  ℓ = −log σ(u_c·h) − Σ_{k ≤ K} log σ(−u_{n_k}·h),   n_k ~ count^0.75          ℓ = −Σ_{n on c's path} log σ(± u_n·h).

Both are sums of log-sigmoids of ± u·h, so one loss serves all: Σ pos·softplus(−z) + neg·softplus(z), z = u·h, whose
gradient in z is (pos + neg) σ(z) − pos. Only the rows that a chunk reads are touched; no gradient of a whole table [V,
D] exists.

Noise words can be `shared`: M of them serve all pairs of a row's chunk, each weighted K/M, which leaves the
objective's expectation as it is and turns dot products into matrix products (Ji et al. 2016, arXiv 1604.04661). A
noise word that is the true word does not count, as in the authors' program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxgen.sharding import constrain
from jaxgen.words.huffman import Paths
from jaxgen.words.noise import Alias, draw_alias
from jaxgen.words.windows import Chunk, Pairs

COLUMNS = ("fsdp", "tensor")
RULES = ((r"params/", P(None, COLUMNS)),)  # a table's rows are read by all devices; its columns can be split


class Targets(NamedTuple):
    """What each center's hidden vectors are held against: rows of the output table of its own, and shared ones."""

    own: jax.Array
    """int32 [B, C, L]."""
    own_pos: jax.Array
    """Weights of "yes", float32 [B, C, L]."""
    own_neg: jax.Array
    """Weights of "no", float32 [B, C, L]."""
    shared: jax.Array
    """int32 [B, M]; always answered "no"."""
    shared_neg: jax.Array
    """float32 [B, C, M]."""


class Terms(NamedTuple):
    """A chunk's losses: which rows of the tables, how they become hidden vectors, and what those are held against."""

    inputs: jax.Array
    """Rows of `input`, int32 [B, S]."""
    documents: jax.Array
    """Rows of `document`, int32 [B, P], or [B, 0] without documents."""
    pool: jax.Array | None
    """Weights of inputs and document in each hidden vector, float32 [B, P, S + 1]; None: the inputs are the vectors."""
    own: jax.Array
    """Rows of `output` that one hidden vector is held against, int32 [B, P, L]."""
    own_pos: jax.Array
    """float32 [B, P, L]."""
    own_neg: jax.Array
    """float32 [B, P, L]."""
    shared: jax.Array
    """Rows of `output` that all hidden vectors of a row of the batch are held against, int32 [B, M]."""
    shared_pos: jax.Array
    """float32 [B, P, M]."""
    shared_neg: jax.Array
    """float32 [B, P, M]."""
    predictions: jax.Array
    """How many there are in each row of the batch, float32 [B]; the loss is a mean over them."""


def path_targets(center: jax.Array, paths: Paths) -> Targets:
    """The hierarchical softmax: a center [B, C] is held against the nodes on its path."""
    codes = jnp.asarray(paths.codes)[center]
    nodes = jnp.asarray(paths.nodes)[center]
    size, num = center.shape
    nothing = jnp.zeros((size, 0), jnp.int32), jnp.zeros((size, num, 0))
    return Targets(nodes, (codes == 0).astype(jnp.float32), (codes == 1).astype(jnp.float32), *nothing)


def noise_targets(center: jax.Array, key: jax.Array, noise: Alias, num: int, shared: int) -> Targets:
    """Negative sampling: a center [B, C] against itself and `num` noise words, its own ones when `shared` is 0."""
    size, chunk = center.shape
    one = jnp.ones((size, chunk, 1))
    if shared:
        drawn = draw_alias(key, noise, (size, shared))
        weight = (drawn[:, None, :] != center[..., None]) * (num / shared)
        return Targets(center[..., None], one, 0 * one, drawn, weight)
    drawn = draw_alias(key, noise, (size, chunk, num))
    own = jnp.concatenate([center[..., None], drawn], -1)
    pos = jnp.concatenate([one, jnp.zeros(drawn.shape)], -1)
    neg = jnp.concatenate([0 * one, (drawn != center[..., None]).astype(jnp.float32)], -1)
    return Targets(own, pos, neg, jnp.zeros((size, 0), jnp.int32), jnp.zeros((size, chunk, 0)))


def pooled_terms(chunk: Chunk, targets: Targets, *, documents: bool) -> Terms:
    """The mean of a center's window, and of its document if asked, predicts the center: CBOW, PV-DM, PV-DBOW.

    A center without anything to predict it from has no loss.
    """
    mask = chunk.mask.astype(jnp.float32)
    pool = jnp.concatenate([mask, jnp.full((*mask.shape[:2], 1), float(documents))], -1)  # [B, C, S + 1]
    num = pool.sum(-1)
    predicted = (chunk.there & (num > 0)).astype(jnp.float32)
    pool = pool / jnp.maximum(num, 1)[..., None]
    weigh = lambda weights: weights * predicted[..., None]
    return Terms(
        inputs=chunk.tokens,
        documents=chunk.document if documents else chunk.document[:, :0],
        pool=pool,
        own=targets.own,
        own_pos=weigh(targets.own_pos),
        own_neg=weigh(targets.own_neg),
        shared=targets.shared,
        shared_pos=jnp.zeros(targets.shared_neg.shape),
        shared_neg=weigh(targets.shared_neg),
        predictions=predicted.sum(1),
    )


def window_terms(chunk: Chunk, targets: Targets) -> Terms:
    """Every word of a center's window predicts the center: skip-gram, in the direction of the authors' program."""
    mask = chunk.mask.astype(jnp.float32).swapaxes(1, 2)  # [B, S, C]
    size, num, _ = mask.shape
    spread = lambda weights: (mask[..., None] * weights[:, None]).reshape(size, num, -1)  # [B, C, L] → [B, S, C L]
    shared_neg = jnp.einsum("bsc,bcm->bsm", mask, targets.shared_neg)
    return Terms(
        inputs=chunk.tokens,
        documents=chunk.document[:, :0],
        pool=None,
        own=jnp.zeros((size, num, 0), jnp.int32),
        own_pos=jnp.zeros((size, num, 0)),
        own_neg=jnp.zeros((size, num, 0)),
        shared=jnp.concatenate([targets.own.reshape(size, -1), targets.shared], 1),
        shared_pos=jnp.concatenate([spread(targets.own_pos), jnp.zeros(shared_neg.shape)], 2),
        shared_neg=jnp.concatenate([spread(targets.own_neg), shared_neg], 2),
        predictions=mask.sum((1, 2)),
    )


def pair_terms(pairs: Pairs, index: jax.Array, chunk: int, key: jax.Array, noise: Alias, num: int) -> Terms:
    """Skip-gram with negative sampling to the letter: every pair of words draws `num` noise words of its own.

    Chunk number `index` of the `pairs`, `chunk` of every row.
    """
    center, neighbor, there = (jax.lax.dynamic_slice_in_dim(x, index * chunk, chunk, 1) for x in pairs[:3])
    size, weight = len(center), there.astype(jnp.float32)
    targets = noise_targets(center, key, noise, num, 0)
    weigh = lambda weights: weights * weight[..., None]
    return Terms(
        inputs=neighbor,
        documents=jnp.zeros((size, 0), jnp.int32),
        pool=None,
        own=targets.own,
        own_pos=weigh(targets.own_pos),
        own_neg=weigh(targets.own_neg),
        shared=targets.shared,
        shared_pos=targets.shared_neg,
        shared_neg=targets.shared_neg,
        predictions=weight.sum(1),
    )


Tables = Mapping[str, jax.Array]

IN_BOUNDS = "promise_in_bounds"  # words, documents and nodes are rows of their tables: checks cost a tenth to a quarter


def gather(tables: Tables, terms: Terms) -> dict[str, jax.Array]:
    """The rows that a chunk reads: `own`, `shared`, and `input` and `document` where it has such."""
    read = lambda name, rows: tables[name].at[rows].get(mode=IN_BOUNDS)
    rows = {"own": read("output", terms.own), "shared": read("output", terms.shared)}  # [B, P, L, D], [B, M, D]
    if terms.inputs.size:
        rows["input"] = read("input", terms.inputs)  # [B, S, D]
    if terms.documents.size:
        rows["document"] = read("document", terms.documents)  # [B, P, D]
    return rows


def logits(rows: Mapping[str, jax.Array], pool: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """z = u·h, with the own rows [B, P, L] and with the shared ones [B, P, M]."""
    if pool is None:
        hidden = rows["input"]
    else:
        hidden = pool[..., -1:] * rows["document"] if "document" in rows else jnp.zeros(())
        if "input" in rows:
            hidden = hidden + jnp.einsum("bps,bsd->bpd", pool[..., :-1], rows["input"])
    own = jnp.einsum("bpd,bpld->bpl", hidden, rows["own"])
    return own, jnp.einsum("bpd,bmd->bpm", hidden, rows["shared"])


def losses(rows: Mapping[str, jax.Array], terms: Terms) -> jax.Array:
    """Σ pos·softplus(−z) + neg·softplus(z) over each row of the batch, in nats, [B]."""
    own, shared = logits(rows, terms.pool)
    nll = lambda z, pos, neg: ((pos + neg) * jax.nn.softplus(z) - pos * z).sum((1, 2))
    return nll(own, terms.own_pos, terms.own_neg) + nll(shared, terms.shared_pos, terms.shared_neg)


def gradients(rows: Mapping[str, jax.Array], terms: Terms) -> dict[str, jax.Array]:
    """The gradient of Σ `losses` in each of `rows`: in z by the closed form, in what z is linear in by `vjp`."""
    (own, shared), pull_back = jax.vjp(lambda rows: logits(rows, terms.pool), dict(rows))
    slope = lambda z, pos, neg: (pos + neg) * jax.nn.sigmoid(z) - pos
    (found,) = pull_back((slope(own, terms.own_pos, terms.own_neg), slope(shared, terms.shared_pos, terms.shared_neg)))
    return found


def descend_rows(tables: Tables, terms: Terms, rates: Tables) -> dict[str, jax.Array]:
    """One gradient step on the rows that a chunk touches, of the tables that `rates` names.

    `rates` gives each row of a table its step, [V]; a row that is touched several times takes the sum, as it would one
    after the other to first order. The updates, not the tables, travel between devices: each adds all of them, in one
    order, so that the tables stay alike to the bit.
    """
    found = gradients(gather(tables, terms), terms)
    flat = lambda x: x.reshape(-1, x.shape[-1])
    updates = {"output": [(terms.own, found["own"]), (terms.shared, found["shared"])]}
    for name, ids in (("input", terms.inputs), ("document", terms.documents)):
        if name in found:
            updates[name] = [(ids, found[name])]
    new = dict(tables)
    for name, rate in rates.items():
        # One scatter a table: a second one would copy it.
        rows = constrain(jnp.concatenate([ids.ravel() for ids, _ in updates[name]]), P())
        grads = constrain(jnp.concatenate([flat(grad) for _, grad in updates[name]]), P(None, COLUMNS))
        steps = rate.at[rows].get(mode=IN_BOUNDS)[:, None] * grads
        new[name] = tables[name].at[rows].add(-steps, mode=IN_BOUNDS)
    return new
