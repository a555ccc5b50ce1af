"""Sentences as vectors: the mean of BERT's vectors of their tokens, of length one (Reimers & Gurevych 2019).

The networks that this is meant for are fine-tuned so that the cosine of two sentences says how near their meanings are
(`sentence-transformers`); `huggingface.read_checkpoint` reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.nets.bert import Bert


def mean_pooled(hidden: jax.Array, segment: jax.Array) -> jax.Array:
    """The mean vector of each row's tokens, scaled to length one: [B, T, D], int [B, T] (0: padding) → [B, D]."""
    weight = (segment > 0).astype(jnp.float32)[..., None]
    mean = (hidden.astype(jnp.float32) * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=0)
def _vectors(bert: Bert, params: Any, tokens: jax.Array, segment: jax.Array) -> jax.Array:
    return mean_pooled(bert.apply(params, tokens, segment), segment)


def sentence_vectors(
    bert: Bert, params: Any, tokenizer: Tokenizer, texts: Sequence[str], length: int = 256, batch_size: int = 32
) -> np.ndarray:
    """Vectors of length one, float32 [N, D], of N texts.

    Args:
      bert: the network.
      params: its parameters.
      tokenizer: of the texts.
      texts: what is read, [CLS] and [SEP] round it.
      length: tokens of a text at most; the rest is left out.
      batch_size: texts that are read at a time, those of similar lengths together.

    Raises:
      ValueError: `length` exceeds the network's context.
    """
    if not 2 < length <= bert.cfg.context:
        raise ValueError(f"length={length} must lie between 3 and net.context={bert.cfg.context}")
    rows = [[tokenizer.begin, *row[: length - 2], tokenizer.end] for row in tokenizer.encode_all(texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))

    found = np.zeros((len(texts), bert.cfg.width), np.float32)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        size = min(-(-len(rows[part[-1]]) // 8) * 8, bert.cfg.context)  # few lengths, few programs
        tokens, segment = np.zeros((2, batch_size, size), np.int32)
        for place, i in enumerate(part):
            tokens[place, : len(rows[i])], segment[place, : len(rows[i])] = rows[i], 1
        found[part] = _vectors(bert, params, tokens, segment)[: len(part)]
    return found
