"""Variational autoencoders (Kingma & Welling 2014, arXiv 1312.6114): latent codes and a bound on log p(x).

A code z ~ N(0, I), a decoder p(x|z), and an encoder q(z|x) = N(μ, diag e^s), s = log σ², that make the bound

  log p(x) ≥ ELBO = E_q log p(x|z) − ½ Σ (e^s − 1 − s + μ²)

as high as it goes; with k draws of z it is tighter (importance weighted, Burda et al. 2016, arXiv 1509.00519):
log p(x) ≥ E log 1/k Σ_i p(x|z_i) p(z_i) / q(z_i|x).

Lecture erratum E7: its penalty exp(σ) − (1 + σ) + ‖μ‖² holds for σ read as log-variance; ‖x − a‖² plus it is then
2 × (−ELBO) and a constant, for a Gaussian decoder of variance 1. A decoder's variance is an option here.

Pixels stand in [-1, 1]. A Gaussian's density sees them uniformly dequantised, so that it bounds the probability of the
discrete image; a discretised logistic has that probability itself. A Bernoulli decoder takes grey for a probability:
no likelihood of pixels of more than two values, of which it reports no bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.autoencoders.codes import rows
from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.method import Method, gradient_method
from jaxgen.nets.autoencoder import AutoencoderConfig, Decoder, Encoder, check_autoencoder
from jaxgen.numerics import bits_per_dim, dequantize, discretized_logistic, gaussian_kl, quantize, to_pixels, to_unit
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec

Likelihood = Literal["gaussian", "bernoulli", "logistic"]


@dataclass(frozen=True)
class SampleConfig:
    """What `sample` shows."""

    interpolate: int = 0
    """Each sample becomes a row of so many pictures, decoded between its code and the next one's; 0 for none."""


@dataclass(frozen=True)
class Config:
    """Variational autoencoder."""

    code: int = 32
    """K, the numbers of z."""
    net: AutoencoderConfig = AutoencoderConfig()
    """Encoder and decoder."""
    likelihood: Likelihood = "logistic"
    """p(x|z): `gaussian`, `bernoulli`, or `logistic` over the bins of the pixels' values."""
    sigma: float | None = None
    """The Gaussian's σ or the logistic's scale, of pixels in [-1, 1]; None learns one for all pixels."""
    beta: float = 1.0
    """Weight of the KL term in training (Higgins et al. 2017); the bounds reported have weight 1."""
    num_importance: int = 16
    """k of the importance weighted bound in evaluation; 1 for the ELBO alone."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """What `sample` shows."""


def gaussian_log_density(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """log N(x; mean, e^log_var), element by element, in nats; the arguments broadcast."""
    return -0.5 * (jnp.square(x - mean) * jnp.exp(-log_var) + log_var + math.log(2 * math.pi))


def log_likelihood(kind: Likelihood, x: jax.Array, out: jax.Array, log_scale: jax.Array, levels: int) -> jax.Array:
    """log p(x|z), summed over all axes but the first: [B] in nats.

    Args:
      kind: the decoder's distribution.
      x: [B, ...], dequantised for `gaussian`; pixels in [-1, 1].
      out: the decoder's output: the mean, or the logits of `bernoulli`.
      log_scale: scalar, log σ or the logistic's log scale; unused by `bernoulli`.
      levels: number of values of a pixel.

    Returns:
      Of the discrete pixels (`logistic`), a lower bound on it in expectation over the noise (`gaussian`: the density,
      times a bin's volume), or minus the cross-entropy of grey as a probability (`bernoulli`).
    """
    if kind == "bernoulli":
        terms = 0.5 * (x + 1) * out - jax.nn.softplus(out)
    elif kind == "logistic":
        terms = discretized_logistic(x, out, log_scale, levels)
    else:
        terms = gaussian_log_density(x, out, 2 * log_scale) + math.log(2 / levels)
    return terms.reshape(len(x), -1).sum(1)


def elbo(log_px: jax.Array, mean: jax.Array, log_var: jax.Array, beta: float = 1.0) -> jax.Array:
    """log p(x|z) [B] − β KL(N(mean, e^log_var) ‖ N(0, I)), mean and log_var [B, K]: [B] in nats."""
    return log_px - beta * gaussian_kl(mean, log_var, jnp.zeros((1, 1)), jnp.zeros((1, 1))).sum(1)


def log_weight(log_px: jax.Array, z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """log p(x|z) p(z) / q(z|x) for log p(x|z) [B] and z drawn from q, all [B, K]: [B] in nats."""
    prior = gaussian_log_density(z, jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    return log_px + (prior - gaussian_log_density(z, mean, log_var)).sum(1)


def iwae(log_weights: jax.Array) -> jax.Array:
    """The importance weighted bound of log-weights [k, B]: log of their mean weight, [B] in nats."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `make` cannot follow."""
    check_choice("method.likelihood", cfg.likelihood, get_args(Likelihood))
    for fine, message in (
        (cfg.code >= 1, f"code={cfg.code} must be 1 or more"),
        (cfg.accumulate >= 1, f"accumulate={cfg.accumulate} must be 1 or more"),
        (cfg.num_importance >= 1, f"num_importance={cfg.num_importance} must be 1 or more"),
        (cfg.beta >= 0, f"beta={cfg.beta} must be 0 or more"),
        (cfg.sigma is None or cfg.sigma > 0, f"sigma={cfg.sigma} must be above 0, or None to learn it"),
        (cfg.sigma is None or cfg.likelihood != "bernoulli", "sigma means nothing with likelihood=bernoulli"),
        (cfg.sample.interpolate == 0 or cfg.sample.interpolate >= 2, "sample.interpolate must be 2 or more, or 0"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")
    check_autoencoder("method.net", cfg.net, *spec.shape("image")[:2])


def make(cfg: Config, spec: Spec) -> Method:
    """A VAE of the images of `spec`.

    `sample` decodes z ~ N(0, I), or takes `known` uint8 [num, H, W, C], pictures to reconstruct. `evaluate` gives
    `loss`; in nats an image `nats/bound` (−ELBO) and `nats/bound/k=…` (importance weighted); the same in bits per
    dimension as `bits_per_dim/bound` and `bits_per_dim/bound/k=…`. A Bernoulli decoder of pixels of more than two
    values gives `loss` alone.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the network cannot take images of that size.
    """
    check(cfg, spec)
    shape, levels = spec.shape("image"), spec.levels
    dim = math.prod(shape)
    enc, dec = Encoder(cfg.net, 2 * cfg.code), Decoder(cfg.net, shape[:2], shape[2])
    learned = cfg.sigma is None and cfg.likelihood != "bernoulli"

    def init_params(key, batch, warm=None):
        key_enc, key_dec = jax.random.split(key)
        params = {
            "enc": enc.init(key_enc, to_unit(batch["image"][:1], levels)),
            "dec": dec.init(key_dec, jnp.zeros((1, cfg.code))),
        }
        return params | ({"log_scale": jnp.float32(-1.0)} if learned else {})

    def encode(params, x):
        return jnp.split(enc.apply(params["enc"], x), 2, axis=1)

    def show(params, z):
        out = dec.apply(params["dec"], z)
        if cfg.likelihood == "gaussian":
            return quantize(0.5 * out, levels)
        return to_pixels(2 * nn.sigmoid(out) - 1 if cfg.likelihood == "bernoulli" else out, levels)

    def read(image, u):
        """Pixels in [-1, 1]: spread over their bins for a density, as they are for a discrete decoder."""
        return 2 * dequantize(image, u, levels) if cfg.likelihood == "gaussian" else to_unit(image, levels)

    def log_px(params, x, z):
        log_scale = params["log_scale"] if learned else jnp.float32(math.log(cfg.sigma or 1.0))
        return log_likelihood(cfg.likelihood, x, dec.apply(params["dec"], z), log_scale, levels)

    def draw(key, batch):
        key_u, key_z = jax.random.split(key)
        size = len(batch["image"])
        return {"u": jax.random.uniform(key_u, (size, *shape)), "eps": jax.random.normal(key_z, (size, cfg.code))}

    def terms(params, image, noise):
        """log p(x|z), z, and μ, s of q(z|x)."""
        x = read(image, noise["u"])
        mean, log_var = encode(params, x)
        z = mean + jnp.exp(0.5 * log_var) * noise["eps"]
        return log_px(params, x, z), z, mean, log_var

    def loss_fn(params, batch, noise):
        fit, _, mean, log_var = terms(params, batch["image"], noise)
        loss = -elbo(fit, mean, log_var, cfg.beta).mean() / dim
        kl = (fit - elbo(fit, mean, log_var)).mean()
        return loss, {"reconstruction": -fit.mean(), "kl": kl}

    def sample(state, key, num, cond=None):
        check_keys(cond, "known")
        params = state["params"]
        if cond:
            z = encode(params, read(cond["known"], 0.5))[0]
        else:
            z = jax.random.normal(key, (num, cfg.code))
        if cfg.sample.interpolate:
            return rows(lambda z: show(params, z), z, cfg.sample.interpolate)
        image = show(params, z)
        return {"image": image, "frames": jnp.stack([cond["known"], image], 1)} if cond else {"image": image}

    def evaluate(state, batch, key):
        def once(key):
            fit, z, mean, log_var = terms(state["params"], batch["image"], draw(key, batch))
            both = elbo(fit, mean, log_var), elbo(fit, mean, log_var, cfg.beta)
            return *both, log_weight(fit, z, mean, log_var)

        # One dequantisation a draw: the bound is over the noise, too.
        bound, weighted, weights = jax.lax.map(once, jax.random.split(key, cfg.num_importance))  # [k, B]
        values = {"loss": -weighted.mean(0) / dim}
        if cfg.likelihood != "bernoulli" or levels == 2:
            nats = {"bound": -bound.mean(0)}
            if cfg.num_importance > 1:
                nats[f"bound/k={cfg.num_importance}"] = -iwae(weights)
            values |= {f"nats/{name}": value for name, value in nats.items()}
            values |= {f"bits_per_dim/{name}": bits_per_dim(-value, dim) for name, value in nats.items()}
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    tx = adamw(cfg.optimizer)
    method = gradient_method(init_params, loss_fn, tx, sample, evaluate, draw=draw, accumulate=cfg.accumulate)
    return method._replace(conditions=("known",))
