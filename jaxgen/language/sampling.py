"""Which token comes next: a model's logits, filtered and drawn from.

In the order of Hugging Face's transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

NEVER = -jnp.inf


@dataclass(frozen=True)
class SampleConfig:
    """How text is drawn."""

    length: int = 128
    """New tokens at most; fewer where the network's context, which the prompt shares, ends before."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token each time."""
    top_k: int = 0
    """Only so many of the likeliest tokens are drawn from (Fan et al. 2018, arXiv 1805.04833); 0 for all."""
    top_p: float = 1.0
    """Only the fewest tokens that have this probability together (Holtzman et al. 2020, arXiv 1904.09751)."""
    min_p: float = 0.0
    """Only tokens with this share of the likeliest one's probability (Nguyen et al. 2024, arXiv 2407.01082)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that are there already are divided by it, negative ones multiplied (Keskar et al. 2019, arXiv
    1909.05858)."""
    stop: tuple[str, ...] = ()
    """Tokens that end a text besides the tokenizer's own, as they are written."""
    beams: int = 1
    """Above 1: no drawing, but the best of the texts that a search with so many beams finds, by the model's own
    probabilities: of the options above, `length`, `repetition_penalty` and `stop` count."""
    length_penalty: float = 1.0
    """Beams are ranked by log-probability / length^length_penalty."""


def check_sampling(cfg: SampleConfig) -> None:
    """Raises a ValueError for an option out of range."""
    for fine, message in (
        (cfg.length >= 1, f"length={cfg.length} must be 1 or more"),
        (cfg.temperature >= 0, f"temperature={cfg.temperature} must be 0 (greedy) or more"),
        (cfg.top_k >= 0, f"top_k={cfg.top_k} must be 0 (off) or more"),
        (0 < cfg.top_p <= 1, f"top_p={cfg.top_p} must lie in (0, 1]"),
        (0 <= cfg.min_p <= 1, f"min_p={cfg.min_p} must lie in [0, 1]"),
        (cfg.repetition_penalty > 0, f"repetition_penalty={cfg.repetition_penalty} must be above 0"),
        (cfg.beams >= 1, f"beams={cfg.beams} must be 1 or more"),
    ):
        if not fine:
            raise ValueError(f"method.sample.{message}")


def penalized(logits: jax.Array, seen: jax.Array, penalty: float) -> jax.Array:
    """Logits [B, V] with those of tokens that are there, `seen` bool [B, V], made smaller."""
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k_of(logits: jax.Array, num: int) -> jax.Array:
    """Logits [B, V], -inf but for the `num` largest of a row and those equal to the last of them."""
    least = jax.lax.top_k(logits, min(num, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= least, logits, NEVER)


def top_p_of(logits: jax.Array, mass: float) -> jax.Array:
    """Logits [B, V], -inf but for the likeliest tokens, as few as have the probability `mass` together."""
    order = jnp.argsort(-logits, -1)
    probs = jax.nn.softmax(jnp.take_along_axis(logits, order, -1), -1)
    kept = jnp.cumsum(probs, -1) - probs < mass  # what stands before a token has not reached it
    return jnp.where(jnp.take_along_axis(kept, jnp.argsort(order, -1), -1), logits, NEVER)


def min_p_of(logits: jax.Array, share: float) -> jax.Array:
    """Logits [B, V], -inf where a token has less than this `share` of the likeliest one's probability."""
    return jnp.where(logits >= logits.max(-1, keepdims=True) + jnp.log(share), logits, NEVER)


def filtered(logits: jax.Array, seen: jax.Array | None, cfg: SampleConfig) -> jax.Array:
    """Logits [B, V] as `cfg` has them drawn from; `seen` may be None without a penalty."""
    if cfg.repetition_penalty != 1.0 and seen is not None:
        logits = penalized(logits, seen, cfg.repetition_penalty)
    if cfg.temperature not in (0.0, 1.0):
        logits = logits / cfg.temperature
    if cfg.top_k:
        logits = top_k_of(logits, cfg.top_k)
    if cfg.top_p < 1.0:
        logits = top_p_of(logits, cfg.top_p)
    return min_p_of(logits, cfg.min_p) if cfg.min_p else logits


def choose(key: jax.Array, logits: jax.Array, seen: jax.Array | None, cfg: SampleConfig) -> jax.Array:
    """The next token of each row, int [B], of logits [B, V]."""
    logits = filtered(logits, seen, cfg)
    return logits.argmax(-1) if cfg.temperature == 0 else jax.random.categorical(key, logits)
