"""Encoders and decoders: shapes, independence of the examples, no checkerboards, and errors."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.metrics.images import nyquist_energy
from jaxgen.nets.autoencoder import AutoencoderConfig, Decoder, Encoder, check_autoencoder

CONV = AutoencoderConfig(widths=(4, 8), hidden=8)
DENSE = AutoencoderConfig("dense", widths=(8,))
LINEAR = AutoencoderConfig("dense", widths=(), activation="identity")


@pytest.mark.parametrize("config", [CONV, DENSE, LINEAR], ids=["conv", "dense", "linear"])
def test_codes_and_images_have_their_shapes_and_see_their_own_example_alone(config):
    encoder, decoder = Encoder(config, 3), Decoder(config, (6, 8), 2)
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 1))
    params = encoder.init(jax.random.key(1), x), decoder.init(jax.random.key(2), jnp.zeros((1, 3)))
    run = jax.jit(lambda x: (z := encoder.apply(params[0], x), decoder.apply(params[1], z)))
    z, out = run(x)
    assert z.shape == (2, 3) and out.shape == (2, 6, 8, 2)
    other_z, other = run(x.at[1].add(1.0))
    np.testing.assert_allclose(z[0], other_z[0], atol=1e-6)
    np.testing.assert_allclose(out[0], other[0], atol=1e-6)
    assert jnp.abs(out[1] - other[1]).max() > 1e-4


def test_a_linear_network_is_linear():
    encoder = Encoder(LINEAR, 3)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    params = encoder.init(jax.random.key(1), x)
    kernel = params["params"]["out"]["kernel"]
    assert kernel.shape == (16, 3) and len(params["params"]) == 1
    np.testing.assert_allclose(encoder.apply(params, x), x.reshape(2, 16) @ kernel, atol=1e-5)


class Transposed(nn.Module):
    """The same decoder with strided transposed convolutions in place of repetition."""

    @nn.compact
    def __call__(self, z):
        h = nn.silu(nn.Dense(4 * 4 * 16)(z)).reshape(len(z), 4, 4, 16)
        for channels in (16, 8):
            h = nn.silu(nn.Conv(channels, (3, 3))(h))
            h = nn.silu(nn.ConvTranspose(channels, (3, 3), strides=(2, 2))(h))
        return nn.Conv(1, (3, 3))(h)


def test_the_decoder_draws_no_checkerboard():
    """Odena et al. 2016: at random weights, a tenth of the transposed convolutions' energy at the Nyquist frequency."""
    z = jax.random.normal(jax.random.key(0), (64, 8))

    def energy(net):
        images = jax.jit(lambda z: net.apply(net.init(jax.random.key(1), z), z))(z)
        images = (images - images.min()) / (images.max() - images.min())
        return nyquist_energy(np.round(255 * np.asarray(images)).astype(np.uint8), 256)

    ours = energy(Decoder(AutoencoderConfig(widths=(8, 16, 16), hidden=16), (16, 16), 1))
    assert 0 < ours < 0.1 * energy(Transposed())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "cnv"}, "did you mean conv"),
        ({"activation": "relu"}, "net.activation"),
        ({"widths": (8, 0)}, "1 or more"),
        ({"widths": ()}, "one level or more"),
        ({"widths": (8, 8, 8)}, "6×8 does not divide by 4: take fewer levels"),
    ],
)
def test_what_cannot_be_built_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        check_autoencoder("method.net", dataclasses.replace(CONV, **changes), 6, 8)
