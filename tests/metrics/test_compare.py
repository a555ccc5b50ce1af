import numpy as np
import pytest

from jaxgen.metrics.compare import bootstrap_difference
from jaxgen.metrics.distances import frechet_distance, moments


def first_mean(rows):
    return rows[:, 0].mean()


def test_what_both_sets_share_cancels():
    common = np.random.default_rng(0).normal(size=(50, 2)) * 1000
    assert bootstrap_difference(first_mean, common + 3, common, 200) == pytest.approx((3, 3, 3))


def test_the_interval_of_a_mean_is_the_normal_one():
    rng = np.random.default_rng(1)
    b = rng.normal(size=(400, 3)) * 50
    a = b + rng.normal(0.2, 1.0, size=(400, 3))
    found, gaps = bootstrap_difference(first_mean, a, b, 4000), (a - b)[:, 0]
    half = 1.96 * gaps.std() / np.sqrt(400)
    assert found.difference == pytest.approx(gaps.mean())
    assert (found.low, found.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=0.06 * half)


def test_the_interval_holds_the_truth_in_95_of_100_cases():
    rng, held = np.random.default_rng(2), 0
    for seed in range(300):
        b = rng.normal(size=(60, 1))
        a = b + rng.exponential(size=(60, 1)) - 0.5  # the means differ by 1/2
        _, low, high = bootstrap_difference(first_mean, a, b, 200, seed)
        held += low <= 0.5 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_the_interval_of_a_frechet_distance_stands_about_the_difference():
    """Resampling adds to the distance of the set with the larger spread what it does not add to the other's."""
    rng, dim = np.random.default_rng(4), 32
    real = moments(rng.normal(size=(4000, dim)))
    distance = lambda rows: frechet_distance(moments(rows), real).distance  # noqa: E731
    z, held = rng.normal(size=(20, 100, dim)), 0
    large = moments(1.2 * np.random.default_rng(5).normal(size=(200_000, dim)))
    # Sets of 100 are biased as well; the truth for them is the mean over many.
    expected = np.mean([distance(1.2 * x) - distance(x) for x in rng.normal(size=(200, 100, dim))])
    assert expected > frechet_distance(large, real).distance
    for x in z:
        difference, low, high = bootstrap_difference(distance, 1.2 * x, x, 60)
        assert low < difference < high
        held += low <= expected <= high
    assert held >= 17


def test_the_interval_follows_the_seed():
    a, b = np.random.default_rng(3).normal(size=(2, 20, 1))
    assert bootstrap_difference(first_mean, a, b, 50, 0) == bootstrap_difference(first_mean, a, b, 50, 0)
    assert bootstrap_difference(first_mean, a, b, 50, 0) != bootstrap_difference(first_mean, a, b, 50, 1)


def test_sets_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match=r"as many of a as of b, not \[3, 1\] and \[2, 1\]"):
        bootstrap_difference(first_mean, np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="two rows or more"):
        bootstrap_difference(first_mean, np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="2 or more resamplings, not 1"):
        bootstrap_difference(first_mean, np.ones((3, 1)), np.ones((3, 1)), 1)
