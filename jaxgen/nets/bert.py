"""BERT's network (Devlin et al. 2019, arXiv 1810.04805): a `Transformer` that sees both ways, a pooler and two heads.

  pooled = tanh(W h_[CLS]),   pair logits = U pooled,   token logits at t = E norm(gelu(V h_t)) + b,

E the embedding of tokens. Deviations: as `nets.blocks`, and initial weights as `nets.transformer` has them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.blocks import TransformerConfig, make_norm
from jaxgen.nets.dense import init_linear, linear
from jaxgen.nets.transformer import Transformer

__all__ = ["BERT", "Bert", "check_bert"]

BERT = TransformerConfig(num_types=2, causal=False, post_norm=True, activation="gelu_exact", epsilon=1e-12, dropout=0.1)


def check_bert(cfg: TransformerConfig) -> None:
    """Raises a ValueError where a transformer cannot be BERT's."""
    if cfg.causal or cfg.num_types < 2:
        raise ValueError("BERT sees both ways and tells two texts apart: net.causal=False and net.num_types=2")
    if cfg.moe.num_experts > 1:
        raise ValueError("BERT has no loss that keeps a router even: net.moe.num_experts=1")


class Bert:
    """Pure functions of parameters, `{"net", "pooler", "mlm", "nsp"}`."""

    def __init__(self, cfg: TransformerConfig, num_tokens: int):
        """A BERT of a vocabulary of `num_tokens`; ValueError as `check_bert` and `check_transformer`."""
        check_bert(cfg)
        self.cfg, self.net, self.norm = cfg, Transformer(cfg, num_tokens), make_norm(cfg)
        self.num_tokens, self.rules = num_tokens, self.net.rules

    def init(self, key: jax.Array) -> Any:
        """Initial parameters."""
        keys, width = jax.random.split(key, 5), self.cfg.width
        norm = self.norm.init(keys[0], jnp.zeros((1, width)))["params"]
        return {
            "net": self.net.init(keys[1]),
            "pooler": init_linear(keys[2], width, width),
            "mlm": {"dense": init_linear(keys[3], width, width), "norm": norm, "bias": jnp.zeros(self.net.num_rows)},
            "nsp": init_linear(keys[4], width, 2),
        }

    def apply(
        self,
        params: Any,
        tokens: jax.Array,
        segment: jax.Array | None = None,
        types: jax.Array | None = None,
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The vectors [B, T, D] of tokens int [B, T]; the arguments are those of `Transformer.apply`."""
        return self.net.apply(params["net"], tokens, segment, types, key=key)

    def pooled(self, params: Any, hidden: jax.Array) -> jax.Array:
        """A row's vector, float32 [B, D], from those of its tokens [B, T, D]: what its first one, [CLS], has of it."""
        return jnp.tanh(linear(params["pooler"], hidden[:, 0].astype(jnp.float32)))

    def pair_logits(self, params: Any, pooled: jax.Array) -> jax.Array:
        """Of pooled vectors [B, D]: whether B follows A or is any other text, [B, 2]."""
        return linear(params["nsp"], pooled)

    def token_logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """Which token stands at places with these vectors [..., D], float32 [..., V]; -inf in unused rows."""
        mlm, exact = params["mlm"], self.cfg.activation != "gelu"
        h = nn.gelu(linear(mlm["dense"], hidden), approximate=not exact)
        logits = self.net.logits(params["net"], self.norm.apply({"params": mlm["norm"]}, h))
        return logits + mlm["bias"].reshape((1,) * (logits.ndim - 1) + (-1,))
