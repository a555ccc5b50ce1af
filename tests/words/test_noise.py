import jax
import numpy as np
import pytest

from jaxgen.words.noise import alias_table, draw_alias, keep_probability, noise_probability

COUNTS = (900, 90, 9, 1)


def test_keep_probability_is_the_programs_formula():
    # t = 0.01, f = 0.9, 0.09, 0.009, 0.001: √(t/f) + t/f, and never above 1.
    expected = [1 / 90**0.5 + 1 / 90, 1 / 3 + 1 / 9, 1.0, 1.0]
    np.testing.assert_allclose(keep_probability(COUNTS, 0.01), expected, rtol=1e-6)
    np.testing.assert_array_equal(keep_probability(COUNTS, 0), 1.0)


def test_noise_is_flatter_than_the_text():
    weights = np.array([900**0.75, 90**0.75, 9**0.75, 1])
    np.testing.assert_allclose(noise_probability(COUNTS, 0.75), weights / weights.sum())
    np.testing.assert_allclose(noise_probability(COUNTS, 0.0), 0.25)


@pytest.mark.parametrize("num", [1, 2, 7, 1000])
def test_alias_table_holds_the_distribution(num):
    """Every outcome's cells and shares sum to its probability."""
    p = np.random.default_rng(num).dirichlet(np.full(num, 0.3))
    table = alias_table(p)
    assert ((0 <= table.accept) & (table.accept <= 1)).all()
    total = np.bincount(np.arange(num), table.accept, num) + np.bincount(table.other, 1.0 - table.accept, num)
    np.testing.assert_allclose(total / num, p, atol=1e-7)


def test_draws_follow_the_distribution():
    p = noise_probability(COUNTS, 0.75)
    draws = draw_alias(jax.random.key(0), alias_table(p), (100, 1000))
    observed = np.bincount(np.ravel(draws), minlength=4) / 1e5
    np.testing.assert_allclose(observed, p, atol=4 * (p * (1 - p) / 1e5).max() ** 0.5)
