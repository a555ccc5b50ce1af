"""A recurrent network over tokens (Hochreiter & Schmidhuber 1997), with the functions of a `Transformer`.

  i, f, g, o = W x_t + U h_{t−1} + b,   c_t = σ(f) c_{t−1} + σ(i) tanh(g),   h_t = σ(o) tanh(c_t),

layers of one width on one another, the last one's h through the embedding's transpose. The lecture sets it beside the
transformer: what stands n tokens back has to pass through n steps, where attention takes one.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.transformer import TransformerConfig

Params = Any
State = tuple[jax.Array, jax.Array]


def num_parameters(num_layers: int, width: int, num_tokens: int) -> int:
    """Numbers in the parameters of an `LSTM`."""
    return num_tokens * width + num_layers * (8 * width**2 + 4 * width)


def equal_width(size: int, num_layers: int, num_tokens: int) -> int:
    """The width at which an `LSTM` comes closest to `size` parameters."""
    a, b = 8 * num_layers, 4 * num_layers + num_tokens
    near = int((math.sqrt(b * b + 4 * a * size) - b) / (2 * a))
    return min((max(near, 1), near + 1), key=lambda width: abs(num_parameters(num_layers, width, num_tokens) - size))


class LSTM:
    """Pure functions of parameters, `{"embed", "layers"}`; see `Transformer` for what its functions take and give."""

    rules = ()
    factored = None

    def __init__(self, cfg: TransformerConfig, size: int, num_tokens: int):
        """As many layers as `cfg` has blocks, and as many parameters as `size`; `context` and `dropout` as there."""
        self.cfg, self.num_tokens = cfg, num_tokens
        self.width = equal_width(size, cfg.num_layers, num_tokens)

    def init(self, key: jax.Array) -> Params:
        """Initial parameters: uniform in ± 1/√width, a forget gate's bias of 1."""
        key_embed, key_input, key_state = jax.random.split(key, 3)
        num, width, bound = self.cfg.num_layers, self.width, self.width**-0.5
        draw = lambda key: jax.random.uniform(key, (num, width, 4 * width), minval=-bound, maxval=bound)
        bias = jnp.zeros((num, 4, width)).at[:, 1].set(1.0).reshape(num, -1)
        layers = {"input": draw(key_input), "state": draw(key_state), "bias": bias}
        return {
            "embed": {"tokens": bound * jax.random.normal(key_embed, (self.num_tokens, width))},
            "layers": layers,
        }

    def apply(
        self,
        params: Params,
        tokens: jax.Array,
        segment: jax.Array | None = None,
        types: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The last layer's h, [B, T, D], of tokens int [B, T]; each run of `segment` begins with an empty state."""
        if tokens.shape[1] > self.cfg.context:
            raise ValueError(f"{tokens.shape[1]} tokens in a row exceed net.context={self.cfg.context}")
        return self._run(params, tokens, segment, key)[0]

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Unnormalised log-probabilities of tokens [..., V] of vectors [..., D]."""
        return hidden @ params["embed"]["tokens"].T

    def prepared(self, params: Params) -> Params:
        """Parameters for `step`."""
        return params

    def prefill(self, params: Params, tokens: jax.Array, first: jax.Array, size: int) -> tuple[jax.Array, State]:
        """The last token's vector [B, D], and the states c and h, [B, L, D] each."""
        segment = (jnp.arange(tokens.shape[1])[None] >= first[:, None]).astype(jnp.int32)
        hidden, (c, h) = self._run(params, tokens, segment, None)
        return hidden[:, -1], (c.swapaxes(0, 1), h.swapaxes(0, 1))

    def step(self, params: Params, cache: State, token: jax.Array, index: jax.Array) -> tuple[jax.Array, State]:
        """The vector [B, D] of a further token [B], and the new states."""

        def layer(x, inputs):
            weights, c, h = inputs
            c, h = _cell(x @ weights["input"] + weights["bias"][None], weights["state"], c, h)
            return h, (c, h)

        c, h = (x.swapaxes(0, 1) for x in cache)
        x, (c, h) = jax.lax.scan(layer, params["embed"]["tokens"][token], (params["layers"], c, h))
        return x, (c.swapaxes(0, 1), h.swapaxes(0, 1))

    def _run(self, params, tokens, segment, key):
        batch, length = tokens.shape
        begins = jnp.zeros((length, batch, 1), bool)
        if segment is not None:
            changes = segment[:, 1:] != segment[:, :-1]
            begins = begins.at[1:].set(changes.T[..., None])
        keys = None if key is None or not self.cfg.dropout else jax.random.split(key, self.cfg.num_layers)

        def layer(x, inputs):
            weights, key = inputs
            if key is not None:
                x = nn.Dropout(self.cfg.dropout, deterministic=False).apply({}, x, rngs={"dropout": key})

            def tick(carry, inputs):
                gates, begin = inputs
                c, h = (jnp.where(begin, 0.0, state) for state in carry)
                c, h = _cell(gates, weights["state"], c, h)
                return (c, h), h

            gates = x @ weights["input"] + weights["bias"][None, None]
            zeros = jnp.zeros((batch, self.width))
            last, x = jax.lax.scan(tick, (zeros, jnp.copy(zeros)), (gates, begins))
            return x, last

        x = params["embed"]["tokens"][tokens].swapaxes(0, 1)  # [T, B, D]
        x, last = jax.lax.scan(layer, x, (params["layers"], keys))
        return x.swapaxes(0, 1), last


def _cell(gates: jax.Array, weights: jax.Array, c: jax.Array, h: jax.Array) -> State:
    i, f, g, o = jnp.split(gates + h @ weights, 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return c, nn.sigmoid(o) * jnp.tanh(c)
