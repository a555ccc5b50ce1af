"""Contractive autoencoders: the penalty against autodiff, and its estimate without bias."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.autoencoders import contractive
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder
from jaxgen.numerics import to_fraction
from jaxgen.optimizer import AdamWConfig

OPTIMIZER = AdamWConfig(learning_rate=3e-3, warmup_steps=5)
TINY = Experiment(
    contractive.Config(code=4, net=AutoencoderConfig("dense", widths=(16,)), optimizer=OPTIMIZER, weight=1.0),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec
NETS = {
    "dense": AutoencoderConfig("dense", widths=(8,)),
    "conv": AutoencoderConfig(widths=(4, 4), hidden=8, activation="tanh"),
}


@functools.cache
def encoder_of(name):
    """An encoder of 4×4 images to 3 numbers, as a function of its parameters, with some images."""
    net = Encoder(NETS[name], 3)
    x = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    return net.apply, jax.jit(net.init)(jax.random.key(1), x), x


def autodiff(apply, params, x):
    """‖∂f/∂x‖²_F of each example by itself: [B]."""
    one = lambda x: apply(params, x[None])[0]
    return jnp.square(jax.lax.map(jax.jacrev(one), x)).sum((1, 2, 3, 4))


@pytest.mark.parametrize("name", NETS)
def test_the_exact_penalty_and_its_gradient_are_autodiffs(name):
    apply, params, x = encoder_of(name)

    @jax.jit
    def with_gradient(params):
        ours = lambda params: contractive.exact_penalty(lambda x: apply(params, x), x)
        theirs = lambda params: autodiff(apply, params, x)
        return [(f(params), jax.grad(lambda params, f=f: f(params).sum())(params)) for f in (ours, theirs)]

    (value, gradient), (expected, expected_gradient) = with_gradient(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected_gradient)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_the_estimate_has_no_bias(name):
    """The mean of many within 1 %, and within four standard errors, of the exact penalty; single ones differ."""
    apply, params, x = encoder_of(name)
    encode = lambda x: apply(params, x)
    estimate = lambda keys: contractive.estimated_penalty(encode, x, keys, 8)
    keys = jax.random.split(jax.random.key(2), (2000, 5))
    both = jax.jit(lambda keys: (jax.lax.map(estimate, keys), contractive.exact_penalty(encode, x)))
    draws, exact = map(np.asarray, both(keys))  # [2000, B] and [B]
    error = draws.std(0) / np.sqrt(len(draws))
    assert (error > 0).all() and (error < 0.01 * exact).all()
    assert (np.abs(draws.mean(0) - exact) < 4 * error).all()
    assert float(draws.mean(0).sum()) == pytest.approx(float(exact.sum()), rel=0.01)


def test_the_loss_is_the_error_and_the_weighted_penalty():
    method = contractive.make(dataclasses.replace(TINY.method, weight=3.0, num_probes=0), SPEC)
    image = TINY.data.load().read("test", np.arange(8), ("image",))["image"]
    state = jax.jit(method.init)(jax.random.key(0), {"image": image})
    evaluated = jax.jit(method.evaluate)(state, {"image": image}, jax.random.key(1))
    values = {name: num for name, (num, _) in evaluated.items()}
    np.testing.assert_allclose(values["loss"], values["error"] + 3.0 / 64 * values["penalty"], rtol=1e-5)
    net = Encoder(TINY.method.net, 4)
    params = {"params": state["params"]["params"]["encoder"]}
    expected = jax.jit(lambda params, x: autodiff(net.apply, params, x))(params, to_fraction(image, 17))
    np.testing.assert_allclose(values["penalty"], expected, rtol=1e-4)
    assert ((values["intrinsic_dimension"] >= 1) & (values["intrinsic_dimension"] <= 4)).all()
    _, metrics = jax.jit(method.step)(state, {"image": image}, jax.random.key(2))
    for name in ("loss", "error", "penalty"):
        assert float(metrics[name]) == pytest.approx(float(values[name].mean()), rel=1e-4)


@pytest.mark.parametrize("name", ["weight", "num_probes"])
def test_what_cannot_be_done_is_said(name):
    with pytest.raises(ValueError, match=f"method.{name}=-1"):
        contractive.make(dataclasses.replace(TINY.method, **{name: -1}), SPEC)
