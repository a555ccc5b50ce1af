"""Text token by token over a cache: drawn, searched for with beams, or streamed.

A network here is a `Transformer` or an `LSTM`: what is used of it is `prefill`, `prepared`, `step` and `logits`.
Prompts of different lengths stand at the right ends of their rows, so that all go on at one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language.sampling import SampleConfig, choose, penalized


def aligned(prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Prompts as one array [B, P], each at the right end of its row, -1 before it."""
    length = max(map(len, prompts))
    return np.array([[-1] * (length - len(prompt)) + list(prompt) for prompt in prompts], np.int32)


def room(net: Any, prompt: jax.Array, length: int) -> int:
    """How many of `length` tokens the context has room for behind a prompt [B, P]; ValueError for none."""
    if prompt.shape[1] >= net.cfg.context:
        raise ValueError(f"a prompt of {prompt.shape[1]} tokens fills net.context={net.cfg.context}: shorten it")
    return min(length, net.cfg.context - prompt.shape[1])


def _started(net: Any, params: Any, prompt: jax.Array, length: int) -> tuple[jax.Array, Any]:
    """The logits [B, V] behind the prompt, and a cache with room for `length` tokens more."""
    size = prompt.shape[1] + length
    first = jnp.argmax(prompt >= 0, 1)
    hidden, cache = net.prefill(params, jnp.maximum(prompt, 0), first, size)
    return net.logits(params, hidden), cache


def _seen(prompt: jax.Array, num: int, cfg: SampleConfig) -> jax.Array | None:
    """Which tokens stand in each prompt, bool [B, V]; None where nothing asks for it."""
    if cfg.repetition_penalty == 1.0:
        return None
    rows = jnp.arange(len(prompt))[:, None]
    return jnp.zeros((len(prompt), num), bool).at[rows, jnp.where(prompt < 0, num, prompt)].set(True, mode="drop")


def generate(
    net: Any, params: Any, prompt: jax.Array, key: jax.Array, cfg: SampleConfig, stop: Sequence[int]
) -> jax.Array:
    """Continues prompts.

    Args:
      net: the network.
      params: its parameters.
      prompt: int [B, P], see `aligned`; a token at least in each row.
      key: of what is drawn.
      cfg: how.
      stop: tokens that end a text.

    Returns:
      The prompt and up to `cfg.length` tokens (see `room`), int [B, P + length], -1 behind the token that ends a text.

    Raises:
      ValueError: the prompt fills the network's context.
    """
    cfg = dataclasses.replace(cfg, length=room(net, prompt, cfg.length))
    if cfg.beams > 1:
        return beam_search(net, params, prompt, cfg, stop)
    logits, cache = _started(net, params, prompt, cfg.length)
    ready, start = net.prepared(params), prompt.shape[1]
    tokens = jnp.pad(prompt, ((0, 0), (0, cfg.length)), constant_values=-1)
    rows = jnp.arange(len(prompt))

    def going(carry):
        i, done = carry[0], carry[4]
        return (i < cfg.length) & ~done.all()

    def write(carry):
        i, tokens, logits, cache, done, seen = carry
        token = choose(jax.random.fold_in(key, i), logits, seen, cfg)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, jnp.where(done, -1, token)[:, None], start + i, 1)
        done = done | jnp.isin(token, jnp.asarray(stop))
        seen = None if seen is None else seen.at[rows, token].set(True)
        hidden, cache = net.step(ready, cache, token, start + i)
        return i + 1, tokens, net.logits(params, hidden), cache, done, seen

    done = jnp.zeros(len(prompt), bool)
    carry = (jnp.int32(0), tokens, logits, cache, done, _seen(prompt, logits.shape[1], cfg))
    return jax.lax.while_loop(going, write, carry)[1]


def beam_search(net: Any, params: Any, prompt: jax.Array, cfg: SampleConfig, stop: Sequence[int]) -> jax.Array:
    """The best continuations that a search with `cfg.beams` beams finds; see `generate`.

    A beam that has ended stays among the others with the log-probability that it has; at last the beams are ranked by
    log-probability / length^length_penalty, the length being that of the continuation. With as many beams as there are
    texts it finds the best. Of what shapes a draw only the repetition penalty counts here: probabilities are the
    model's own.
    """
    num, width, start = len(prompt), cfg.beams, prompt.shape[1]
    logits, cache = _started(net, params, prompt, cfg.length)
    vocabulary, ready = logits.shape[1], net.prepared(params)
    repeated = lambda tree: jax.tree.map(lambda x: jnp.repeat(x, width, 0), tree)
    tokens = jnp.pad(repeated(prompt), ((0, 0), (0, cfg.length)), constant_values=-1)
    scores = jnp.full((num, width), -jnp.inf).at[:, 0].set(0.0)  # all beams are one at first
    seen = _seen(repeated(prompt), vocabulary, cfg)
    rows = jnp.arange(num)[:, None]

    def write(carry, i):
        tokens, logits, cache, scores, done, seen = carry
        known = logits if seen is None else penalized(logits, seen, cfg.repetition_penalty)
        grown = jax.nn.log_softmax(known, -1).reshape(num, width, -1)
        stays = jnp.full(vocabulary, -jnp.inf).at[0].set(0.0)  # the one way on of a beam that has ended
        total = scores[..., None] + jnp.where(done[..., None], stays[None, None], grown)
        scores, best = jax.lax.top_k(total.reshape(num, -1), width)
        beam, token = best // vocabulary, best % vocabulary
        flat = (rows * width + beam).reshape(-1)
        tokens, cache, seen = jax.tree.map(lambda x: x[flat], (tokens, cache, seen))
        done, token = done[rows, beam].reshape(-1), token.reshape(-1)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, jnp.where(done, -1, token)[:, None], start + i, 1)
        seen = None if seen is None else seen.at[jnp.arange(num * width), token].max(~done)
        done = done | jnp.isin(token, jnp.asarray(stop))
        hidden, cache = net.step(ready, cache, token, start + i)
        return (tokens, net.logits(params, hidden), cache, scores, done.reshape(num, width), seen), None

    carry = (tokens, repeated(logits), repeated(cache), scores, jnp.zeros((num, width), bool), seen)
    (tokens, _, _, scores, _, _), _ = jax.lax.scan(write, carry, jnp.arange(cfg.length))
    length = (tokens[:, start:] >= 0).sum(1).reshape(num, width)
    best = (scores / length**cfg.length_penalty).argmax(1)
    return tokens.reshape(num, width, -1)[jnp.arange(num), best]


def stream(
    net: Any, params: Any, tokenizer: Tokenizer, prompt: str, key: jax.Array, cfg: SampleConfig, stop: Sequence[int]
) -> Iterator[str]:
    """The continuation of a prompt, piece by piece as it is drawn: the text that `generate` gives from the same key.

    A piece ends with a whole character.
    """
    before = [tokenizer.begin, *tokenizer.encode(prompt)]
    ids = jnp.asarray(aligned([before]))
    cfg = dataclasses.replace(cfg, length=room(net, ids, cfg.length))
    logits, cache = jax.jit(lambda params: _started(net, params, ids, cfg.length))(params)
    ready = jax.jit(net.prepared)(params)

    @jax.jit
    def write(params, ready, cache, logits, seen, i):
        token = choose(jax.random.fold_in(key, i), logits, seen, cfg)
        seen = None if seen is None else seen.at[0, token[0]].set(True)
        hidden, cache = net.step(ready, cache, token, ids.shape[1] + i)
        return token[0], net.logits(params, hidden), cache, seen

    # Decoded behind the prompt, as a whole: some tokenizers drop the space before a text's first word.
    seen, written, shown = _seen(ids, logits.shape[1], cfg), list(before), tokenizer.decode(before)
    for i in range(cfg.length):
        token, logits, cache, seen = write(params, ready, cache, logits, seen, jnp.int32(i))
        written.append(int(token))
        text = tokenizer.decode(written)
        last = written[-1] in stop or i == cfg.length - 1
        if last or not text.endswith("�"):  # the bytes of a character may come one by one
            yield text[len(shown) :]
            shown = text
        if last:
            return
