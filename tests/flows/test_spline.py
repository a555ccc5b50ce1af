"""Rational-quadratic splines against autodiff and their own definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.flows.spline import num_parameters, rational_quadratic

RAW = jax.random.normal(jax.random.key(0), (num_parameters(5),))


@functools.partial(jax.jit, static_argnames="inverse")
def splines(x, inverse=False, raw=RAW):
    return rational_quadratic(x, jnp.broadcast_to(raw, (*x.shape, raw.size)), 2.0, inverse)


def test_zero_parameters_make_the_identity():
    x = jnp.linspace(-3.0, 3.0, 41)
    y, log_slope = splines(x, raw=jnp.zeros_like(RAW))
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_slope, 0.0, atol=1e-5)


def test_the_logarithm_of_the_slope_is_autodiffs():
    x = jnp.linspace(-2.5, 2.5, 97)
    slopes = jax.jit(jax.vmap(jax.grad(lambda x: splines(x)[0])))(x)
    assert slopes.min() > 0 and slopes.max() / slopes.min() > 5  # increasing, and no straight line
    np.testing.assert_allclose(splines(x)[1], np.log(slopes), atol=1e-5)


def test_the_inverse_undoes_it():
    x = jnp.linspace(-2.5, 2.5, 97)
    y, log_slope = splines(x)
    back, log_slope_back = splines(y, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(log_slope_back, -log_slope, atol=1e-4)


def test_gradients_are_finite_at_and_beyond_the_ends():
    x = jnp.array([-1e6, -2.0, 2.0, 1e6])
    total = lambda raw, x, inverse: sum(out.sum() for out in splines(x, inverse, raw))
    slopes = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)
    for inverse in (False, True):
        assert all(np.isfinite(slope).all() for slope in slopes(RAW, x, inverse))
