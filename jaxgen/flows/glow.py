"""Glow (Kingma & Dhariwal 2018, arXiv 1807.03039): an invertible network whose likelihood is trained on directly.

  L(θ) = −E_x log p(x),   log p(x) = log N(ε; 0, I) + log|det dε/dx|,   ε = f_θ(x).

Steps of actnorm, invertible 1×1 convolution and coupling, in levels as of Dinh et al. (2017, arXiv 1605.08803) with
learned priors (`multiscale`, `layers`). Pixels are numbers of a grid, of which a density could be infinite: each is
spread evenly over its bin, x = (pixel + u) / levels − ½ with u ~ U[0, 1), and bits/dim are of the pixels,
−log₂ p(x) / D + log₂ levels. Vectors (`x` [B, D], toy data) are taken as they are, by the same flow on images of one
pixel.

Deviations: rational-quadratic splines as couplings (Durkan et al. 2019, arXiv 1906.04032), if asked; Adam with a
warm-up and clipped gradients; a least scale of couplings (`net.min_scale`), without which samples overflow; samples
and metrics by an average of the weights; no actnorm inside the coupling's networks and no learned gain behind their
last layer, which the authors' code has and the paper does not mention.
Lecture errata: E13 (a cascade of 1×1 convolutions is one linear map and gains nothing: it is the coupling that makes
depth count; `net.coupling="none"` shows it), E14 (log|det| of the 1×1 convolution is H·W·log|det W|: the lecture's
det(W)^(W·H) lacks the absolute value, and its W is matrix and width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jaxgen.flows.multiscale import Flow, FlowConfig
from jaxgen.method import Method, gradient_method, with_ema
from jaxgen.numerics import bits_per_dim, dequantize, quantize
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn."""

    temperature: float = 1.0
    """Factor of the noise: below 1 samples are likelier and less diverse; the paper shows 0.7."""


@dataclass(frozen=True)
class Config:
    """Glow."""

    net: FlowConfig = FlowConfig()
    """The flow."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    ema_decay: float = 0.999
    """Decay of the weights' average, with which samples are drawn."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """How samples are drawn."""


def make(cfg: Config, spec: Spec) -> Method:
    """Glow on the images of `spec`, or on its vectors where it has no images; reads `image` [B,H,W,C] or `x` [B,D].

    `evaluate` gives `loss` and `bits_per_dim/exact`, the same number: of the likelihood itself, with one u for each
    example. Its mean over u bounds −log₂ P(pixels) / D from above (Theis et al. 2016, arXiv 1511.01844, section 3.1).
    Of vectors it is the density's, −log₂ p(x) / D, which may be negative.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data does not fit the flow.
    """
    if not 0 <= cfg.sample.temperature < math.inf:
        raise ValueError(f"method.sample.temperature={cfg.sample.temperature} must be 0 or more, and finite")
    if cfg.accumulate < 1:
        raise ValueError(f"method.accumulate={cfg.accumulate} must be 1 or more")
    images = "image" in spec.shapes
    name = "image" if images else "x"
    shape = spec.shape(name) if images else (1, 1, *spec.shape(name))
    flow, dim, levels = Flow(cfg.net, shape), math.prod(shape), spec.levels if images else 1

    def draw_noise(key, batch):
        return {"u": jax.random.uniform(key, batch[name].shape)} if images else {}

    def read(batch, noise):
        x = dequantize(batch[name], noise["u"], levels) if images else batch[name]
        return x.reshape(-1, *shape)

    def init_params(key, batch, warm=None):
        key_noise, key_flow = jax.random.split(key)
        return flow.init(key_flow, read(batch, draw_noise(key_noise, batch)))

    def bits(params, batch, noise):
        return bits_per_dim(flow.log_prob(params, read(batch, noise)), dim, levels)

    def sample(state, key, num, cond=None):
        shapes = flow.noise_shapes(num)
        keys = jax.random.split(key, len(shapes))
        eps = [cfg.sample.temperature * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        x = flow.inverse(state["params"], eps)
        return {"image": quantize(x, levels)} if images else {"x": x.reshape(num, dim)}

    def evaluate(state, batch, key):
        value = bits(state["params"], batch, draw_noise(key, batch))
        return {metric: (value, jnp.ones_like(value)) for metric in ("loss", "bits_per_dim/exact")}

    method = gradient_method(
        init_params,
        lambda params, batch, noise: (bits(params, batch, noise).mean(), {}),
        optax.masked(adamw(cfg.optimizer), trained),
        sample,
        evaluate,
        draw=draw_noise,
        accumulate=cfg.accumulate,
        reads=(name,),
    )
    return with_ema(method, decay=cfg.ema_decay)


def trained(params: Any) -> Any:
    """Which parameters the optimizer sees: all but the fixed permutations, which weight decay would shrink."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "permutation", params)
