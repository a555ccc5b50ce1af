import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.numerics import discretized_gaussian, gaussian_kl, nats_to_bits, to_pixels, to_unit


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_pixels_survive_the_way_to_the_unit_range_and_back(levels):
    pixels = jnp.arange(levels, dtype=jnp.uint8)
    x = to_unit(pixels, levels)
    assert float(x[0]) == -1 and float(x[-1]) == pytest.approx(1)
    np.testing.assert_array_equal(to_pixels(x, levels), pixels)
    np.testing.assert_array_equal(to_pixels(jnp.array([-3.0, 3.0]), levels), [0, levels - 1])


def test_the_kl_of_gaussians_is_its_integral():
    grid = np.linspace(-12, 12, 20001)
    p, q = stats.norm(0.3, np.exp(0.2)), stats.norm(-0.5, np.exp(0.6))
    integral = np.trapezoid(p.pdf(grid) * (p.logpdf(grid) - q.logpdf(grid)), grid)
    assert float(gaussian_kl(0.3, 0.4, -0.5, 1.2)) == pytest.approx(integral, rel=1e-5)
    assert float(gaussian_kl(0.3, 0.4, 0.3, 0.4)) == 0


def reference(x, mean, log_var, levels):
    """The same in SciPy, float64, on the side where the digits are."""
    half, scale = 1 / (levels - 1), np.exp(log_var / 2)
    upper = np.where(x > 1 - half, np.inf, (x + half - mean) / scale)
    lower = np.where(x < -1 + half, -np.inf, (x - half - mean) / scale)
    norm = stats.norm
    return np.log(np.where(lower > 0, norm.sf(lower) - norm.sf(upper), norm.cdf(upper) - norm.cdf(lower)))


@pytest.mark.parametrize(("mean", "log_var"), [(0.0, 0.0), (0.3, -6.0), (-0.98, -8.0), (1.4, -5.0)])
def test_the_probabilities_of_bins(mean, log_var):
    x = np.linspace(-1, 1, 256)
    ours = discretized_gaussian(jnp.asarray(x, jnp.float32), mean, jnp.float32(log_var), 256)
    with np.errstate(divide="ignore"):
        expected = reference(x, mean, log_var, 256)
    seen = expected > -600  # beyond, SciPy's differences are zero
    assert seen.sum() > 20
    np.testing.assert_allclose(ours[seen], expected[seen], rtol=2e-4, atol=1e-4)
    assert float(jnp.exp(ours).sum()) == pytest.approx(1, abs=1e-5)


def test_far_tails_have_finite_numbers_and_gradients():
    x = jnp.linspace(-1, 1, 256)
    total = lambda mean, log_var: discretized_gaussian(x, mean, log_var, 256).sum()  # noqa: E731
    value, slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(jnp.float32(0.2), jnp.float32(-14.0))
    assert np.isfinite(value) and np.isfinite(slopes).all() and value < -1e6


def test_nats_in_bits():
    assert float(nats_to_bits(jnp.log(8.0))) == pytest.approx(3)
