"""What the two directions of a divergence fit, and that the forward one is maximum likelihood."""

import jax.numpy as jnp
import numpy as np
import pytest

from docs.figures.divergences import X, divergence, fit, log_bumps


def test_forward_covers_both_bumps_and_reverse_seeks_one():
    """Forward by moments: mean 0, variance 9 + ¼; reverse: the bump that the start leans to, as if it were alone."""
    assert fit("forward", 1.0, 1.0) == pytest.approx((0.0, 9.25**0.5), abs=1e-3)
    for sign in (-1.0, 1.0):
        assert fit("reverse", sign, 1.0) == pytest.approx((3 * sign, 0.5), abs=0.01)
    # Half of the mass is given away, and no more: KL(q ‖ p) is log 2 for a q that is one of the bumps.
    assert float(divergence("reverse", jnp.float32(3.0), jnp.float32(0.5))) == pytest.approx(np.log(2), abs=1e-4)


def test_the_least_divergence_is_the_greatest_likelihood():
    """Of 100,000 evenly spaced quantiles of the bumps, whose likeliest Gaussian has their mean and deviation."""
    density = np.exp(np.asarray(log_bumps(X), np.float64))
    steps = np.diff(np.asarray(X, np.float64))
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * steps)])
    some = density > 1e-12
    data = np.interp((np.arange(100_000) + 0.5) / 100_000, cumulative[some] / cumulative[-1], np.asarray(X)[some])
    mean, std = fit("forward", 0.5, 2.0)
    assert mean == pytest.approx(data.mean(), abs=1e-4 * 3.04)
    assert std == pytest.approx(data.std(), rel=1e-4)
    means = np.linspace(-1, 1, 41)
    likelihood = [-0.5 * np.mean((data - m) ** 2) / std**2 for m in means]
    divergences = [float(divergence("forward", jnp.float32(m), jnp.float32(std))) for m in means]
    assert np.argmax(likelihood) == np.argmin(divergences) == 20
    np.testing.assert_allclose(np.add(divergences, likelihood), divergences[20] + likelihood[20], atol=1e-4)
