"""A language model fine-tuned to a task (GPT-1: Radford et al. 2018, sections 3.2 and 3.3).

  L₃ = L₂ + λ L₁,   L₂ = − E log softmax(W h)[class],   L₁ the language model's loss on the same texts,

h the network's vector at the token that ends the text (its last one, where the text was cut), λ = ½ in the paper. The
four tasks of the paper's figure 1 are a matter of the data and of how often the network reads it: the class of a text;
of a pair (entailment), `begin A end B end`; of a pair without an order (similarity), h(A, B) + h(B, A), `both_orders`;
and a choice of K, softmax over w h(A, B_k). All parameters are tuned. `init_from={"pretrained": "RUN:params"}` starts
from a run of `gpt` with the same network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import gpt
from jaxgen.method import Method, gradient_method
from jaxgen.nets.dense import init_linear, linear
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.numerics import cross_entropy
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config:
    """A classifier of texts, pairs or choices on a language model."""

    net: TransformerConfig = TransformerConfig()
    """The transformer."""
    core: gpt.Core = "transformer"
    """`transformer` or `lstm`, see `gpt.Config`."""
    num_tokens: int | None = None
    """Tokens that the network knows; None for the tokenizer's."""
    aux_weight: float = 0.5
    """λ, the weight of the language model's loss; 0 for none."""
    both_orders: bool = False
    """Whether a pair is read in both orders, which mean the same."""
    optimizer: AdamWConfig = AdamWConfig(3e-4, b2=0.95, weight_decay=0.1)
    """AdamW."""


def last_token(segment: jax.Array) -> jax.Array:
    """The place of each text's last token, int [B], of segment int [B, T], 0 where there is none."""
    return jnp.maximum((segment > 0).sum(1) - 1, 0)


def exchanged(tokens: jax.Array, segment: jax.Array, types: jax.Array) -> jax.Array:
    """Rows `begin B end A end` of rows `begin A end B end`, int [B, T]; `types` is 1 from B on, `segment` 0 behind."""
    num_b = types.sum(1, keepdims=True) - 1
    num_a = (segment > 0).sum(1, keepdims=True) - num_b - 3
    t = jnp.arange(tokens.shape[1])[None]
    of_b, middle, of_a = (t >= 1) & (t <= num_b), t == num_b + 1, (t > num_b + 1) & (t <= num_b + 1 + num_a)
    place = jnp.select([of_b, middle, of_a], [t + num_a + 1, num_a + 1 + 0 * t, t - num_b - 1], t + 0 * num_a)
    return jnp.take_along_axis(tokens, place, 1)


def make(cfg: Config, spec: Spec) -> Method:
    """A classifier of the texts of `spec`; reads `tokens` and `segment` int32 [B, T], a text a row, and `label` [B].

    Choices are rows [B, K, T], and `both_orders` reads `types` as well. `evaluate` gives `loss` (L₂, nats a text),
    `accuracy` and `lm_loss` (L₁, nats a token). It does not sample.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data has no classes, or no pairs.
    """
    if "label" not in spec.sizes:
        raise ValueError("the data has no classes: choose --data.label, and --data.packing none, or annotated data")
    choices = len(spec.shape("tokens")) == 2
    if cfg.both_orders and (choices or "types" not in spec.shapes):
        raise ValueError("method.both_orders is of pairs: choose annotated data of the kind pair")
    if not cfg.aux_weight >= 0:
        raise ValueError(f"method.aux_weight={cfg.aux_weight} must be 0 or more")
    gpt.check_data(cfg.net, spec)
    net = gpt.core_of(cfg, Tokenizer(spec.tokenizer))
    (num_classes,) = spec.sizes["label"]

    def init(key, batch, warm=None):
        key_net, key_head = jax.random.split(key)
        params = warm["pretrained"] if warm else net.init(key_net)
        width = params["embed"]["tokens"].shape[1]
        return {"net": params, "head": init_linear(key_head, width, 1 if choices else num_classes)}

    def terms(params, batch, key=None):
        """Nats of each class [B], its logits [B, C], and nats of each row's tokens and how many count, [B] each."""
        num = len(batch["label"])
        tokens, segment = (batch[name].reshape(-1, batch[name].shape[-1]) for name in ("tokens", "segment"))
        if cfg.both_orders:
            tokens = jnp.stack([tokens, exchanged(tokens, segment, batch["types"])], 1).reshape(2 * num, -1)
            segment = jnp.repeat(segment, 2, 0)
        hidden = net.apply(params["net"], tokens, segment, key=key)
        read = hidden[jnp.arange(len(hidden)), last_token(segment)].astype(jnp.float32)
        read = read.reshape(num, 2, -1).sum(1) if cfg.both_orders else read
        logits = linear(params["head"], read).reshape(num, -1)
        labels, weight = gpt.targets(tokens, segment)
        nats = cross_entropy(net.logits(params["net"], hidden), labels) * weight
        return cross_entropy(logits, batch["label"]), logits, *(x.reshape(num, -1).sum(1) for x in (nats, weight))

    def loss_fn(params, batch, noise):
        loss, _, nats, weight = terms(params, batch, noise[0])
        lm_loss = nats.sum() / weight.sum()
        return loss.mean() + cfg.aux_weight * lm_loss, {"class_loss": loss.mean(), "lm_loss": lm_loss}

    def evaluate(state, batch, key):
        loss, logits, nats, weight = terms(state["params"], batch)
        ones = jnp.ones_like(loss)
        right = (logits.argmax(1) == batch["label"]).astype(jnp.float32)
        return {"loss": (loss, ones), "accuracy": (right, ones), "lm_loss": (nats, weight)}

    method = gradient_method(
        init,
        loss_fn,
        adamw(cfg.optimizer, gpt.decayed),
        None,
        evaluate,
        reads=("tokens", "segment", "label", *(("types",) if cfg.both_orders else ())),
        rules=net.rules,
        factored=net.factored,
    )
    return method._replace(starts_from=("pretrained",))
