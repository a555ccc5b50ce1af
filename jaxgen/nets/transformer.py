"""A transformer over tokens: embedding, blocks, output layer; and one token at a time over cached keys and values.

All blocks are one (`blocks.Block`), scanned over parameters that are stacked along a first axis, `params["blocks"]`:
the program does not grow with the depth, and a parameter's path does not depend on it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxgen.nets import moe
from jaxgen.nets.blocks import SPLIT, STD, Block, Context, Slot, TransformerConfig, check_transformer, make_norm
from jaxgen.nets.moe import Terms
from jaxgen.nets.rotary import frequencies, rotary_angles
from jaxgen.sharding import LAYERS, Rule, constrain, one_layer

__all__ = ["Cache", "Transformer", "TransformerConfig", "check_transformer", "place_in_segment", "rules"]

Params = Any


def rules(cfg: TransformerConfig) -> tuple[Rule, ...]:
    """How `tensor` splits a `Transformer` (after Shoeybi et al. 2019, arXiv 1909.08053), and `fsdp` beside it.

    Of two layers the first is split by its outputs and the second by its inputs: an attention by its heads, a
    perceptron by its units, and the embedding by tokens.
    """
    first, second, vector = P(LAYERS, "fsdp", "tensor"), P(LAYERS, "tensor", "fsdp"), P(LAYERS, "tensor")
    return (
        ("blocks/attention/q/kernel", first, cfg.num_heads),
        ("blocks/attention/[kv]/kernel", first, cfg.kv_heads),
        ("blocks/attention/q/bias", vector, cfg.num_heads),
        ("blocks/attention/[kv]/bias", vector, cfg.kv_heads),
        ("blocks/attention/out/kernel", second, cfg.num_heads),
        ("blocks/mlp/(up|gate)/kernel", first),
        ("blocks/mlp/(up|gate)/bias", vector),
        ("blocks/mlp/down/kernel", second),
        *moe.rules(),
        ("blocks/", P(LAYERS)),
        ("embed/tokens", P("tensor", "fsdp")),
        ("head/kernel", P("fsdp", "tensor")),
    )


class Cache(NamedTuple):
    """What a transformer keeps of the tokens so far; every leaf is [B, ...].

    Attributes:
      layers: each block's keys and values [B, K, S, H], S places for tokens.
      first: int [B], the place of each row's first token; what stands before it is padding.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]
    first: jax.Array


def place_in_segment(segment: jax.Array) -> jax.Array:
    """How many tokens of its own segment, a run of equal numbers, stand before each token: int [B, T] → [B, T]."""
    place = jnp.broadcast_to(jnp.arange(segment.shape[1])[None], segment.shape)
    begins = jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return place - jax.lax.cummax(jnp.where(begins, place, 0), 1)


class Transformer:
    """Pure functions of parameters, `{"embed", "blocks", "norm", "head"}`, the last two where there are such."""

    factored = "blocks/(attention|mlp)/"  # see `gradient_method`

    def __init__(self, cfg: TransformerConfig, num_tokens: int):
        """A transformer of a vocabulary of `num_tokens`; ValueError as `check_transformer`."""
        check_transformer(cfg)
        self.cfg, self.num_tokens = cfg, num_tokens
        self.num_rows = -(-num_tokens // cfg.vocab_multiple) * cfg.vocab_multiple
        self.block, self.norm, self.rules = Block(cfg), make_norm(cfg), rules(cfg)
        self.dtype = jnp.dtype(cfg.dtype)

    def init(self, key: jax.Array) -> Params:
        """Initial parameters, those of GPT-2 but for the positions' standard deviation, which is that of the rest."""
        cfg = self.cfg
        keys = jax.random.split(key, 6)
        table = lambda key, num: STD * jax.random.normal(key, (num, cfg.width))
        x = jnp.zeros((1, 1, cfg.width), self.dtype)
        norm = self.norm.init(keys[5], x)["params"]
        embed = {"tokens": table(keys[0], self.num_rows)}
        if cfg.positions == "learned":
            embed["positions"] = table(keys[1], cfg.context)
        if cfg.num_types:
            embed["types"] = table(keys[2], cfg.num_types)
        context = self._context(jnp.zeros((1, 1), jnp.int32), None)
        layer = lambda key: self.block.init(key, x, context)["params"]
        params = {"embed": embed, "blocks": jax.vmap(layer)(jax.random.split(keys[3], cfg.num_layers))}
        if cfg.post_norm:
            embed["norm"] = norm
        else:
            params["norm"] = norm
        return params if cfg.tied else params | {"head": {"kernel": table(keys[4], self.num_rows).T}}

    def apply(
        self,
        params: Params,
        tokens: jax.Array,
        segment: jax.Array | None = None,
        types: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The vectors behind the last block and norm, from which `logits` are made.

        Args:
          params: the parameters.
          tokens: int [B, T].
          segment: int [B, T], runs of equal numbers: a token sees those of its own run alone, and has its place there
            for a position; None for rows of one run.
          types: int [B, T], with `num_types`; None for type 0.
          key: of the dropout, in training; None elsewhere, where experts have places for all tokens.

        Returns:
          [B, T, D].

        Raises:
          ValueError: T exceeds the context.
        """
        return self._run(params, tokens, segment, types, key, keep=False)[0]

    def apply_with_terms(
        self, params: Params, tokens: jax.Array, segment: jax.Array | None = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, Terms | None]:
        """What `apply` gives, and the experts' terms, means over the layers; None where there is one expert alone."""
        hidden, _, terms = self._run(params, tokens, segment, None, key, keep=False)
        return hidden, jax.tree.map(jnp.mean, terms)

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Unnormalised log-probabilities of tokens, float32 [..., V], of vectors [..., D]; -inf in unused rows."""
        kernel = params["embed"]["tokens"].T if self.cfg.tied else params["head"]["kernel"]
        out = jnp.matmul(hidden, kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        out = constrain(out, SPLIT) if out.ndim == 3 else out
        if self.num_rows == self.num_tokens:
            return out
        # Not cut off: `tensor` splits them, and parts of other sizes would have to change places.
        known = jax.lax.broadcasted_iota(jnp.int32, out.shape, out.ndim - 1) < self.num_tokens
        return jnp.where(known, out, -jnp.inf)

    def prepared(self, params: Params) -> Params:
        """Parameters for `step`, made once before a loop: the blocks one by one."""
        layer = lambda i: jax.tree.map(lambda x: x[i], params["blocks"])
        return {**params, "blocks": tuple(layer(i) for i in range(self.cfg.num_layers))}

    def prefill(self, params: Params, tokens: jax.Array, first: jax.Array, size: int) -> tuple[jax.Array, Cache]:
        """Reads prompts at once.

        Args:
          params: the parameters.
          tokens: int [B, P], each prompt at the right end of its row.
          first: int [B], where it begins; what stands before it is not seen.
          size: S, the places of the cache, P at least.

        Returns:
          The last token's vector [B, D], and the cache.
        """
        segment = (jnp.arange(tokens.shape[1])[None] >= first[:, None]).astype(jnp.int32)
        hidden, (keys, values), _ = self._run(params, tokens, segment, None, None, keep=True)
        room = [(0, 0), (0, 0), (0, 0), (0, size - tokens.shape[1]), (0, 0)]
        keys, values = (jnp.pad(x.swapaxes(2, 3), room) for x in (keys, values))  # [L, B, K, S, H]
        return hidden[:, -1], Cache(tuple((keys[i], values[i]) for i in range(self.cfg.num_layers)), first)

    def step(self, params: Params, cache: Cache, token: jax.Array, index: jax.Array) -> tuple[jax.Array, Cache]:
        """Adds one token to each row.

        Args:
          params: see `prepared`.
          cache: of the tokens so far.
          token: int [B].
          index: its place, a scalar, the same in all rows.

        Returns:
          The token's vector [B, D], and the new cache.
        """
        place = jnp.arange(cache.layers[0][0].shape[2])[None]
        visible = (place <= index) & (place >= cache.first[:, None])
        if self.cfg.window is not None:
            visible = visible & (place > index - self.cfg.window)
        positions = (index - cache.first)[:, None]
        x, context = self._embed(params, token[:, None], positions, None), self._context(positions, None)
        layers = []
        for layer, (k, v) in zip(params["blocks"], cache.layers, strict=True):
            x, kv, _ = self.block.apply({"params": layer}, x, context, Slot(k, v, index, visible))
            layers.append(kv)
        return self._last(params, x)[:, 0], cache._replace(layers=tuple(layers))

    def _run(self, params, tokens, segment, types, key, keep: bool):
        """The vectors; to `keep`, the blocks' keys and values [L, B, T, K, H]; the experts' terms, [L] each."""
        cfg = self.cfg
        if tokens.shape[1] > cfg.context:
            raise ValueError(f"{tokens.shape[1]} tokens in a row exceed net.context={cfg.context}")
        if segment is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        else:
            positions = place_in_segment(segment)
        x, context = self._embed(params, tokens, positions, types), self._context(positions, segment)
        keys, train = None, key is not None
        if key is not None and cfg.dropout:
            key_embed, key = jax.random.split(key)
            x = nn.Dropout(cfg.dropout, deterministic=False).apply({}, x, rngs={"dropout": key_embed})
            keys = jax.random.split(key, cfg.num_layers)

        def layer(x, inputs):
            layer, key = inputs
            layer = one_layer(layer, self.rules, "blocks/")
            rngs = {} if key is None else {"dropout": key}
            x, cached, terms = self.block.apply({"params": layer}, x, context, train=train, rngs=rngs)
            return x, (cached if keep else None, terms)

        layer = jax.checkpoint(layer, prevent_cse=False) if cfg.remat else layer
        x, (cached, terms) = jax.lax.scan(layer, constrain(x), (params["blocks"], keys))
        return self._last(params, x), cached, terms

    def _embed(self, params, tokens, positions, types):
        embed, cfg = params["embed"], self.cfg
        rows = lambda name, index: jnp.take(embed[name], index, axis=0, mode="clip").astype(self.dtype)
        x = rows("tokens", tokens)
        if cfg.positions == "learned":
            x = x + rows("positions", positions)
        if cfg.num_types:
            x = x + rows("types", jnp.zeros_like(tokens) if types is None else types)
        return self.norm.apply({"params": embed["norm"]}, x) if cfg.post_norm else x

    def _context(self, positions, segment) -> Context:
        cfg = self.cfg
        if cfg.positions == "learned":
            return Context(segment, None)
        return Context(segment, rotary_angles(positions, frequencies(cfg.head_dim, cfg.rope_theta, cfg.rope_scaling)))

    def _last(self, params, x):
        return x if self.cfg.post_norm else self.norm.apply({"params": params["norm"]}, x)
