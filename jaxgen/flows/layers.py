"""The invertible layers of Glow on images [B, H, W, C]; vectors are images of one pixel.

Each is a triple of pure functions, `Layer`: its parameters come from a key and the batch that reaches it, so that what
depends on data (actnorm) is initialised in the one pass that builds the flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.flows.spline import num_parameters, rational_quadratic
from jaxgen.nets.conv import Conv

Coupling = Literal["affine", "additive", "spline", "none"]
Convolution = Literal["plain", "lu"]

_SPLINE_BOUND = 4.0  # actnorm leaves little beyond four standard deviations


class Layer(NamedTuple):
    """An invertible map.

    Attributes:
      init: `(key, x [B,H,W,C]) -> (params, y)`: what depends on the data needs what the layers before make of it.
      forward: `(params, x) -> (y, log|det dy/dx| [B])`, nats.
      inverse: `(params, y) -> x`.
    """

    init: Callable[..., Any]
    forward: Callable[..., tuple[jax.Array, jax.Array]]
    inverse: Callable[..., jax.Array]


def squeeze(x: jax.Array) -> jax.Array:
    """[B, H, W, C] → [B, H/2, W/2, 4C]: each 2 × 2 block becomes one pixel (Dinh et al. 2017, 1605.08803, 3.6)."""
    size, height, width, channels = x.shape
    x = x.reshape(size, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(size, height // 2, width // 2, 4 * channels)


def unsqueeze(x: jax.Array) -> jax.Array:
    """The inverse of `squeeze`."""
    size, height, width, channels = x.shape
    x = x.reshape(size, height, width, channels // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(size, 2 * height, 2 * width, channels // 4)


def _per_image(log_det: jax.Array, x: jax.Array) -> jax.Array:
    """The log-determinant of a pixel's map, a scalar, as that of each image: H·W times as much, [B]."""
    return jnp.broadcast_to(x.shape[1] * x.shape[2] * log_det, x.shape[:1])


def actnorm() -> Layer:
    """y = (x + b) e^s, one b and s a channel: zero mean and unit variance over the first batch (section 3.1).

    The means run over the global batch, however it is split over devices.
    """

    def init(key, x):
        std = jnp.sqrt(jnp.var(x, (0, 1, 2)))
        params = {"bias": -x.mean((0, 1, 2)), "log_scale": -jnp.log(std + 1e-6)}  # a constant channel stays finite
        return params, forward(params, x)[0]

    def forward(params, x):
        y = (x + params["bias"][None, None, None]) * jnp.exp(params["log_scale"])[None, None, None]
        return y, _per_image(params["log_scale"].sum(), x)

    def inverse(params, y):
        return y * jnp.exp(-params["log_scale"])[None, None, None] - params["bias"][None, None, None]

    return Layer(init, forward, inverse)


def convolution(kind: Convolution) -> Layer:
    """The invertible 1×1 convolution y = x W at every pixel, log|det| = H·W·log|det W| (section 3.2).

    W starts as a random rotation. `lu` keeps W = P L e^s U, with L and U triangular of unit diagonal, so that its
    log-determinant is Σ s; P is a permutation with signs, and fixed: it gets no gradient (equation 10; the paper has
    the signs beside s).
    """

    def weight(params):
        if kind == "plain":
            return params["weight"]
        fixed = jax.lax.stop_gradient(params["permutation"])
        unit = jnp.eye(fixed.shape[0])
        lower, upper = jnp.tril(params["lower"], -1) + unit, jnp.triu(params["upper"], 1) + unit
        return fixed @ (lower * jnp.exp(params["log_scale"])[None]) @ upper

    def init(key, x):
        w = jnp.linalg.qr(jax.random.normal(key, (x.shape[-1],) * 2))[0]
        if kind == "plain":
            return {"weight": w}, x @ w
        permutation, lower, upper = jax.scipy.linalg.lu(w)
        scale = jnp.diag(upper)
        sign = jnp.sign(scale)
        params = {
            # L diag(sign) = diag(sign) L', with L' of unit diagonal too: the signs move into P.
            "permutation": permutation * sign[None],
            "lower": lower * sign[:, None] * sign[None],
            "log_scale": jnp.log(jnp.abs(scale)),
            "upper": upper / scale[:, None],
        }
        return params, x @ w

    def forward(params, x):
        log_det = params["log_scale"].sum() if kind == "lu" else jnp.linalg.slogdet(params["weight"])[1]
        return x @ weight(params), _per_image(log_det, x)

    return Layer(init, forward, lambda params, y: y @ jnp.linalg.inv(weight(params)))


class CouplingNet(nn.Module):
    """Convolutions 3×3, 1×1 and 3×3 with ReLUs between; the last starts as zero (section 3.3).

    Attributes:
      width: channels of the hidden layers.
      features: output channels.
    """

    width: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] → [B, H, W, features]."""
        side = 1 if x.shape[1:3] == (1, 1) else 3
        x = nn.relu(Conv(self.width, side, name="first")(x))
        x = nn.relu(Conv(self.width, 1, name="middle")(x))
        return Conv(self.features, side, kernel_init=nn.initializers.zeros, name="last")(x)


def coupling(kind: Coupling, width: int, num_bins: int, min_scale: float = 0.0) -> Layer:
    """The first half of the channels moves the others (section 3.3).

    `affine`: y_b = (x_b + t) s with s = m + (1 - m) sigmoid(r + 2), m the `min_scale`. The authors' code has m = 0;
    then the inverse, which divides by s, explodes for some noise (Behrmann et al. 2021, arXiv 2006.09347, section 4).
    `additive`: y_b = x_b + t; `spline`: a rational-quadratic spline each; `none`: the identity.
    """
    if kind == "none":
        return Layer(lambda key, x: ({}, x), lambda params, x: (x, jnp.zeros(x.shape[:1])), lambda params, y: y)
    each = {"affine": 2, "additive": 1, "spline": num_parameters(num_bins)}[kind]

    def net(x):
        return CouplingNet(width, each * (x.shape[-1] - x.shape[-1] // 2))

    def halves(params, x):
        kept, moved = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return kept, moved, net(x).apply(params, kept).reshape(*moved.shape, each)

    def init(key, x):
        params = net(x).init(key, x[:1, ..., : x.shape[-1] // 2])
        return params, forward(params, x)[0]

    def log_scale_of(raw):
        if min_scale == 0:
            return jax.nn.log_sigmoid(raw + 2.0)
        return jnp.log(min_scale + (1.0 - min_scale) * jax.nn.sigmoid(raw + 2.0))

    def move(x, raw, inverse):
        if kind == "spline":
            return rational_quadratic(x, raw, _SPLINE_BOUND, inverse)
        shift, log_scale = raw[..., 0], log_scale_of(raw[..., -1]) if kind == "affine" else jnp.zeros(())
        y = x * jnp.exp(-log_scale) - shift if inverse else (x + shift) * jnp.exp(log_scale)
        return y, jnp.broadcast_to(log_scale, x.shape)

    def forward(params, x):
        kept, moved, raw = halves(params, x)
        y, log_det = move(moved, raw, False)
        return jnp.concatenate([kept, y], -1), log_det.sum((1, 2, 3))

    def inverse(params, y):
        kept, moved, raw = halves(params, y)
        return jnp.concatenate([kept, move(moved, raw, True)[0]], -1)

    return Layer(init, forward, inverse)


def chain(**layers: Layer) -> Layer:
    """The layers one after the other, their parameters by name; each is initialised from what reaches it."""

    def init(key, x):
        params = {}
        for (name, layer), key_layer in zip(layers.items(), jax.random.split(key, len(layers)), strict=True):
            params[name], x = layer.init(key_layer, x)
        return params, x

    def forward(params, x):
        total = jnp.zeros(x.shape[:1])
        for name, layer in layers.items():
            x, log_det = layer.forward(params[name], x)
            total = total + log_det
        return x, total

    def inverse(params, y):
        for name, layer in reversed(layers.items()):
            y = layer.inverse(params[name], y)
        return y

    return Layer(init, forward, inverse)


def repeat(layer: Layer, num: int, remat: bool = False) -> Layer:
    """`num` layers of one kind in a scan, compiled once; their parameters are stacked, [num, ...].

    With `remat` the backward pass computes each layer anew rather than keep what it was made of.
    """

    def init(key, x):
        x, params = jax.lax.scan(lambda x, key: layer.init(key, x)[::-1], x, jax.random.split(key, num))
        return params, x

    def forward(params, x):
        def body(x, params):
            return layer.forward(params, x)

        x, log_dets = jax.lax.scan(jax.checkpoint(body) if remat else body, x, params)
        return x, log_dets.sum(0)

    def inverse(params, y):
        return jax.lax.scan(lambda y, params: (layer.inverse(params, y), None), y, params, reverse=True)[0]

    return Layer(init, forward, inverse)
