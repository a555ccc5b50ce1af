"""Tangents of manifolds that are known, and Tangent Prop against directional derivatives."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen.autoencoders import ae, contractive, denoising, tangents
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images, in_memory
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder
from jaxgen.numerics import to_fraction
from jaxgen.optimizer import AdamWConfig

DENSE = AutoencoderConfig("dense", widths=(16,))
TINY = Experiment(
    tangents.Config(
        num_tangents=2, net=DENSE, code=4, encoder=DENSE, optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=5)
    ),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec


def points_on_a_circle(num):
    """Points [B, 20] of a circle of radius 2 in a plane of R²⁰, their unit tangents, and the plane [2, 20]."""

    @jax.jit
    def draw(key_plane, key_t):
        plane = jnp.linalg.qr(jax.random.normal(key_plane, (20, 2)))[0].T
        t = jax.random.uniform(key_t, (num,), maxval=2 * jnp.pi)
        ring = lambda t: jnp.stack([jnp.cos(t), jnp.sin(t)], 1)
        return 2.0 * ring(t) @ plane, ring(t + jnp.pi / 2) @ plane, plane

    return draw(jax.random.key(0), jax.random.key(1))


@pytest.fixture(scope="module")
def circle():
    return points_on_a_circle(50)


def test_columns_of_v_are_the_tangents_of_a_circle(circle):
    """f(x) = Px / ‖Px‖ changes along the circle alone, by 1/radius; rows of V (erratum E8) are something else."""
    x, true, plane = circle

    def encode(x):
        flat = x @ plane.T
        return flat / jnp.linalg.norm(flat, axis=1, keepdims=True)

    found, jacobian = jax.jit(lambda x: (tangents.tangent_vectors(encode, x, 2), tangents.jacobian(encode, x)))(x)
    cosines = np.abs(np.sum(found.vectors[:, 0] * true, 1))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-5)
    np.testing.assert_allclose(found.values, np.tile([0.5, 0.0], (50, 1)), atol=1e-5)
    np.testing.assert_array_equal(tangents.intrinsic_dimension(found.values), 1)
    _, _, vh = np.linalg.svd(jacobian)
    assert np.median(np.abs(np.sum(vh[:, :, 0] * true, 1))) < 0.7  # a row of V


def test_two_dimensions_are_found_in_a_product_of_circles():
    """The torus in R⁴: two tangents, of the lengths of the two angles' gradients."""
    x = jnp.array([[3.0, 0.0, 0.0, 1.0], [0.0, 3.0, 1.0, 0.0]])
    encode = lambda x: jnp.stack([jnp.arctan2(x[:, 1], x[:, 0]), jnp.arctan2(x[:, 3], x[:, 2]), 0 * x[:, 0]], 1)
    found = jax.jit(lambda x: tangents.tangent_vectors(encode, x, 3))(x)
    np.testing.assert_allclose(found.values, [[1, 1 / 3, 0]] * 2, atol=1e-6)
    np.testing.assert_allclose(np.abs(found.vectors[:, :2]), [np.eye(4)[[2, 1]], np.eye(4)[[3, 0]]], atol=1e-6)
    np.testing.assert_array_equal(tangents.intrinsic_dimension(found.values, 0.95), 2)
    np.testing.assert_array_equal(tangents.intrinsic_dimension(found.values, 0.8), 1)


CIRCLE = {
    "code": 8,
    "net": AutoencoderConfig("dense", widths=(64, 64), activation="tanh"),
    "optimizer": AdamWConfig(5e-3, warmup_steps=20),
}


# Measured: 0.44, 0.989, 0.996.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "cfg", "low", "high"),
    [
        (ae.make, ae.Config(**CIRCLE), 0.0, 0.7),
        (contractive.make, contractive.Config(weight=0.3, num_probes=0, **CIRCLE), 0.97, 1.0),
        (denoising.make, denoising.Config(amount=0.25, **CIRCLE), 0.97, 1.0),
    ],
    ids=["plain", "contractive", "denoising"],
)
def test_contraction_and_denoising_teach_what_a_plain_encoder_does_not_know(make, cfg, low, high):
    """The median |cos| of the first tangent and the circle's own, of pictures of 4 × 5 pixels on a circle in R²⁰.

    No picture leaves the circle's plane, so that nothing tells a plain encoder to be deaf across it.
    """
    x, true, _ = points_on_a_circle(200)
    image = jnp.round(255 * (0.5 + 0.49 / jnp.abs(x).max() * x)).astype(jnp.uint8).reshape(-1, 4, 5, 1)
    batch = {"image": image}
    method = make(cfg, in_memory({"train": {"image": np.asarray(image)}}).spec)

    @jax.jit
    def train(state):
        keys = jax.random.split(jax.random.key(3), 3000)
        return jax.lax.scan(lambda state, key: method.step(state, batch, key), state, keys)

    state, _ = train(jax.jit(method.init)(jax.random.key(2), batch))
    encoder = {"params": state["params"]["params"]["encoder"]}
    encode = lambda x: Encoder(cfg.net, cfg.code).apply(encoder, x)
    found = jax.jit(lambda x: tangents.tangent_vectors(encode, x, 1))(to_fraction(image, 256))
    cosine = float(jnp.median(jnp.abs(jnp.sum(found.vectors[:, 0] * true, 1))))
    assert low <= cosine <= high


def test_the_jacobian_is_autodiffs_and_no_more_tangents_than_it_has():
    net = Encoder(AutoencoderConfig(widths=(4, 4), hidden=8), 3)
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 2))

    @jax.jit
    def both(key):
        params = net.init(key, x)
        expected = jax.lax.map(jax.jacrev(lambda x: net.apply(params, x[None])[0]), x).reshape(4, 3, 32)
        return tangents.jacobian(lambda x: net.apply(params, x), x), expected

    found, expected = both(jax.random.key(1))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="of 32 numbers to 3 has no 4 tangents"):
        jax.eval_shape(lambda x: tangents.tangent_vectors(lambda x: x.reshape(4, 32)[:, :3], x, 4), x)


def test_the_penalty_is_the_sum_of_squared_directional_derivatives():
    """Each by `jax.jvp`, forward mode through a dense network."""
    net = Encoder(DENSE, 3)
    x = jax.random.normal(jax.random.key(0), (4, 2, 3, 1))
    vectors = jax.random.normal(jax.random.key(2), (4, 5, 6))

    @jax.jit
    def both(key):
        params = net.init(key, x)
        logits = lambda x: net.apply(params, x)
        along = [jax.jvp(logits, (x,), (vectors[:, k].reshape(x.shape),))[1] for k in range(5)]
        still = tangents.tangent_penalty(lambda x: x.reshape(4, 6)[:, :1], x, vectors.at[:, :, 0].set(0.0))
        return tangents.tangent_penalty(logits, x, vectors), along, still

    found, along, still = both(jax.random.key(1))
    np.testing.assert_allclose(found, sum(np.square(d).sum(1) for d in along), rtol=1e-4)
    np.testing.assert_array_equal(still, 0)  # deaf along them


def test_it_starts_from_an_autoencoders_encoder_and_leaves_it_unchanged():
    cfg = ae.Config(code=4, net=DENSE)
    batch = TINY.data.load().read("train", np.arange(16), ("image", "label"))
    warm = jax.jit(ae.make(cfg, SPEC).init)(jax.random.key(0), batch)["params"]
    method = tangents.make(TINY.method, SPEC)
    state = jax.jit(method.init)(jax.random.key(1), batch, {"encoder": warm})
    harness.assert_bitwise(state["encoder"]["params"], warm["params"]["encoder"])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, jax.eval_shape(method.init, jax.random.key(1), batch))
    after, metrics = jax.jit(method.step)(state, batch, jax.random.key(2))
    harness.assert_bitwise(after["encoder"], state["encoder"])
    x, net = to_fraction(batch["image"], 17), Encoder(DENSE, 10)

    @jax.jit
    def by_hand(state, x):
        found = tangents.tangent_vectors(lambda x: Encoder(DENSE, 4).apply(state["encoder"], x), x, 2)
        return tangents.tangent_penalty(lambda x: net.apply(state["params"], x), x, found.vectors).mean()

    assert float(metrics["penalty"]) == pytest.approx(float(by_hand(state, x)), rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["error"] + 0.1 * metrics["penalty"]), rel=1e-5)


def test_without_weight_it_is_a_plain_classifier():
    method = tangents.make(dataclasses.replace(TINY.method, weight=0.0), SPEC)
    batch = TINY.data.load().read("train", np.arange(16), ("image", "label"))
    state = jax.jit(method.init)(jax.random.key(0), batch)
    _, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    assert metrics["loss"] == metrics["error"] and "penalty" not in metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "method.weight=-1.0"),
        ({"num_tangents": 5}, "1…4"),
        ({"encoder": AutoencoderConfig(widths=(4,) * 5)}, "take fewer levels"),
    ],
)
def test_what_cannot_be_done_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        tangents.make(dataclasses.replace(TINY.method, **changes), SPEC)


def test_labels_are_needed():
    with pytest.raises(ValueError, match="no 'label' to read; there are: attribute"):
        tangents.make(TINY.method, Images("faces").load().spec)
