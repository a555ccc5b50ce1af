"""The losses and their steps against brute force: plain loops, and automatic differentiation of whole tables."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.words import objective
from jaxgen.words.huffman import huffman
from jaxgen.words.noise import alias_table, noise_probability
from jaxgen.words.windows import close_up, pair_up, take_chunk

V, D, WINDOW, CHUNK, K = 7, 3, 2, 4, 3
COUNTS = (30, 20, 10, 8, 6, 3, 1)
NOISE = alias_table(noise_probability(COUNTS, 0.75))
PATHS = huffman(COUNTS)
TOKENS = np.array([[0, 1, 2, 0, 3, 4, 1, 0, 5], [6, 0, 0, 1, 2, 2, 5, 3, 1]])
SEGMENT = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 0]])
DOCUMENT = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 1], [2] * 9])


def tables(size=V):
    keys = jax.random.split(jax.random.key(3), 3)
    rows = {"input": V, "output": size, "document": 3}
    return {name: jax.random.normal(key, (rows[name], D)) for name, key in zip(rows, keys, strict=True)}


def text_of():
    batch = {"tokens": jnp.asarray(TOKENS), "segment": jnp.asarray(SEGMENT), "document": jnp.asarray(DOCUMENT)}
    return close_up(batch, batch["segment"] > 0, WINDOW, CHUNK, balance=False)


PAIRS = pair_up(text_of(), jax.random.key(5), WINDOW, 6, balance=False)


def chunk_of(index=0, side="both"):
    text = text_of()
    return jax.device_get(take_chunk(text, index, jax.random.key(5), WINDOW, CHUNK, side))


def targets_of(chunk, softmax, shared=5):
    center = chunk.tokens[:, WINDOW : WINDOW + CHUNK]
    if softmax == "hierarchical":
        return objective.path_targets(center, PATHS)
    return objective.noise_targets(center, jax.random.key(9), NOISE, K, shared)


def terms_of(kind, softmax, shared=5, chunk=None):
    chunk = chunk_of() if chunk is None else chunk
    if kind == "pairs":
        return objective.pair_terms(PAIRS, 1, 6, jax.random.key(9), NOISE, K)
    if kind == "window":
        return objective.window_terms(chunk, targets_of(chunk, softmax, shared))
    targets = targets_of(chunk, softmax, shared)
    if kind == "document":
        chunk = chunk._replace(tokens=chunk.tokens[:, :0], mask=chunk.mask[..., :0])
    return objective.pooled_terms(chunk, targets, documents=kind != "cbow")


KINDS = [
    *itertools.product(("window", "cbow", "dm", "document"), ("negative", "hierarchical"), (5,)),
    *itertools.product(("pairs", "cbow", "dm", "document"), ("negative",), (0,)),
]


def log_sigmoid(z):
    return -math.log1p(math.exp(-float(z)))


def surroundings(chunk, row, c):
    """The words in the window of a center, by the mask alone (`test_windows` checks that)."""
    return [int(t) for t, m in zip(chunk.tokens[row], chunk.mask[row, c], strict=True) if m]


def predictions(kind, chunk, terms, t, row):
    """A row's centers, the vectors that predict them, and the noise words that each pair has to itself."""
    if kind == "pairs":
        for place in range(6, 12):
            if PAIRS.there[row, place]:
                own = terms.own[row, place - 6]
                assert own[0] == PAIRS.center[row, place]
                yield (
                    int(own[0]),
                    np.asarray(t["input"])[int(PAIRS.neighbor[row, place])],
                    [(int(n), 1) for n in own[1:]],
                )
        return
    for c in range(CHUNK):
        for h in hidden_vectors(kind, chunk, t, row, c):
            yield int(chunk.tokens[row, WINDOW + c]), h, [(int(n), 1) for n in terms.own[row, c, 1:]]


def hidden_vectors(kind, chunk, t, row, c):
    x, d = np.asarray(t["input"]), np.asarray(t["document"])[int(chunk.document[row, c])]
    around = [x[w] for w in surroundings(chunk, row, c)]
    if kind == "window":
        return around
    pool = {"cbow": around, "dm": [*around, d], "document": [d]}[kind]
    return [np.mean(pool, 0)] if pool and chunk.there[row, c] else []


def word_loss(center, h, u, softmax, noise):
    """−log P of the hierarchical softmax, or the paper's equation 4 for these (noise word, weight)."""
    if softmax == "hierarchical":
        path = [(n, code) for n, code in zip(PATHS.nodes[center], PATHS.codes[center], strict=True) if code >= 0]
        return -sum(log_sigmoid(u[n] @ h if code == 0 else -u[n] @ h) for n, code in path)
    return -log_sigmoid(u[center] @ h) - sum(w * log_sigmoid(-u[n] @ h) for n, w in noise if n != center)


@pytest.mark.parametrize("kind, softmax, shared", KINDS)
def test_losses_are_those_of_plain_loops(kind, softmax, shared):
    chunk, t = chunk_of(), tables(V - 1 if softmax == "hierarchical" else V)
    terms, u = jax.device_get(terms_of(kind, softmax, shared)), np.asarray(t["output"], np.float64)
    sums, counts = np.zeros(2), np.zeros(2)
    for row in range(2):
        for center, h, own in predictions(kind, chunk, terms, t, row):
            noise = [(int(n), K / shared) for n in terms.shared[row, -shared:]] if shared else own
            sums[row] += word_loss(center, h, u, softmax, noise)
            counts[row] += 1
    np.testing.assert_array_equal(terms.predictions, counts)
    np.testing.assert_allclose(objective.losses(objective.gather(t, terms), terms), sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind, softmax, shared", KINDS)
def test_a_step_is_that_of_automatic_differentiation_on_whole_tables(kind, softmax, shared):
    """With a rate of its own for each row; rows that occur several times take the sum."""
    t = tables(V - 1 if softmax == "hierarchical" else V)
    terms = terms_of(kind, softmax, shared)
    found = jax.grad(lambda t: objective.losses(objective.gather(t, terms), terms).sum())(t)
    rates = {name: jnp.linspace(0.1, 0.5, len(table)) for name, table in t.items()}
    read = {"dm": {"input", "document", "output"}, "document": {"document", "output"}}.get(kind, {"input", "output"})
    trained = {name: rates[name] for name in read}
    new = objective.descend_rows(t, terms, trained)
    for name in t:
        expected = t[name] - rates[name][:, None] * found[name] if name in trained else t[name]
        np.testing.assert_allclose(new[name], expected, rtol=1e-5, atol=1e-6)
        assert (name in trained) == bool((new[name] != t[name]).any())
    frozen = objective.descend_rows(t, terms, {})
    assert all(frozen[name] is t[name] for name in t)


def test_gradient_of_the_loss_in_z_is_the_closed_form():
    z = jnp.linspace(-30.0, 30.0, 41)
    for pos, neg in ((1.0, 0.0), (0.0, 1.0), (0.5, 2.0)):
        terms = terms_of("cbow", "negative")._replace(
            pool=None, own=jnp.zeros((1, 1, 0), int), own_pos=jnp.zeros((1, 1, 0)), own_neg=jnp.zeros((1, 1, 0)),
            shared_pos=jnp.full((1, 1, 41), pos), shared_neg=jnp.full((1, 1, 41), neg),
        )  # fmt: skip
        rows = {"input": jnp.ones((1, 1, 1)), "own": jnp.zeros((1, 1, 0, 1)), "shared": z[None, :, None]}
        by_jax = jax.grad(lambda rows, terms=terms: objective.losses(rows, terms).sum())(rows)
        for name, grad in objective.gradients(rows, terms).items():
            np.testing.assert_allclose(grad, by_jax[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [0, 4])
def test_noise_in_expectation_is_the_papers_sum(shared):
    """E ℓ = −log σ(u_c·h) − K Σ_n P(n) log σ(−u_n·h) over the n that are not c, over 20,000 draws."""
    t, rows, center = tables(), 20_000, 2
    targets = objective.noise_targets(jnp.full((rows, 1), center), jax.random.key(1), NOISE, K, shared)
    chunk = chunk_of()
    chunk = chunk._replace(
        tokens=jnp.full((rows, 1), 4), mask=jnp.ones((rows, 1, 1), bool), there=jnp.ones((rows, 1), bool),
        document=jnp.zeros((rows, 1), int),
    )  # fmt: skip
    terms = objective.pooled_terms(chunk, targets, documents=False)
    losses = np.asarray(objective.losses(objective.gather(t, terms), terms))
    u, h, p = np.asarray(t["output"]), np.asarray(t["input"][4]), noise_probability(COUNTS, 0.75)
    noise = [(n, K * p[n]) for n in range(V)]
    tolerance = 4 * float(losses.std()) / rows**0.5
    assert losses.mean() == pytest.approx(word_loss(center, h, u, "negative", noise), abs=tolerance) and tolerance < 0.1


def test_probabilities_of_the_hierarchical_softmax_sum_to_one():
    t, words = tables(V - 1), jnp.arange(V)[:, None]
    chunk = chunk_of()
    chunk = chunk._replace(
        tokens=jnp.full((V, 2), 4), mask=jnp.ones((V, 1, 2), bool), there=jnp.ones((V, 1), bool),
        document=jnp.zeros((V, 1), int),
    )  # fmt: skip
    terms = objective.pooled_terms(chunk, objective.path_targets(words, PATHS), documents=False)
    probabilities = np.exp(-np.asarray(objective.losses(objective.gather(t, terms), terms), np.float64))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5) and probabilities.max() < 0.9
