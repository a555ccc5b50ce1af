"""Blanks in a text: which tokens BERT takes for likely, and texts with the blanks filled.

What is likely in a blank is read while all of them are blank. They are filled one by one in random order, each in view
of those before (Wang & Cho 2019, arXiv 1902.04094).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language.sampling import NEVER, SampleConfig, choose
from jaxgen.nets.bert import Bert


@dataclass(frozen=True)
class FillConfig:
    """How blanks are filled."""

    length: int = 16
    """Blanks, where no prompt brings its own; as many as fit."""
    top: int = 5
    """Tokens that are listed for each blank of a prompt, the likeliest first."""
    temperature: float = 1.0
    """Logits are divided by it where a blank is filled; 0 takes the likeliest token."""


def check_filling(cfg: FillConfig) -> None:
    """Raises a ValueError for an option out of range."""
    for fine, message in (
        (cfg.length >= 1, f"length={cfg.length} must be 1 or more"),
        (cfg.top >= 1, f"top={cfg.top} must be 1 or more"),
        (cfg.temperature >= 0, f"temperature={cfg.temperature} must be 0 (greedy) or more"),
    ):
        if not fine:
            raise ValueError(f"method.sample.{message}")


def mask_token(tokenizer: Tokenizer) -> int:
    """The token [MASK]; ValueError where the tokenizer has none."""
    if "[MASK]" not in map(tokenizer.piece, tokenizer.special()):
        raise ValueError("the tokenizer has no token [MASK]: take --data.tokenizer wordpiece:SIZE, or a BERT's")
    return tokenizer.token("[MASK]")


def special_tokens(tokenizer: Tokenizer, num_tokens: int) -> np.ndarray:
    """Which of the tokens that a network knows stand for no text, or are not the tokenizer's, bool [num_tokens]."""
    table = np.zeros(num_tokens, bool)
    table[[*tokenizer.special(), *range(tokenizer.size, num_tokens)]] = True
    return table


def types_of(tokens: jax.Array, end: int, num_types: int) -> jax.Array:
    """0 for the first text and its `end`, 1 for the second, …: int [B, T] → [B, T]."""
    ends = (tokens == end).astype(jnp.int32)
    return jnp.minimum(jnp.cumsum(ends, 1) - ends, num_types - 1) * (tokens >= 0)


def fill(
    bert: Bert, params: object, prompt: jax.Array, key: jax.Array, cfg: FillConfig, tokenizer: Tokenizer
) -> dict[str, jax.Array]:
    """Fills the blanks of texts.

    Args:
      bert: the network.
      params: its parameters.
      prompt: int [B, P], [CLS] … [SEP] or [CLS] … [SEP] … [SEP], -1 behind its end; blanks are [MASK].
      key: of what is drawn.
      cfg: how.
      tokenizer: of the texts.

    Returns:
      `tokens` [B, P], the texts with their blanks filled; `candidates` and `probability` [B, P, top], the likeliest
      tokens for each blank while all are blank, -1 elsewhere; `follows` [B], the probability that the second text
      follows the first, -1 where there is none.
    """
    mask, num = mask_token(tokenizer), bert.num_tokens
    special = jnp.asarray(special_tokens(tokenizer, num))

    def read(tokens):
        segment, types = (tokens >= 0).astype(jnp.int32), types_of(tokens, tokenizer.end, bert.cfg.num_types)
        hidden = bert.apply(params, jnp.maximum(tokens, 0), segment, types)
        return bert.token_logits(params, hidden)[..., :num], hidden

    def fill_one(carry):
        i, tokens, logits = carry
        key_place, key_token = jax.random.split(jax.random.fold_in(key, i))
        blank = tokens == mask
        place = jnp.where(blank, jax.random.uniform(key_place, tokens.shape), -1.0).argmax(1)[:, None]
        known = jnp.take_along_axis(logits, place[..., None], 1)[:, 0]
        known = jnp.where(special[None], NEVER, known)
        token = choose(key_token, known, None, SampleConfig(temperature=cfg.temperature))
        here = blank & (jnp.arange(tokens.shape[1])[None] == place)
        tokens = jnp.where(here, token[:, None], tokens).astype(tokens.dtype)
        return i + 1, tokens, read(tokens)[0]

    logits, hidden = read(prompt)
    start = jnp.int32(0), prompt, logits
    tokens = jax.lax.while_loop(lambda carry: (carry[1] == mask).any(), fill_one, start)[1]
    probability, candidates = jax.lax.top_k(jax.nn.softmax(logits, -1), min(cfg.top, num))
    blank = (prompt == mask)[..., None]
    follows = jax.nn.softmax(bert.pair_logits(params, bert.pooled(params, hidden)), -1)[:, 0]
    return {
        "tokens": tokens,
        "candidates": jnp.where(blank, candidates, -1),
        "probability": jnp.where(blank, probability, -1.0),
        "follows": jnp.where((prompt == tokenizer.end).sum(1) > 1, follows, -1.0),
    }
