"""Where the tensors of Hugging Face's models lie in the parameters of a `Transformer`, one table a family.

Reading and writing both follow it; BERT's is in `bert_layout`. Llama's family is every model that names its parts so:
Llama, Mistral (with its window), Qwen2 (with biases of queries, keys and values), Mixtral (with experts, of which none
is full: what was trained with a capacity is written without).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxgen.config import check_choice
from jaxgen.nets.moe import MoeConfig
from jaxgen.nets.transformer import Transformer, TransformerConfig


class Place(NamedTuple):
    """Where a tensor's numbers lie.

    Attributes:
      paths: the leaves it holds, side by side along its last axis (GPT-2's queries, keys and values), as `a/b/c`.
      transposed: whether it is stored [outputs, inputs].
    """

    paths: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Family:
    """How a family of models is stored.

    Attributes:
      types: the `model_type`s of config.json that are of it; the first is written.
      config: config.json → the network's.
      document: the network's config, number of tokens, begin and end of a text → config.json.
      places: the network's config → name of each tensor → its place; `{}` in a name stands for the block's number, a
        second one for the expert's.
      ignored: regexes of tensors that hold no parameters.
      prefix: which a base model's tensors lack.
      network: the network's config and number of tokens → the network.
      parts: how the tensors of parts begin that a checkpoint may lack, each as a whole.
    """

    types: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], TransformerConfig]
    document: Callable[[TransformerConfig, int, int, int], dict[str, Any]]
    places: Callable[[TransformerConfig], dict[str, Place]]
    ignored: tuple[str, ...]
    prefix: str
    network: Callable[[TransformerConfig, int], Any] = Transformer
    parts: tuple[str, ...] = ()


def _gpt2_config(tree: Mapping[str, Any]) -> TransformerConfig:
    check_choice("activation_function", tree.get("activation_function", "gelu_new"), ("gelu_new", "gelu_pytorch_tanh"))
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        if tree.get(key):
            raise ValueError(f"config.json asks for {key}, which this network does not have")
    if not tree.get("scale_attn_weights", True):
        raise ValueError("config.json asks for attention that is not scaled, which this network does not have")
    return TransformerConfig(
        num_layers=tree["n_layer"],
        width=tree["n_embd"],
        num_heads=tree["n_head"],
        hidden=tree.get("n_inner"),
        context=tree.get("n_positions", 1024),
        epsilon=tree.get("layer_norm_epsilon", 1e-5),
        tied=tree.get("tie_word_embeddings", True),
    )


def _gpt2_document(cfg: TransformerConfig, num_tokens: int, begin: int, end: int) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": cfg.num_layers,
        "n_embd": cfg.width,
        "n_head": cfg.num_heads,
        "n_inner": cfg.hidden,
        "n_positions": cfg.context,
        "n_ctx": cfg.context,
        "layer_norm_epsilon": cfg.epsilon,
        "tie_word_embeddings": cfg.tied,
        "vocab_size": num_tokens,
        "bos_token_id": begin,
        "eos_token_id": end,
    }


def _gpt2_places(cfg: TransformerConfig) -> dict[str, Place]:
    one = lambda path: Place((path,))
    table = {"wte.weight": one("embed/tokens"), "wpe.weight": one("embed/positions")}
    for name, norm in (("h.{}.ln_1", "blocks/norm_attention"), ("h.{}.ln_2", "blocks/norm_mlp"), ("ln_f", "norm")):
        table |= {f"{name}.weight": one(f"{norm}/scale"), f"{name}.bias": one(f"{norm}/bias")}
    layers = {"attn.c_proj": "attention/out", "mlp.c_fc": "mlp/up", "mlp.c_proj": "mlp/down"}
    for kind, leaf in (("weight", "kernel"), ("bias", "bias")):  # stored [inputs, outputs], unlike everybody else's
        table[f"h.{{}}.attn.c_attn.{kind}"] = Place(tuple(f"blocks/attention/{part}/{leaf}" for part in "qkv"))
        table |= {f"h.{{}}.{name}.{kind}": one(f"blocks/{path}/{leaf}") for name, path in layers.items()}
    table = {f"transformer.{name}": place for name, place in table.items()}
    return table if cfg.tied else table | {"lm_head.weight": Place(("head/kernel",), transposed=True)}


def _rope(tree: Mapping[str, Any]) -> tuple[float, tuple[float, ...]]:
    """Base and scaling of the rotary frequencies, in the older and the newer form of config.json."""
    new = tree.get("rope_parameters") or {}
    scaling = tree.get("rope_scaling") or new
    theta = float(new.get("rope_theta", tree.get("rope_theta", 10_000.0)))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return theta, ()
    check_choice("rope_type", kind, ("default", "llama3"))
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return theta, tuple(float(scaling[name]) for name in names)


def _llama_config(tree: Mapping[str, Any]) -> TransformerConfig:
    check_choice("hidden_act", tree.get("hidden_act", "silu"), ("silu",))
    if tree.get("mlp_bias"):
        raise ValueError("config.json asks for mlp_bias without biases elsewhere, which this network does not have")
    theta, scaling = _rope(tree)
    kind = tree.get("model_type")
    window = tree.get("sliding_window") if tree.get("use_sliding_window", kind in ("mistral", "mixtral")) else None
    if window and kind == "qwen2":
        raise ValueError("config.json asks for a sliding window in some layers alone, which this network does not have")
    if tree.get("attention_bias"):
        raise ValueError("config.json asks for attention_bias, of the output too, which this network does not have")
    usual = tree["hidden_size"] // tree["num_attention_heads"]
    head_size = tree.get("head_dim") or usual
    return TransformerConfig(
        num_layers=tree["num_hidden_layers"],
        width=tree["hidden_size"],
        num_heads=tree["num_attention_heads"],
        num_kv_heads=tree.get("num_key_value_heads"),
        head_size=None if head_size == usual else head_size,
        hidden=tree["intermediate_size"],
        context=tree.get("max_position_embeddings", 2048),
        positions="rotary",
        rope_theta=theta,
        rope_scaling=scaling,
        norm="rms",
        epsilon=tree.get("rms_norm_eps", 1e-6),
        activation="swiglu",
        bias=False,
        qkv_bias=kind == "qwen2",
        tied=tree.get("tie_word_embeddings", False),
        window=window,
        moe=MoeConfig(tree["num_local_experts"], tree["num_experts_per_tok"]) if kind == "mixtral" else MoeConfig(),
    )


def _llama_document(cfg: TransformerConfig, num_tokens: int, begin: int, end: int) -> dict[str, Any]:
    experts = cfg.moe.num_experts > 1
    kind = "mixtral" if experts else "qwen2" if cfg.qkv_bias else "mistral" if cfg.window else "llama"
    classes = {name: f"{name.title()}ForCausalLM" for name in ("llama", "mistral", "qwen2", "mixtral")}
    tree = {
        "architectures": [classes[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "num_hidden_layers": cfg.num_layers,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.hidden_units,
        "max_position_embeddings": cfg.context,
        "rms_norm_eps": cfg.epsilon,
        "rope_theta": cfg.rope_theta,
        "tie_word_embeddings": cfg.tied,
        "vocab_size": num_tokens,
        "bos_token_id": begin,
        "eos_token_id": end,
    }
    if cfg.rope_scaling:
        keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        factor, low, high, original = cfg.rope_scaling
        values = (factor, low, high, int(original))
        tree["rope_scaling"] = {"rope_type": "llama3", **dict(zip(keys, values, strict=True))}
    if experts:
        tree |= {"num_local_experts": cfg.moe.num_experts, "num_experts_per_tok": cfg.moe.top_k}
    return tree | ({"sliding_window": cfg.window} if kind in ("mistral", "mixtral") else {})


def _llama_places(cfg: TransformerConfig) -> dict[str, Place]:
    table = {"model.embed_tokens.weight": Place(("embed/tokens",)), "model.norm.weight": Place(("norm/scale",))}
    block = "model.layers.{}."
    for name, norm in (("input_layernorm", "norm_attention"), ("post_attention_layernorm", "norm_mlp")):
        table[f"{block}{name}.weight"] = Place((f"blocks/{norm}/scale",))
    layers = {f"self_attn.{part}_proj": f"attention/{part}" for part in "qkv"}
    if cfg.moe.num_experts == 1:
        layers |= {f"mlp.{part}_proj": f"mlp/{part}" for part in ("gate", "up", "down")}
    else:
        experts = {"w1": "gate", "w2": "down", "w3": "up"}
        layers |= {f"block_sparse_moe.experts.{{}}.{name}": f"moe/{part}" for name, part in experts.items()}
        layers["block_sparse_moe.gate"] = "moe/router"
    layers["self_attn.o_proj"] = "attention/out"
    for name, path in layers.items():
        table[f"{block}{name}.weight"] = Place((f"blocks/{path}/kernel",), transposed=True)
        if cfg.qkv_bias and path[-1] in "qkv" and "attention/" in path:
            table[f"{block}{name}.bias"] = Place((f"blocks/{path}/bias",))
    return table if cfg.tied else table | {"lm_head.weight": Place(("head/kernel",), transposed=True)}


GPT2 = Family(("gpt2",), _gpt2_config, _gpt2_document, _gpt2_places, (r"\.attn\.(masked_)?bias$",), "transformer.")
LLAMA = Family(
    ("llama", "mistral", "qwen2", "mixtral"),
    _llama_config,
    _llama_document,
    _llama_places,
    (r"rotary_emb\.inv_freq$",),
    "model.",
)
