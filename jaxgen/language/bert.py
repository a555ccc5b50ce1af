"""BERT: pre-training on masked tokens and pairs of texts (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

  L(θ) = − 1/M Σ_masked log p_θ(x_t | x̃) − 1/B Σ log p_θ(label | x̃),

in nats; M the masked tokens of a batch. 15 % of the tokens are chosen, of which 80 % become [MASK] in x̃, 10 % a random
token, and 10 % stay; they are drawn anew in every step, special tokens never. The label says whether the second text
follows the first (`data.pairs`).

Deviations: as `nets.bert`; of a row's n tokens 0.15 n are chosen on average, rounded up or down at random, where BERT's
own script rounds to the nearest number and draws a few maskings once for all; the rate falls by a cosine to a
twentieth, where BERT's falls linearly to 0; positions and types are not decayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.condition import check_keys
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language.blanks import FillConfig, check_filling, fill, mask_token, special_tokens
from jaxgen.language.gpt import decayed
from jaxgen.language.masking import mask_tokens
from jaxgen.method import Method, gradient_method
from jaxgen.nets.bert import BERT, Bert
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.numerics import cross_entropy
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config:
    """A BERT to be pre-trained."""

    net: TransformerConfig = BERT
    """The transformer."""
    num_tokens: int | None = None
    """Tokens that the network knows; None for the tokenizer's, of which some checkpoints know more."""
    mask_rate: float = 0.15
    """Part of the tokens that are chosen to be predicted."""
    optimizer: AdamWConfig = AdamWConfig(weight_decay=0.01)
    """AdamW; biases, norms, positions and types are not decayed."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: FillConfig = FillConfig()
    """How blanks are filled."""


def net_of(net: TransformerConfig, num_tokens: int | None, spec: Spec) -> Bert:
    """The network for the data of `spec`; ValueError where they do not fit."""
    if not spec.tokenizer:
        raise ValueError("the data has no tokenizer: BERT reads text")
    known = Tokenizer(spec.tokenizer).size
    if num_tokens is not None and num_tokens < known:
        raise ValueError(f"method.num_tokens={num_tokens} is fewer than the tokenizer's {known}")
    *choices, length = spec.shape("tokens")
    if choices:
        raise ValueError("BERT has no head for choices: choose the method gpt_classifier, or data of another kind")
    if length > net.context:
        raise ValueError(f"rows of data.length={length} tokens exceed method.net.context={net.context}")
    return Bert(net, num_tokens or known)


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `make` cannot follow, or data without pairs."""
    for fine, message in (
        (0 < cfg.mask_rate < 1, f"mask_rate={cfg.mask_rate} must lie in (0, 1)"),
        (cfg.accumulate >= 1, f"accumulate={cfg.accumulate} must be 1 or more"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")
    check_filling(cfg.sample)
    if "types" not in spec.shapes:
        raise ValueError("the data has no pairs of texts: choose --data.packing pairs")


def make(cfg: Config, spec: Spec) -> Method:
    """A BERT of the pairs of `spec`; reads `tokens`, `segment`, `types` int32 [B, T] and `label` [B].

    `evaluate` gives `loss` (a row's mean over its masked tokens and its pair, in nats), `mlm_loss` in nats a masked
    token, `mlm_accuracy`, `nsp_loss` and `nsp_accuracy`. `sample` fills the blanks of `cond["masked"]` int [num, P]
    (rows end with -1; blanks are [MASK]) or, without it, of a text of nothing else: `tokens` [num, P]; and for a prompt
    `candidates` and their `probability` [num, P, top], the likeliest tokens for each blank while all are blank, -1
    elsewhere, and `follows` [num], the probability that the second text follows, -1 where there is none. `init` starts
    from the parameters `pretrained`.

    Raises:
      ValueError: an option of `cfg` is out of range, the data has no pairs, or its tokenizer no [MASK].
    """
    check(cfg, spec)
    bert, tokenizer = net_of(cfg.net, cfg.num_tokens, spec), Tokenizer(spec.tokenizer)
    mask = mask_token(tokenizer)
    table = special_tokens(tokenizer, bert.num_tokens)
    special, words = jnp.asarray(table), np.flatnonzero(~table).astype(np.int32)

    def draw(key, batch):
        key_mask, key_drop = jax.random.split(key)
        free = (batch["segment"] > 0) & ~special[batch["tokens"]]
        masked = mask_tokens(key_mask, batch["tokens"], free, cfg.mask_rate, mask, words)
        # Rows are weighed so that their plain mean is the mean over the batch's masked tokens, in parts of it too.
        share = jnp.broadcast_to(len(free) / jnp.maximum(masked.weight.sum(), 1.0), (len(free),))
        return {"masked": masked, "share": share, "dropout": jax.random.split(key_drop, len(free))}

    def terms(params, batch, masked, key=None):
        """Nats of each masked token and of each pair, and whether the likeliest ones are right."""
        hidden = bert.apply(params, masked.tokens, batch["segment"], batch["types"], key=key)
        logits = bert.token_logits(params, jnp.take_along_axis(hidden, masked.places[..., None], 1))
        pair = bert.pair_logits(params, bert.pooled(params, hidden))
        right = (logits.argmax(-1) == masked.labels) * masked.weight
        right_pair = (pair.argmax(-1) == batch["label"]).astype(jnp.float32)
        nats = cross_entropy(logits, masked.labels) * masked.weight
        return nats, right, cross_entropy(pair, batch["label"]), right_pair

    def loss_fn(params, batch, noise):
        # One mask serves a whole batch, so its first example's key is as good as any.
        key = noise["dropout"][0] if cfg.net.dropout else None
        nats, right, pair, right_pair = terms(params, batch, noise["masked"], key)
        mlm, nsp = (nats.sum(1) * noise["share"]).mean(), pair.mean()
        accuracy = {"mlm_accuracy": (right.sum(1) * noise["share"]).mean(), "nsp_accuracy": right_pair.mean()}
        return mlm + nsp, {"mlm_loss": mlm, "nsp_loss": nsp, **accuracy}

    def evaluate(state, batch, key):
        masked = draw(key, batch)["masked"]
        nats, right, pair, right_pair = terms(state["params"], batch, masked)
        num, ones = masked.weight.sum(1), jnp.ones_like(pair)
        return {
            "loss": (nats.sum(1) / jnp.maximum(num, 1.0) + pair, ones),
            "mlm_loss": (nats.sum(1), num),
            "mlm_accuracy": (right.sum(1), num),
            "nsp_loss": (pair, ones),
            "nsp_accuracy": (right_pair, ones),
        }

    def sample(state, key, num, cond=None):
        check_keys(cond, "masked")
        own = [tokenizer.begin, *[mask] * min(cfg.sample.length, cfg.net.context - 2), tokenizer.end]
        prompt = cond["masked"] if cond else jnp.tile(jnp.array(own)[None], (num, 1))
        found = fill(bert, state["params"], prompt, key, cfg.sample, tokenizer)
        return found if cond else {"tokens": found["tokens"]}

    method = gradient_method(
        lambda key, batch, warm=None: warm["pretrained"] if warm else bert.init(key),
        loss_fn,
        adamw(cfg.optimizer, decayed),
        sample,
        evaluate,
        draw=draw,
        accumulate=cfg.accumulate,
        reads=("tokens", "segment", "types", "label"),
        rules=bert.rules,
        factored=bert.net.factored,
    )
    return method._replace(starts_from=("pretrained",), conditions=("masked",))
