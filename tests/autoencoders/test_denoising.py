"""Denoising autoencoders: the noises by their statistics, and what is compared with what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.autoencoders import denoising
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

TINY = Experiment(
    denoising.Config(
        code=4,
        net=AutoencoderConfig("dense", widths=(16,)),
        optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=5),
        noise="salt_pepper",
    ),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec


def noisy(noise, amount, value=0.4):
    """Two channels of constant images, corrupted: [50, 20, 20, 2]."""
    corrupted = jax.jit(lambda keys, x: denoising.corrupted(keys, x, noise, amount))
    return np.asarray(corrupted(jax.random.split(jax.random.key(0), 50), jnp.full((50, 20, 20, 2), value)))


def test_gaussian_noise_has_its_spread_and_knows_no_neighbours():
    x = noisy("gaussian", 0.3) - 0.4
    np.testing.assert_allclose([x.mean(), x.std()], [0, 0.3], atol=0.01)
    flat = x.reshape(50, -1)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.15  # each image has noise of its own
    assert abs(np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("noise", "white"), [("mask", 0.0), ("salt_pepper", 0.15)])
def test_single_pixels_change_in_their_share_with_all_their_channels(noise, white):
    x = noisy(noise, 0.3)
    np.testing.assert_array_equal(x[..., 0], x[..., 1])
    pixels = x[..., 0]
    assert set(np.unique(pixels)) == {np.float32(v) for v in (0, 0.4, 1) if v < 1 or white}
    black = 0.3 - white
    np.testing.assert_allclose([(pixels == 0).mean(), (pixels == 1).mean()], [black, white], atol=0.015)
    assert np.std((pixels != np.float32(0.4)).mean((1, 2))) > 0.01  # not the same pixels in each image


def test_the_clean_picture_is_the_target():
    """A decoder that gives back the mean of the clean pictures: the loss is their variance, whatever the noise."""
    method = denoising.make(dataclasses.replace(TINY.method, noise="gaussian", amount=2.0), SPEC)
    image = TINY.data.load().read("test", np.arange(64), ("image",))["image"]
    state = jax.jit(method.init)(jax.random.key(0), {"image": image})
    zeros = jax.tree.map(jnp.zeros_like, state["params"])
    mean = (image / 16).mean(0)
    zeros["params"]["decoder"]["out"]["bias"] = jnp.asarray(mean.ravel(), jnp.float32)
    values = jax.jit(method.evaluate)({**state, "params": zeros}, {"image": image}, jax.random.key(1))
    for name in ("loss", "error"):
        np.testing.assert_allclose(values[name][0], ((image / 16 - mean) ** 2).mean((1, 2, 3)), rtol=1e-4)


def test_the_error_is_that_of_the_clean_picture_the_loss_that_of_the_noisy_one():
    method = denoising.make(TINY.method, SPEC)
    image = TINY.data.load().read("test", np.arange(8), ("image",))["image"]
    state = jax.jit(method.init)(jax.random.key(0), {"image": image})
    evaluate = jax.jit(method.evaluate)
    a, b = (evaluate(state, {"image": image}, jax.random.key(i)) for i in (1, 2))
    np.testing.assert_array_equal(a["error"][0], b["error"][0])
    assert jnp.abs(a["loss"][0] - b["loss"][0]).min() > 0
    drawn = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(1), 8, {"known": jnp.asarray(image)})[
        "frames"
    ]
    assert drawn.shape == (8, 3, 8, 8, 1)  # picture, noisy picture, reconstruction
    changed = np.asarray(drawn[:, 1])[np.asarray(drawn[:, 1] != drawn[:, 0])]
    np.testing.assert_array_equal(drawn[:, 0], image)
    assert set(np.unique(changed)) == {0, 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "salt"}, "method.noise"),
        ({"noise": "mask", "amount": 1.5}, "at most 1"),
        ({"noise": "gaussian", "amount": -1.0}, "0 or more"),
        ({"noise": "gaussian", "amount": float("nan")}, "0 or more"),
    ],
)
def test_what_cannot_be_done_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        denoising.make(dataclasses.replace(TINY.method, **changes), SPEC)
