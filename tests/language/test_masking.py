"""Masking: how many tokens are chosen, which never are, and what becomes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.language.masking import mask_tokens

MASK, WORDS, ROWS, LENGTH = 4, np.arange(5, 1005, dtype=np.int32), 4000, 100


@pytest.fixture(scope="module")
def drawn():
    """400,000 tokens, a tenth of which are not free, and what was drawn of them; none of them is one of `WORDS`."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2000, 3000, (ROWS, LENGTH)).astype(np.int32)
    free = rng.random((ROWS, LENGTH)) > 0.1
    free[0] = False
    masked = jax.jit(lambda key: mask_tokens(key, tokens, jnp.asarray(free), 0.15, MASK, WORDS))(jax.random.key(0))
    return tokens, free, jax.tree.map(np.asarray, masked)


def test_counts_are_within_a_hundredth(drawn):
    """15 %; of these 80 % hidden, 10 % random, 10 % as they are."""
    tokens, free, masked = drawn
    assert masked.weight.sum() == pytest.approx(0.15 * free.sum(), rel=0.01)
    by_row = 0.15 * free.sum(1)
    assert (abs(masked.weight.sum(1) - by_row) < 1).all() and masked.weight[0].sum() == 0
    new = np.take_along_axis(masked.tokens, masked.places, 1)[masked.weight > 0]
    old = masked.labels[masked.weight > 0]
    assert (new == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (new == old).mean() == pytest.approx(0.1, abs=0.01)
    assert ((new != MASK) & (new != old)).mean() == pytest.approx(0.1, abs=0.01)


def test_only_the_chosen_change_and_the_free_are_chosen(drawn):
    tokens, free, masked = drawn
    chosen = np.zeros_like(free)
    rows, columns = np.nonzero(masked.weight)
    chosen[rows, masked.places[rows, columns]] = True
    assert chosen.sum() == masked.weight.sum(), "a token was chosen twice"
    assert not (chosen & ~free).any()
    np.testing.assert_array_equal(masked.tokens[~chosen], tokens[~chosen])
    np.testing.assert_array_equal(masked.labels, np.take_along_axis(tokens, masked.places, 1))
    replaced = masked.tokens[chosen & (masked.tokens != MASK) & (masked.tokens != tokens)]
    counts = np.bincount(replaced, minlength=1005)
    assert counts.sum() == counts[WORDS].sum() and (counts[WORDS] > 0).mean() > 0.95, "no even draw of the words"
    assert counts.max() < 4 * counts[WORDS].mean()


def test_another_key_chooses_others(drawn):
    tokens, free, masked = drawn
    few, free = jnp.asarray(tokens[:50]), jnp.asarray(free[:50])
    a, b = (mask_tokens(jax.random.key(seed), few, free, 0.15, MASK, WORDS) for seed in (1, 2))
    assert (a.tokens != b.tokens).any()
