"""Text of a run, shown while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import gpt, lora
from jaxgen.language.generate import stream
from jaxgen.program import keys_of
from jaxgen.trained import Run


def stream_run(run: Run, state: Any, prompt: str, seed: int = 0) -> Iterator[str]:
    """The prompt and its continuation by a run of `gpt` or its `lora`, in pieces; the text of `sample --num 1`.

    Args:
      run: the run, with its sampling options.
      state: its state.
      prompt: what the text begins with; may be empty.
      seed: other texts for another one.

    Raises:
      ValueError: the run's method does not write text token by token, or searches with beams.
    """
    method = run.config.method
    if isinstance(method, lora.Config):
        method, state = method.base, {"params": lora.merged(method, state)}
    if not isinstance(method, gpt.Config):
        raise ValueError(f"--stream shows text token by token, which {run.workdir} does not write")
    if method.sample.beams > 1:
        raise ValueError("--stream has nothing to show of beams before the end: leave out --beams")
    tokenizer = Tokenizer(run.spec.tokenizer)
    net = gpt.core_of(method, tokenizer)
    key = jax.random.fold_in(jax.random.fold_in(keys_of(run.config.train.seed).sample, seed), 0)
    yield prompt
    yield from stream(net, state["params"], tokenizer, prompt, key, method.sample, gpt.stop_tokens(method, tokenizer))
