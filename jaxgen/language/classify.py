"""A language model fine-tuned to tell classes of texts apart (GPT-1: Radford et al. 2018, section 3.2).

  L₃ = L₂ + λ L₁,   L₂ = − E log softmax(W h)[class],   L₁ the language model's loss on the same texts,

h the network's vector at the token that ends the text (its last one, where the text was cut), λ = ½ in the paper. All
parameters are tuned. `init_from={"pretrained": "RUN:params"}` starts from a run of `gpt` with the same network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import gpt
from jaxgen.method import Method, gradient_method
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.numerics import cross_entropy
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config:
    """A classifier of texts on a language model."""

    net: TransformerConfig = TransformerConfig()
    """The transformer."""
    core: gpt.Core = "transformer"
    """`transformer` or `lstm`, see `gpt.Config`."""
    num_tokens: int | None = None
    """Tokens that the network knows; None for the tokenizer's."""
    aux_weight: float = 0.5
    """λ, the weight of the language model's loss; 0 for none."""
    optimizer: AdamWConfig = AdamWConfig(3e-4, b2=0.95, weight_decay=0.1)
    """AdamW."""


def last_token(segment: jax.Array) -> jax.Array:
    """The place of each text's last token, int [B], of segment int [B, T], 0 where there is none."""
    return jnp.maximum((segment > 0).sum(1) - 1, 0)


def make(cfg: Config, spec: Spec) -> Method:
    """A classifier of the texts of `spec`; reads `tokens` and `segment` int32 [B, T], a text a row, and `label` [B].

    `evaluate` gives `loss` (L₂, nats a text), `accuracy` and `lm_loss` (L₁, nats a token). It does not sample.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data has no classes.
    """
    if "label" not in spec.sizes:
        raise ValueError("the data has no classes: choose --data.label, and --data.packing none")
    if not cfg.aux_weight >= 0:
        raise ValueError(f"method.aux_weight={cfg.aux_weight} must be 0 or more")
    gpt.check_data(cfg.net, spec)
    net = gpt.core_of(cfg, Tokenizer(spec.tokenizer))
    (num_classes,) = spec.sizes["label"]

    def init(key, batch, warm=None):
        key_net, key_head = jax.random.split(key)
        params = warm["pretrained"] if warm else net.init(key_net)
        width = params["embed"]["tokens"].shape[1]
        kernel = 0.02 * jax.random.normal(key_head, (width, num_classes))
        return {"net": params, "head": {"kernel": kernel, "bias": jnp.zeros(num_classes)}}

    def terms(params, batch, key=None):
        """Nats of each class [B], its logits [B, C], and nats of each token and whether it counts [B, T]."""
        hidden = net.apply(params["net"], batch["tokens"], batch["segment"], key=key)
        read = hidden[jnp.arange(len(hidden)), last_token(batch["segment"])].astype(jnp.float32)
        logits = read @ params["head"]["kernel"] + params["head"]["bias"][None]
        labels, weight = gpt.targets(batch["tokens"], batch["segment"])
        nats = cross_entropy(net.logits(params["net"], hidden), labels) * weight
        return cross_entropy(logits, batch["label"]), logits, nats, weight

    def loss_fn(params, batch, noise):
        loss, _, nats, weight = terms(params, batch, noise[0] if cfg.net.dropout else None)
        lm_loss = nats.sum() / weight.sum()
        return loss.mean() + cfg.aux_weight * lm_loss, {"class_loss": loss.mean(), "lm_loss": lm_loss}

    def evaluate(state, batch, key):
        loss, logits, nats, weight = terms(state["params"], batch)
        ones = jnp.ones_like(loss)
        right = (logits.argmax(1) == batch["label"]).astype(jnp.float32)
        return {"loss": (loss, ones), "accuracy": (right, ones), "lm_loss": (nats.sum(1), weight.sum(1))}

    method = gradient_method(
        init,
        loss_fn,
        adamw(cfg.optimizer, gpt.decayed),
        None,
        evaluate,
        reads=("tokens", "segment", "label"),
        rules=net.rules,
        factored=net.factored,
    )
    return method._replace(starts_from=("pretrained",))
