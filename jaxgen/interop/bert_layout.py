"""Where the tensors of Hugging Face's BERT lie in the parameters of a `Bert`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxgen.config import check_choice
from jaxgen.interop.layouts import Family, Place
from jaxgen.nets.bert import Bert
from jaxgen.nets.transformer import TransformerConfig


def _bert_config(tree: Mapping[str, Any]) -> TransformerConfig:
    kinds = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
    activation = tree.get("hidden_act", "gelu")
    check_choice("hidden_act", activation, kinds)
    check_choice("position_embedding_type", tree.get("position_embedding_type") or "absolute", ("absolute",))
    for key in ("is_decoder", "add_cross_attention"):
        if tree.get(key):
            raise ValueError(f"config.json asks for {key}, which this network does not have")
    if not tree.get("tie_word_embeddings", True):
        raise ValueError("config.json asks for an output that is not the embedding, which this network does not have")
    return TransformerConfig(
        num_layers=tree["num_hidden_layers"],
        width=tree["hidden_size"],
        num_heads=tree["num_attention_heads"],
        hidden=tree["intermediate_size"],
        context=tree.get("max_position_embeddings", 512),
        post_norm=True,
        epsilon=tree.get("layer_norm_eps", 1e-12),
        activation=kinds[activation],  # type: ignore[arg-type]
        causal=False,
        num_types=tree.get("type_vocab_size", 2),
        dropout=tree.get("hidden_dropout_prob", 0.1),
    )


def _bert_document(cfg: TransformerConfig, num_tokens: int, begin: int, end: int) -> dict[str, Any]:
    return {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "hidden_act": "gelu_new" if cfg.activation == "gelu" else "gelu",
        "num_hidden_layers": cfg.num_layers,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.hidden_units,
        "max_position_embeddings": cfg.context,
        "layer_norm_eps": cfg.epsilon,
        "type_vocab_size": cfg.num_types,
        "hidden_dropout_prob": cfg.dropout,
        "attention_probs_dropout_prob": 0.0,
        "vocab_size": num_tokens,
        "bos_token_id": begin,
        "eos_token_id": end,
    }


def _bert_places(cfg: TransformerConfig) -> dict[str, Place]:
    names = {"word": "tokens", "position": "positions", "token_type": "types"}
    table = {f"bert.embeddings.{name}_embeddings.weight": Place((f"net/embed/{path}",)) for name, path in names.items()}
    layer = "bert.encoder.layer.{}."
    for name, norm in (
        ("bert.embeddings.LayerNorm", "net/embed/norm"),
        (f"{layer}attention.output.LayerNorm", "net/blocks/norm_attention"),
        (f"{layer}output.LayerNorm", "net/blocks/norm_mlp"),
        ("cls.predictions.transform.LayerNorm", "mlm/norm"),
    ):
        table |= {f"{name}.weight": Place((f"{norm}/scale",)), f"{name}.bias": Place((f"{norm}/bias",))}
    for name, path in (
        (f"{layer}attention.self.query", "net/blocks/attention/q"),
        (f"{layer}attention.self.key", "net/blocks/attention/k"),
        (f"{layer}attention.self.value", "net/blocks/attention/v"),
        (f"{layer}attention.output.dense", "net/blocks/attention/out"),
        (f"{layer}intermediate.dense", "net/blocks/mlp/up"),
        (f"{layer}output.dense", "net/blocks/mlp/down"),
        ("bert.pooler.dense", "pooler"),
        ("cls.predictions.transform.dense", "mlm/dense"),
        ("cls.seq_relationship", "nsp"),
    ):
        table[f"{name}.weight"] = Place((f"{path}/kernel",), transposed=True)
        table[f"{name}.bias"] = Place((f"{path}/bias",))
    return table | {"cls.predictions.bias": Place(("mlm/bias",))}


BERT = Family(
    ("bert",),
    _bert_config,
    _bert_document,
    _bert_places,
    (r"embeddings\.position_ids$", r"^cls\.predictions\.decoder\."),
    "bert.",
    Bert,
    ("bert.pooler.", "cls.predictions.", "cls.seq_relationship."),
)
