"""Variational autoencoders: bounds against exact likelihoods, decoders against sums over all they can draw."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.autoencoders import vae
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images, in_memory
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.numerics import discretized_logistic
from jaxgen.optimizer import AdamWConfig

TINY = Experiment(
    vae.Config(
        code=4,
        net=AutoencoderConfig("dense", widths=(16,)),
        num_importance=3,
        optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=5),
    ),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec
logistic = jax.jit(discretized_logistic, static_argnums=3)


def linear_gaussian(stretch):
    """Draws' log-weights [256, 200] and ELBOs [200] of x = Wz + σε, q stretched, and exact log p(x) [200]."""
    rng = np.random.default_rng(0)
    loadings = np.linalg.qr(rng.normal(size=(6, 2)))[0] * np.array([2.0, 1.0])  # orthogonal: the posterior is diagonal
    sigma = 0.5
    x = rng.normal(size=(200, 2)) @ loadings.T + sigma * rng.normal(size=(200, 6))
    covariance = loadings @ loadings.T + sigma**2 * np.eye(6)
    quadratic = np.einsum("bi,ij,bj->b", x, np.linalg.inv(covariance), x)
    exact = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])

    precision = np.diag(loadings.T @ loadings) + sigma**2
    mean = jnp.asarray(x @ loadings / precision, jnp.float32)
    log_var = jnp.broadcast_to(jnp.asarray(np.log(stretch * sigma**2 / precision), jnp.float32), mean.shape)
    x, loadings = jnp.asarray(x, jnp.float32), jnp.asarray(loadings, jnp.float32)

    def draw(key):
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        fit = vae.log_likelihood("gaussian", x, z @ loadings.T, jnp.float32(math.log(sigma)), levels=2)
        return vae.log_weight(fit, z, mean, log_var), vae.elbo(fit, mean, log_var)

    weights, bounds = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(jax.random.key(0), 256))
    return np.asarray(weights), np.asarray(bounds.mean(0)), exact


def test_at_the_closed_form_optimum_the_bound_is_the_exact_likelihood():
    weights, bounds, exact = linear_gaussian(stretch=1.0)
    assert abs(bounds.mean() - exact.mean()) < 0.05
    np.testing.assert_allclose(weights[0], exact, atol=1e-3)  # every draw weighs p(x) under the true posterior


def test_bounds_grow_with_k_towards_the_exact_likelihood():
    weights, bounds, exact = linear_gaussian(stretch=2.0)
    found = [bounds]
    for k in (4, 16, 64):
        parts = weights.reshape(256 // k, k, -1)
        found.append(np.mean(jax.jit(jax.vmap(vae.iwae))(parts), axis=0))
    for low, high in itertools.pairwise([*found, exact]):
        gap = high - low
        assert gap.mean() > -3 * gap.std() / math.sqrt(len(gap))
    # KL(q ‖ p(z|x)) of two variances stretched by 2, by hand.
    assert (exact - bounds).mean() == pytest.approx(2 * 0.5 * (2 - 1 - math.log(2)), abs=0.05)
    assert abs((exact - found[-1]).mean()) < 0.05


def test_evaluation_bounds_the_exact_likelihood_of_a_linear_decoder():
    """Linear networks are probabilistic PCA: x ~ N(b, WWᵀ + σ²I), spread over a bin by u of variance (2/levels)² / 12.

    The encoder is the exact posterior, or has twice its variance: ½ (2 − 1 − log 2) nats a code's number too little.
    """
    rng, levels, sigma, code = np.random.default_rng(0), 256, 0.3, 2
    loadings = np.linalg.qr(rng.normal(size=(6, code)))[0] * np.array([0.6, 0.3])
    draws = rng.normal(size=(400, code)) @ loadings.T + sigma * rng.normal(size=(400, 6))
    image = np.round((np.clip(draws, -1, 1) + 1) * 127.5).astype(np.uint8).reshape(-1, 3, 2, 1)
    covariance = loadings @ loadings.T + sigma**2 * np.eye(6)
    inverse = np.linalg.inv(covariance)
    x = 2 * ((image.reshape(-1, 6) + 0.5) / levels - 0.5)
    quadratic = np.einsum("bi,ij,bj->b", x, inverse, x) + np.trace(inverse) * (2 / levels) ** 2 / 12
    exact = 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1]).mean() - 6 * math.log(2 / levels)

    precision = np.diag(loadings.T @ loadings) + sigma**2
    spec = in_memory({"train": {"image": image}}).spec
    net = AutoencoderConfig("dense", widths=())
    found = {}
    for stretch, k in ((1.0, 64), (2.0, 4), (2.0, 64)):
        method = vae.make(vae.Config(code=code, net=net, likelihood="gaussian", num_importance=k), spec)
        log_var = np.log(stretch * sigma**2 / precision)
        kernel = np.concatenate([loadings / precision, 0 * loadings], 1)
        dense = lambda kernel, bias: {"params": {"out": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}}
        params = {
            "enc": dense(kernel, np.concatenate([0 * log_var, log_var])),
            "dec": dense(loadings.T, np.zeros(6)),
            "log_scale": jnp.float32(math.log(sigma)),
        }
        values = jax.jit(method.evaluate)({"params": params}, {"image": jnp.asarray(image)}, jax.random.key(0))
        found[stretch, k] = {name: float(value.mean()) for name, (value, _) in values.items()}
    right, four, many = found.values()
    assert right["nats/bound"] == pytest.approx(exact, abs=0.05)
    assert right["nats/bound/k=64"] == pytest.approx(exact, abs=0.05)
    gap = code * 0.5 * (1 - math.log(2))
    assert many["nats/bound"] == pytest.approx(exact + gap, abs=0.05)
    assert many["nats/bound"] > four["nats/bound/k=4"] + 0.05 > many["nats/bound/k=64"] + 0.05
    assert many["nats/bound/k=64"] == pytest.approx(exact, abs=0.05)


def test_the_lectures_loss_is_twice_the_negative_bound_and_a_constant():
    x, out, mean, log_var = np.random.default_rng(1).normal(size=(4, 5, 7)).astype(np.float32)
    lecture = np.square(x - out).sum(1) + (np.exp(log_var) - (1 + log_var) + np.square(mean)).sum(1)
    fit = lambda x, out: vae.log_likelihood("gaussian", x, out, jnp.float32(0), levels=2)
    bound = jax.jit(lambda x, out, mean, log_var: vae.elbo(fit(x, out), mean, log_var))
    constant = -2 * bound(x, out, mean, log_var) - lecture
    np.testing.assert_allclose(constant, 7 * math.log(2 * math.pi), rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.37, -1.0, 1.5])
@pytest.mark.parametrize("log_scale", [-6.0, -2.0, 1.0])
def test_a_discretised_logistic_is_a_distribution_over_the_pixels_values(mean, log_scale):
    x = np.linspace(-1, 1, 256)
    found = np.asarray(logistic(jnp.asarray(x, jnp.float32), jnp.float32(mean), jnp.float32(log_scale), 256))
    assert np.isfinite(found).all()
    assert np.exp(found.astype(float)).sum() == pytest.approx(1, abs=1e-4)
    inner = slice(1, -1)
    a, b = ((x[inner] - mean + side / 255) / math.exp(log_scale) for side in (-1, 1))
    expected = 0.5 * (np.tanh(b / 2) - np.tanh(a / 2))
    np.testing.assert_allclose(np.exp(found[inner]), expected, rtol=1e-3, atol=1e-7)


def test_a_bernoulli_decoder_is_a_distribution_over_binary_images():
    images = np.array(list(itertools.product([0, 1], repeat=4)))
    logits = np.array([0.3, -2.0, 1.0, 0.0])
    out = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), images.shape)
    x = jnp.asarray(2 * images - 1, jnp.float32)
    log_likelihood = jax.jit(lambda x, out: vae.log_likelihood("bernoulli", x, out, jnp.float32(0), levels=2))
    found = np.exp(log_likelihood(x, out))
    ones = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(found, np.where(images, ones, 1 - ones).prod(1), rtol=1e-5)
    assert found.sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic", "bernoulli"])
def test_bits_are_nats_by_dimension_and_a_bernoulli_decoder_of_grey_has_none(likelihood):
    method = vae.make(dataclasses.replace(TINY.method, likelihood=likelihood), SPEC)
    data = TINY.data.load()
    batch = {"image": jnp.asarray(data.read("train", np.arange(8), ("image",))["image"])}
    evaluate = lambda key: method.evaluate(method.init(key, batch), batch, jax.random.key(1))
    found = jax.jit(evaluate)(jax.random.key(0))
    if likelihood == "bernoulli":
        assert found.keys() == {"loss"}
        return
    for name in ("bound", "bound/k=3"):
        nats, bits = (np.asarray(found[f"{unit}/{name}"][0]) for unit in ("nats", "bits_per_dim"))
        np.testing.assert_allclose(bits, nats / (64 * math.log(2)), rtol=1e-5)
    np.testing.assert_allclose(found["loss"][0], found["nats/bound"][0] / 64, rtol=1e-5)


def test_known_pictures_are_reconstructed_and_joined_by_rows():
    cfg = dataclasses.replace(TINY.method, sample=vae.SampleConfig(interpolate=3))
    known = jnp.asarray(TINY.data.load().read("test", np.arange(2), ("image",))["image"])
    methods = [vae.make(config, SPEC) for config in (TINY.method, cfg)]

    @jax.jit
    def draw(key):
        state = methods[0].init(key, {"image": known})
        return [method.sample(state, jax.random.key(1), 2, {"known": known}) for method in methods]

    plain, rows = draw(jax.random.key(0))
    rows = rows["frames"]
    np.testing.assert_array_equal(plain["frames"][:, 0], known)
    assert rows.shape == (2, 3, 8, 8, 1)
    np.testing.assert_array_equal(rows[:, 0], plain["image"])
    np.testing.assert_array_equal(rows[:, -1], plain["image"][::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"likelihood": "gausian"}, "gausian"),
        ({"sigma": 0.0}, "sigma"),
        ({"likelihood": "bernoulli", "sigma": 1.0}, "means nothing"),
        ({"beta": -1.0}, "beta"),
        ({"num_importance": 0}, "num_importance"),
        ({"code": 0}, "code"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        vae.make(dataclasses.replace(TINY.method, **change), SPEC)
