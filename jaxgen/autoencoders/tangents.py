"""Tangents of the data's manifold from an encoder, and a classifier that is deaf along them (Tangent Prop).

The Jacobian of an encoder f at x, J = U S Vᵀ [K, D], has few large singular values; the columns of V that belong to
them span the manifold's tangent space at x (Rifai et al. 2011, NIPS, "The Manifold Tangent Classifier"). Points on one
manifold share a label, so the classifier's logits h should not change along the tangents v_k (Simard et al. 1992):

  L(θ) = E_{x, y} [−log P_θ(y | x) + λ Σ_c Σ_k (∇h_c(x)ᵀ v_k)²]

Lecture errata, corrected: E8 (the tangents are columns of V, not rows), E9 (the derivatives are squared: their sum is
signed and has no lower bound).

Deviations: the tangents come from the encoder of a plain, denoising or contractive autoencoder, frozen and named by
`init_from`, and are found anew at each image. Few labels are a matter of the data: a large `data.validation` leaves few
to train on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.method import Method, descend
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder, check_autoencoder
from jaxgen.numerics import cross_entropy, to_fraction
from jaxgen.optimizer import AdamWConfig, adamw
from jaxgen.sharding import over_batch

if TYPE_CHECKING:
    from jaxgen.data import Spec

Function = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Config:
    """Tangent Prop: a classifier regularised along an encoder's tangents."""

    weight: float = 0.1
    """λ, the weight of the squared derivatives along the tangents; 0 for a classifier without them."""
    num_tangents: int = 8
    """Tangents an image, those of the largest singular values."""
    net: AutoencoderConfig = AutoencoderConfig("dense", widths=(256, 128))
    """The classifier: an encoder whose features are the logits."""
    code: int = 32
    """K of the autoencoder that the tangents come from."""
    encoder: AutoencoderConfig = AutoencoderConfig("dense", widths=(512, 256))
    """Its networks, as that run's config has them in `method.net`."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""


class Tangents(NamedTuple):
    """The strongest directions of a Jacobian: singular values [B, n], falling, and unit vectors [B, n, D]."""

    values: jax.Array
    vectors: jax.Array


def jacobian(function: Function, x: jax.Array) -> jax.Array:
    """∂f/∂x [B, K, D] at x [B, ...] of `function`, [B, ...] → [B, K], which treats each example by itself.

    One vector-Jacobian product of the whole batch for each of the K outputs, one after the other, so that memory stays
    flat; forward mode, which `nets.conv` does not have on CPUs, is not needed.
    """
    out, pull = jax.vjp(function, x)
    num = out.shape[1]
    basis = jnp.broadcast_to(jnp.eye(num, dtype=out.dtype)[:, None], (num, *out.shape))
    rows = jax.lax.map(lambda u: pull(u)[0], basis)  # [K, B, ...]
    return rows.reshape(num, len(x), -1).swapaxes(0, 1)


def tangent_vectors(encode: Function, x: jax.Array, num: int) -> Tangents:
    """The `num` strongest tangents at x [B, ...]: columns of V of the encoder's Jacobian, as rows; their sign is free.

    Raises:
      ValueError: more than the Jacobian's smaller side has.
    """

    def decompose(found):
        _, values, vectors = jnp.linalg.svd(found, full_matrices=False)
        return (), Tangents(values[:, :num], vectors[:, :num])

    found = jacobian(encode, x)
    if not 1 <= num <= min(found.shape[1:]):
        raise ValueError(f"an encoder of {found.shape[2]} numbers to {found.shape[1]} has no {num} tangents")
    return over_batch(decompose, found)[1]


def intrinsic_dimension(values: jax.Array, share: float = 0.9) -> jax.Array:
    """How many of the singular values [B, n], falling, make up `share` of Σ s²: [B], 1 … n."""
    energy = jnp.cumsum(jnp.square(values), 1)
    return 1 + (energy < share * energy[:, -1:]).sum(1)


def tangent_penalty(function: Function, x: jax.Array, vectors: jax.Array) -> jax.Array:
    """Σ_c Σ_k (∇h_c(x)ᵀ v_k)² [B] of `function`, x [B, ...] → [B, c], along vectors [B, n, D] (Simard et al. 1992)."""
    return jnp.square(jnp.einsum("bcd,bkd->bck", jacobian(function, x), vectors)).sum((1, 2))


def make(cfg: Config, spec: Spec) -> Method:
    """A classifier of the images of `spec`, with tangents; reads `image` and `label`.

    It starts from `encoder`, the `params` of a run of an autoencoder: without it the tangents are those of a random
    network. `evaluate` gives `loss`, the cross-entropy in nats, and `accuracy/label`; the step also `error` and, with a
    weight, `penalty`. It does not sample.

    Raises:
      ValueError: the data has no labels, or an option that is unknown or out of range.
    """
    if "label" not in spec.sizes:
        raise ValueError(f"the data has no 'label' to read; there are: {', '.join(spec.sizes) or 'none'}")
    if not cfg.weight >= 0:
        raise ValueError(f"method.weight={cfg.weight} must be 0 or more")
    if not 1 <= cfg.num_tangents <= cfg.code:
        raise ValueError(f"method.num_tangents={cfg.num_tangents} must lie in 1…{cfg.code}, the encoder's code")
    for name, shape in (("net", cfg.net), ("encoder", cfg.encoder)):
        check_autoencoder(f"method.{name}", shape, *spec.shape("image")[:2])
    encoder, net = Encoder(cfg.encoder, cfg.code), Encoder(cfg.net, spec.sizes["label"][0])
    tx = adamw(cfg.optimizer)

    def read(batch):
        return to_fraction(batch["image"], spec.levels)

    def init(key, batch, warm=None):
        key_net, key_encoder = jax.random.split(key)
        x = read({"image": batch["image"][:1]})
        params = net.init(key_net, x)
        if warm:
            frozen = {"params": warm["encoder"]["params"]["encoder"]}
        else:
            frozen = encoder.init(key_encoder, x)
        return {"params": params, "opt_state": tx.init(params), "encoder": frozen}

    def loss_fn(params, batch, vectors):
        x = read(batch)
        error = cross_entropy(net.apply(params, x), batch["label"]).mean()
        if vectors is None:
            return error, {"error": error}
        penalty = tangent_penalty(lambda x: net.apply(params, x), x, vectors).mean()
        return error + cfg.weight * penalty, {"error": error, "penalty": penalty}

    def step(state, batch, key):
        vectors = None
        if cfg.weight:
            vectors = tangent_vectors(lambda x: encoder.apply(state["encoder"], x), read(batch), cfg.num_tangents)[1]
        params, opt_state, metrics = descend(tx, loss_fn, state["params"], state["opt_state"], batch, vectors)
        return {**state, "params": params, "opt_state": opt_state}, metrics

    def evaluate(state, batch, key):
        logits = net.apply(state["params"], read(batch))
        right = (logits.argmax(1) == batch["label"]).astype(jnp.float32)
        values = {"loss": cross_entropy(logits, batch["label"]), "accuracy/label": right}
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    return Method(init, step, None, evaluate, reads=("image", "label"), starts_from=("encoder",))
