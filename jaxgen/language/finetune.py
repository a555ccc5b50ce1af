"""One pre-trained BERT, many tasks (Devlin et al. 2019, arXiv 1810.04805, section 4): a head each, all is tuned.

  text, pair   p(class) = softmax(W pooled)
  span         p(start = t) = softmax_t(s · h_t), p(end = t) likewise, t of the second text; the best has end ≥ start
  tag          p(tag of t) = softmax(W h_t)

The loss is the mean of − log p over texts, of its start and end, or over tagged tokens, in nats.
`init_from={"pretrained": "RUN:params"}` starts from a run of `bert` with the same network.

Deviations: as `bert`; a row of `Text` that is cut at `data.length` lacks its [SEP], those of `Annotated` have theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.language.bert import net_of
from jaxgen.language.gpt import decayed
from jaxgen.method import Method, gradient_method
from jaxgen.nets.bert import BERT
from jaxgen.nets.dense import init_linear, linear
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.numerics import cross_entropy
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec

Task = Literal["text", "pair", "span", "tag"]
LABELS = {"text": "label", "pair": "label", "span": "span", "tag": "tags"}
"""Task → batch key of what is to be told: `label` [B], `span` [B, 2] (first, last token), `tags` [B, T] (-1: none)."""


@dataclass(frozen=True)
class Config:
    """A BERT with a head for a task."""

    task: Task = "text"
    """`text` and `pair` tell the class of a text or of two, `span` where in a text an answer stands, `tag` the class of
    each token."""
    net: TransformerConfig = BERT
    """The transformer; what is pooled is dropped out like its parts."""
    num_tokens: int | None = None
    """Tokens that the network knows; None for the tokenizer's."""
    optimizer: AdamWConfig = AdamWConfig(1e-4, weight_decay=0.01)
    """AdamW."""


def best_span(start: jax.Array, end: jax.Array) -> jax.Array:
    """The likeliest (first, last) of log-probabilities [B, T] each, first ≤ last: int [B, 2]."""
    length = start.shape[1]
    scores = start[:, :, None] + end[:, None, :]
    scores = jnp.where(jnp.tri(length, dtype=bool).T[None], scores, -jnp.inf).reshape(len(start), -1)
    best = scores.argmax(1)
    return jnp.stack([best // length, best % length], 1)


def overlap(a: jax.Array, b: jax.Array) -> jax.Array:
    """F1 of spans' tokens, (first, last) int [B, 2] each: 2 |a ∩ b| / (|a| + |b|), [B]."""
    common = jnp.maximum(jnp.minimum(a[:, 1], b[:, 1]) - jnp.maximum(a[:, 0], b[:, 0]) + 1, 0)
    return 2 * common / (a[:, 1] - a[:, 0] + b[:, 1] - b[:, 0] + 2)


def make(cfg: Config, spec: Spec) -> Method:
    """A BERT for a task on the texts of `spec`; reads `tokens` and `segment` int32 [B, T], `types` and the labels.

    `text` reads no `types`. `evaluate` gives `loss` and `accuracy`, for spans of both ends at once, and their `f1`. It
    does not sample.

    Raises:
      ValueError: an option of `cfg` is unknown, or the data lacks what the task reads.
    """
    check_choice("method.task", cfg.task, get_args(Task))
    key_label = LABELS[cfg.task]
    reads = ("tokens", "segment", *(("types",) if cfg.task != "text" else ()), key_label)
    if lacking := [key for key in reads if key not in spec.shapes]:
        raise ValueError(f"method.task={cfg.task} reads {', '.join(lacking)}, which the data does not have")
    bert = net_of(cfg.net, cfg.num_tokens, spec)
    num_classes = 2 if cfg.task == "span" else spec.sizes[key_label][0]  # of a span the start and the end

    def init(key, batch, warm=None):
        key_net, key_head = jax.random.split(key)
        params = warm["pretrained"] if warm else bert.init(key_net)
        head = init_linear(key_head, cfg.net.width, num_classes)
        return {"net": params["net"], "pooler": params["pooler"], "head": head}

    def logits_of(params, batch, key=None):
        """Logits [B, C] of a text, [B, T, C] of its tokens; those of a span's ends as log-probabilities [B, T, 2]."""
        key_net, key_drop = (None, None) if key is None else jax.random.split(key)
        x = bert.apply(params, batch["tokens"], batch["segment"], batch.get("types"), key=key_net)
        x = bert.pooled(params, x) if key_label == "label" else x.astype(jnp.float32)
        if key is not None:
            x = nn.Dropout(cfg.net.dropout, deterministic=False).apply({}, x, rngs={"dropout": key_drop})
        logits = linear(params["head"], x)
        if cfg.task != "span":
            return logits
        return jax.nn.log_softmax(jnp.where(batch["types"][..., None] > 0, logits, -jnp.inf), 1)

    def terms(params, batch, key=None):
        """Nats and how many they are of, and what is right, and of how many, [B] each; a name each of more figures."""
        logits, label = logits_of(params, batch, key), batch[key_label]
        if cfg.task == "span":
            ends = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]  # [B, 2]
            found, ones = best_span(logits[..., 0], logits[..., 1]), jnp.ones(len(label))
            right = (found == label).all(1).astype(jnp.float32)
            return {"loss": (-ends.mean(1), ones), "accuracy": (right, ones), "f1": (overlap(found, label), ones)}
        weight = (label >= 0).astype(jnp.float32)
        nats = cross_entropy(logits, jnp.maximum(label, 0)) * weight
        right = (logits.argmax(-1) == label) * weight
        nats, right, weight = (x.reshape(len(x), -1).sum(1) for x in (nats, right, weight))
        return {"loss": (nats, weight), "accuracy": (right, weight)}

    def loss_fn(params, batch, noise):
        found = terms(params, batch, noise[0] if cfg.net.dropout else None)
        means = {name: num.sum() / jnp.maximum(den.sum(), 1.0) for name, (num, den) in found.items()}
        return means.pop("loss"), means

    method = gradient_method(
        init,
        loss_fn,
        adamw(cfg.optimizer, decayed),
        None,
        lambda state, batch, key: terms(state["params"], batch),
        reads=reads,
        rules=bert.rules,
        factored=bert.net.factored,
    )
    return method._replace(starts_from=("pretrained",))
