"""GPT: a language model that predicts the next token (Radford et al. 2018 and 2019; Brown et al. 2020).

  L(θ) = − 1/N Σ_t log p_θ(x_t | x_1 … x_{t−1}),

in nats a token, over the N tokens of a batch that something of their own document stands before: in rows packed with
several documents none sees another, and none is predicted from another. With experts (`nets.moe`) their two terms are
added, and `lm_loss` is L. `core="lstm"` puts a recurrent network of as many parameters in the transformer's place, for
the lecture's comparison.

Deviations: as `nets.blocks`; weight decay on matrices alone, as GPT-2's successors have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language.generate import generate
from jaxgen.language.sampling import SampleConfig, check_sampling
from jaxgen.method import Method, gradient_method
from jaxgen.nets.lstm import LSTM
from jaxgen.nets.transformer import Transformer, TransformerConfig
from jaxgen.numerics import cross_entropy, nats_to_bits
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec

Core = Literal["transformer", "lstm"]


@dataclass(frozen=True)
class Config:
    """A language model."""

    net: TransformerConfig = TransformerConfig()
    """The transformer."""
    core: Core = "transformer"
    """`transformer`, or `lstm`: one with as many layers and, to within one unit of width, as many parameters."""
    num_tokens: int | None = None
    """Tokens that the network knows; None for the tokenizer's, of which some checkpoints know more."""
    optimizer: AdamWConfig = AdamWConfig(b2=0.95, weight_decay=0.1)
    """AdamW; biases, norms and positions are not decayed."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """How text is drawn."""


def core_of(cfg: Any, tokenizer: Tokenizer) -> Any:
    """The network of a `Config`, or of one with these fields; ValueError where it lacks some of the tokens."""
    num_tokens = cfg.num_tokens or tokenizer.size
    if num_tokens < tokenizer.size:
        raise ValueError(f"method.num_tokens={num_tokens} is fewer than the tokenizer's {tokenizer.size}")
    return make_core(cfg.core, cfg.net, num_tokens)


def make_core(core: Core, net: TransformerConfig, num_tokens: int) -> Any:
    """The network: a `Transformer`, or the `LSTM` of its size."""
    check_choice("method.core", core, get_args(Core))
    transformer = Transformer(net, num_tokens)
    if core == "transformer":
        return transformer
    if net.remat or net.dtype != "float32":
        raise ValueError("method.core=lstm has neither net.remat nor another net.dtype than float32")
    shapes = jax.eval_shape(transformer.init, jax.random.key(0))
    return LSTM(net, sum(x.size for x in jax.tree.leaves(shapes)), num_tokens)


def targets(tokens: jax.Array, segment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The token behind each one, int [B, T], and whether it is of the same document and to be predicted, 0 or 1.

    The last column weighs nothing: cheaper than to cut it off the logits, which would copy them.
    """
    labels = jnp.roll(tokens, -1, 1)
    counts = (jnp.roll(segment, -1, 1) == segment) & (segment > 0)
    return labels, (counts & (jnp.arange(tokens.shape[1]) < tokens.shape[1] - 1)[None]).astype(jnp.float32)


def decayed(params: Any) -> Any:
    """Which parameters weight decay shrinks: matrices, stacked or not, and the embedding of tokens."""
    names = ("kernel", "tokens", "input", "state")
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in names, params)


def stop_tokens(cfg: Config, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end a text; ValueError where the tokenizer has none of a name in `sample.stop`."""
    return tokenizer.end, *(tokenizer.token(name) for name in cfg.sample.stop)


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `make` cannot follow, or data without a tokenizer."""
    check_sampling(cfg.sample)
    if cfg.accumulate < 1:
        raise ValueError(f"method.accumulate={cfg.accumulate} must be 1 or more")
    if cfg.net.moe.num_experts > 1:
        if cfg.core != "transformer":
            raise ValueError("method.net.moe has experts, which only method.core=transformer has")
        if cfg.accumulate > 1:
            raise ValueError(
                f"method.accumulate={cfg.accumulate} is not exact with method.net.moe: the experts' balance is that of "
                "a whole batch; set it to 1"
            )
    check_data(cfg.net, spec)


def check_data(net: TransformerConfig, spec: Spec) -> None:
    """Raises a ValueError where a network cannot be a language model of this data."""
    if not net.causal or net.num_types:
        raise ValueError("a language model needs net.causal=True and net.num_types=0")
    if not spec.tokenizer:
        raise ValueError("the data has no tokenizer: a language model reads `Text`")
    length = spec.shape("tokens")[-1]
    if length > net.context:
        raise ValueError(f"rows of data.length={length} tokens exceed method.net.context={net.context}")


def make(cfg: Config, spec: Spec) -> Method:
    """A language model of the texts of `spec`; reads `tokens` and `segment` int32 [B, T].

    `sample` writes texts from nothing, or continues `cond["prompt"]` int [num, P] (see `generate.aligned`): `tokens`
    [num, …], -1 where there is none. `evaluate` gives `loss` in nats a token and, where the tokenizer gives every text
    back, `bits_per_byte`; the token that ends a document counts as one of its tokens, of no bytes. `init` starts from
    the parameters `pretrained`.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the data has no tokenizer.
    """
    check(cfg, spec)
    tokenizer = Tokenizer(spec.tokenizer)
    net = core_of(cfg, tokenizer)
    stop = stop_tokens(cfg, tokenizer)
    table, mixture = tokenizer.num_bytes(), cfg.net.moe.num_experts > 1

    def losses(params, batch, key=None):
        """Nats of each prediction, the tokens to predict, and whether they count, [B, T] each; the experts' terms."""
        labels, weight = targets(batch["tokens"], batch["segment"])
        if mixture:
            hidden, terms = net.apply_with_terms(params, batch["tokens"], batch["segment"], key=key)
        else:
            hidden, terms = net.apply(params, batch["tokens"], batch["segment"], key=key), None
        return cross_entropy(net.logits(params, hidden), labels) * weight, labels, weight, terms

    def loss_fn(params, batch, noise):
        # One mask serves a whole batch, so its first example's key is as good as any.
        nats, _, weight, terms = losses(params, batch, noise[0])
        loss = nats.sum() / weight.sum()
        if terms is None:
            return loss, {}
        total = loss + cfg.net.moe.balance_weight * terms.balance + cfg.net.moe.z_weight * terms.z
        return total, {"lm_loss": loss, **{f"router/{name}": value for name, value in terms._asdict().items()}}

    def sample(state, key, num, cond=None):
        check_keys(cond, "prompt")
        prompt = cond["prompt"] if cond else jnp.full((num, 1), tokenizer.begin)
        return {"tokens": generate(net, state["params"], prompt, key, cfg.sample, stop)}

    def evaluate(state, batch, key):
        nats, labels, weight, _ = losses(state["params"], batch)
        values = {"loss": (nats.sum(1), weight.sum(1))}
        if table is not None:
            num_bytes = jnp.asarray(table, jnp.float32)[labels] * weight
            values["bits_per_byte"] = (nats_to_bits(nats.sum(1)), num_bytes.sum(1))
        return values

    method = gradient_method(
        lambda key, batch, warm=None: warm["pretrained"] if warm else net.init(key),
        loss_fn,
        adamw(cfg.optimizer, decayed),
        sample,
        evaluate,
        accumulate=cfg.accumulate,
        weight_fn=lambda batch, noise: targets(batch["tokens"], batch["segment"])[1].sum(),
        reads=("tokens", "segment"),
        rules=net.rules,
        factored=net.factored,
    )
    return method._replace(starts_from=("pretrained",), conditions=("prompt",))
