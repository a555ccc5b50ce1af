"""Autoencoders (Hinton & Salakhutdinov 2006): an encoder c = f(x) of few numbers and a decoder a = g(c).

  L(θ) = E_x ‖x − g(f(x))‖² / D,   the mean over the D numbers of an image, in [0, 1] as PCA reads them:

−log P(x | c) of a Gaussian decoder of fixed variance, but for scale and constant. Without hidden layers the optimum
spans the principal components (Baldi & Hornik 1989). `denoising` and `contractive` are the same with a corrupted input
or a penalty; they share `build`.

Nothing ties the codes to a distribution: what is decoded from between them need be no image (the lecture's "holes").
`sample` shows it: without a picture to encode it decodes codes drawn from a Gaussian with the training codes' mean and
covariance, so that `jaxgen evaluate` measures how far they lie from the data (`train_distance`, beside the distance of
unseen images).

Deviations: the convolutional decoder repeats pixels and convolves rather than unpool by the encoder's switches, which a
code alone does not have. Lecture erratum E23: a code of 32 real numbers is no "32-bit code", and MNIST is 28×28.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.autoencoders.codes import draw_codes, rows, with_moments
from jaxgen.autoencoders.tangents import intrinsic_dimension, tangent_vectors
from jaxgen.data.condition import check_keys
from jaxgen.method import Method, gradient_method
from jaxgen.nets.autoencoder import AutoencoderConfig, Decoder, Encoder, check_autoencoder
from jaxgen.numerics import to_fraction, to_pixels
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows."""

    interpolate: int = 0
    """Each sample becomes a row of so many pictures, decoded between its code and the next one's; 0 for none."""
    tangents: int = 0
    """Each known picture becomes a row: itself and its so many strongest tangents, grey where zero; 0 for none."""


@dataclass(frozen=True)
class Config:
    """Autoencoder."""

    code: int = 32
    """K, the numbers of a code."""
    net: AutoencoderConfig = AutoencoderConfig()
    """Encoder and decoder."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows."""


class Autoencoder(nn.Module):
    """Encoder and decoder of images of one shape.

    Attributes:
      config: their shape.
      code: K.
      shape: of an image, (H, W, C).
    """

    config: AutoencoderConfig
    code: int
    shape: tuple[int, int, int]

    def setup(self) -> None:
        """Makes the two networks."""
        self.encoder = Encoder(self.config, self.code)
        self.decoder = Decoder(self.config, self.shape[:2], self.shape[2])

    def encode(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] → codes [B, K]."""
        return self.encoder(x)

    def decode(self, z: jax.Array) -> jax.Array:
        """Codes [B, K] → images [B, H, W, C]."""
        return self.decoder(z)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Reconstructs x [B, H, W, C]."""
        return self.decode(self.encode(x))


def write(x: jax.Array, levels: int) -> jax.Array:
    """[0, 1], clipped, → the nearest of 0 … levels-1, uint8."""
    return to_pixels(2.0 * x - 1.0, levels)


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `build` cannot follow."""
    for fine, message in (
        (cfg.code >= 1, f"code={cfg.code} must be 1 or more"),
        (cfg.accumulate >= 1, f"accumulate={cfg.accumulate} must be 1 or more"),
        (cfg.sample.interpolate == 0 or cfg.sample.interpolate >= 2, "sample.interpolate must be 2 or more, or 0"),
        (0 <= cfg.sample.tangents <= cfg.code, f"sample.tangents must lie in 0…{cfg.code}, the code's numbers"),
        (not (cfg.sample.interpolate and cfg.sample.tangents), "sample: interpolate and tangents exclude each other"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")
    check_autoencoder("method.net", cfg.net, *spec.shape("image")[:2])


def build(
    cfg: Config,
    spec: Spec,
    *,
    corrupt: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    penalty: Callable[..., jax.Array] | None = None,
    weight: float = 0.0,
) -> Method:
    """An autoencoder of the images of `spec`, shown corrupted images or penalised if asked.

    `sample` takes `known` uint8 [num, H, W, C], pictures to reconstruct: `frames` then has picture, corrupted picture
    (with `corrupt`) and reconstruction side by side, or what `cfg.sample` asks for, and `singular_values` [num, K] are
    those of the encoder's Jacobian; without pictures it decodes drawn codes. `evaluate` gives `loss`; `error`, the
    squared error of the uncorrupted picture's reconstruction; with `penalty` the exact ‖∂f/∂x‖²_F; and
    `intrinsic_dimension`, how many singular values hold 0.9 of the squared spectrum.

    Args:
      cfg: the options.
      spec: the data's description.
      corrupt: `(keys [B], x [B,H,W,C] in [0, 1]) -> x`, what the encoder is shown.
      penalty: `(encode, x, keys [B]) -> Ω [B]`, ‖∂f/∂x‖²_F or an estimate; the loss is (‖x − a‖² + `weight` Ω) / D.
      weight: λ.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the network cannot take images of that size.
    """
    check(cfg, spec)
    shape, dim = spec.shape("image"), math.prod(spec.shape("image"))
    net, levels = Autoencoder(cfg.net, cfg.code, shape), spec.levels

    def encode(params, x):
        return net.apply(params, x, method="encode")

    def decode(params, z):
        return net.apply(params, z, method="decode")

    def error(x, out):
        return jnp.square(out - x).mean((1, 2, 3))

    def terms(params, x, keys):
        """The loss and its parts, each [B], and the codes of what is shown [B, K]."""
        z = encode(params, x if corrupt is None else corrupt(keys, x))
        lost = error(x, decode(params, z))
        if penalty is None:
            return {"loss": lost}, z
        omega = penalty(lambda x: encode(params, x), x, keys)
        return {"loss": lost + weight / dim * omega, "error": lost, "penalty": omega}, z

    def init_params(key, batch, warm=None):
        return net.init(key, to_fraction(batch["image"][:1], levels))

    def loss_fn(params, batch, keys):
        values, z = terms(params, to_fraction(batch["image"], levels), keys)
        means = {name: value.mean() for name, value in values.items()}
        # The codes' moments need no second pass, if all of the batch went through the first as it is.
        return means.pop("loss"), means | ({"codes": z} if corrupt is None and cfg.accumulate == 1 else {})

    def spectrum(params, x):
        """All tangents of the encoder at x, and what it makes of them."""
        return tangent_vectors(lambda x: encode(params, x), x, min(cfg.code, dim))

    def show(params, z):
        return write(decode(params, z), levels)

    def sample(state, key, num, cond=None):
        check_keys(cond, "known")
        params, options = state["params"], cfg.sample
        if not cond:
            if options.tangents:
                raise ValueError("tangents are those of pictures: pass some, `--known test` for the first of the split")
            z = draw_codes(state["codes"], key, num)
            if not options.interpolate:
                return {"image": show(params, z)}
            return rows(lambda z: show(params, z), z, options.interpolate)
        x = to_fraction(cond["known"], levels)
        shown = [x] if corrupt is None else [x, corrupt(jax.random.split(key, num), x)]
        found = spectrum(params, x)
        if options.tangents:
            vectors = found.vectors[:, : options.tangents]
            high = jnp.abs(vectors).max(2, keepdims=True)
            grey = 0.5 + 0.5 * vectors / jnp.maximum(high, jnp.finfo(high.dtype).tiny)
            frames = jnp.concatenate([x[:, None], grey.reshape(num, -1, *shape)], 1)
            return {"image": cond["known"], "frames": write(frames, levels), "singular_values": found.values}
        z = encode(params, shown[-1])
        if options.interpolate:
            return rows(lambda z: show(params, z), z, options.interpolate)
        frames = write(jnp.stack([*shown, decode(params, z)], 1), levels)
        return {"image": frames[:, -1], "frames": frames, "singular_values": found.values}

    def evaluate(state, batch, key):
        x = to_fraction(batch["image"], levels)
        values, _ = terms(state["params"], x, jax.random.split(key, len(x)))
        values["error"] = error(x, net.apply(state["params"], x))
        found = spectrum(state["params"], x)
        if penalty is not None:  # which training may estimate
            values["penalty"] = jnp.square(found.values).sum(1)
            values["loss"] = values["error"] + weight / dim * values["penalty"]
        values["intrinsic_dimension"] = intrinsic_dimension(found.values).astype(jnp.float32)
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    tx = adamw(cfg.optimizer)
    method = gradient_method(init_params, loss_fn, tx, sample, evaluate, accumulate=cfg.accumulate)
    codes = lambda params, batch: encode(params, to_fraction(batch["image"], levels))
    return with_moments(method, codes, cfg.code)._replace(conditions=("known",))


def make(cfg: Config, spec: Spec) -> Method:
    """An autoencoder of the images of `spec`; see `build`.

    Raises:
      ValueError: see `build`.
    """
    return build(cfg, spec)
