"""Which tokens a masked language model has to tell, and what it sees instead (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stay


class Masked(NamedTuple):
    """Rows with masked tokens.

    Attributes:
      tokens: int [B, T], what the network reads.
      places: int [B, K], where the chosen tokens stand, K as many as a row can have.
      labels: int [B, K], what stood there.
      weight: [B, K], 1 for those that are chosen, 0 for the rest.
    """

    tokens: jax.Array
    places: jax.Array
    labels: jax.Array
    weight: jax.Array


def mask_tokens(
    key: jax.Array, tokens: jax.Array, free: jax.Array, rate: float, mask: int, words: np.ndarray
) -> Masked:
    """Chooses tokens and hides them.

    Args:
      key: of what is drawn.
      tokens: int [B, T].
      free: bool [B, T], those that may be chosen.
      rate: part of them that is, in (0, 1).
      mask: the token [MASK].
      words: the tokens that a random one is drawn from.
    """
    key_order, key_num, key_how, key_word = jax.random.split(key, 4)
    size = int(rate * tokens.shape[1]) + 1
    order = jnp.argsort(jnp.where(free, jax.random.uniform(key_order, tokens.shape), 2.0), 1)
    num = jnp.floor(rate * free.sum(1) + jax.random.uniform(key_num, tokens.shape[:1]))[:, None]
    chosen = jnp.argsort(order, 1) < num
    how = jax.random.uniform(key_how, tokens.shape)
    word = jnp.asarray(words)[jax.random.randint(key_word, tokens.shape, 0, len(words))]
    hidden = jnp.where(how < MASKED, mask, jnp.where(how < MASKED + RANDOM, word, tokens))
    places = order[:, :size]
    labels = jnp.take_along_axis(tokens, places, 1)
    weight = (jnp.arange(size)[None] < num).astype(jnp.float32)
    return Masked(jnp.where(chosen, hidden, tokens).astype(tokens.dtype), places, labels, weight)
