"""Checkpoints of Hugging Face, GPT-2's, Llama's and BERT's and those like them, read and written without PyTorch.

A checkpoint is a folder: `config.json`, the tensors in `model.safetensors` or in parts that
`model.safetensors.index.json` lists, and the tokenizer's files.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxgen.checksum import by_path, nested
from jaxgen.config import closest
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.interop.bert_layout import BERT
from jaxgen.interop.layouts import GPT2, LLAMA, Family
from jaxgen.interop.tensors import Tensors, write_tensors
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.report.atomic import replacing

FAMILIES = (GPT2, LLAMA, BERT)
VOCABULARY = {"embed/tokens": 0, "net/embed/tokens": 0, "mlm/bias": 0, "head/kernel": 1}  # axes as long as it is
SPECIAL = {f"[{name.upper()}]": f"{name}_token" for name in ("cls", "sep", "mask", "pad", "unk")}
PART = 5 * 10**9  # bytes of a file at most, as Hugging Face writes them


class Model(NamedTuple):
    """A checkpoint.

    Attributes:
      config: the network.
      num_tokens: how many tokens it knows.
      params: its parameters.
      missing: the tensors of whole heads that were not in the file, whose parameters are initial ones.
    """

    config: TransformerConfig
    num_tokens: int
    params: Any
    missing: tuple[str, ...] = ()


class Stored(NamedTuple):
    """A tensor of a checkpoint.

    Attributes:
      name: what it is called there.
      shape: its shape there.
      parts: the leaves that it holds, side by side along the last axis, with their sizes along it.
      at: which layer of these leaves, and which expert; () where they are no stacks.
      transposed: whether it is stored with its axes turned round.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]
    at: tuple[int, ...]
    transposed: bool


def _slots(family: Family, config: TransformerConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Stored]:
    for name, place in family.places(config).items():
        num = name.count("{}")
        own = [shapes[path][num:] for path in place.paths]
        shape = (*own[0][:-1], sum(s[-1] for s in own))
        parts = tuple((path, s[-1]) for path, s in zip(place.paths, own, strict=True))
        for index in itertools.product(*map(range, shapes[place.paths[0]][:num])):
            stored = shape[::-1] if place.transposed else shape
            yield Stored(name.format(*index), stored, parts, index, place.transposed)


def read_config(folder: Path) -> tuple[Family, dict[str, Any]]:
    """The family of a checkpoint, and its config.json.

    Raises:
      FileNotFoundError: there is no config.json.
      ValueError: it is damaged, or of a model that is of no family.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: a checkpoint of Hugging Face is a folder with config.json and safetensors")
    try:
        tree = json.loads(path.read_text("utf-8"))
        kind = tree.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    for family in FAMILIES:
        if kind in family.types:
            return family, tree
    types = [name for family in FAMILIES for name in family.types]
    raise ValueError(f"{path}: model_type {kind!r} is not among those that can be read{closest(str(kind), types)}")


def read_checkpoint(folder: Path) -> Model:
    """Reads a checkpoint; its numbers become float32. Heads of BERT that it lacks are `missing`, and initialised.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a model or an option that the network does not have; tensors that are missing, too many or of another
        shape, all of them listed.
    """
    family, tree = read_config(folder)
    try:
        config, num_tokens = family.config(tree), int(tree["vocab_size"])
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} lacks {error}") from None
    init, tensors = family.network(config, num_tokens).init, Tensors(folder)
    shapes = {path: leaf.shape for path, leaf in by_path(jax.eval_shape(init, jax.random.key(0))).items()}
    bare = not any(name.startswith(family.prefix) for name in tensors.names)  # a base model without its head
    stored = lambda name: name.removeprefix(family.prefix) if bare else name
    lacking = [p for p in family.parts if not any(name.startswith(stored(p)) for name in tensors.names)]
    every = list(_slots(family, config, shapes))
    slots = [slot for slot in every if not slot.name.startswith(tuple(lacking))]
    _check(folder, tensors, {stored(slot.name): slot.shape for slot in slots}, family, config.tied)
    leaves = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    if lacking:
        leaves = {path: np.array(leaf) for path, leaf in by_path(jax.jit(init)(jax.random.key(0))).items()}
    for slot in slots:
        array = tensors.read(stored(slot.name))
        array, begin = array.T if slot.transposed else array, 0
        for path, size in slot.parts:
            leaves[path][slot.at] = array[..., begin : begin + size]
            begin += size
    return Model(config, num_tokens, nested(leaves), tuple(s.name for s in every if s not in slots))


def _check(folder: Path, tensors: Tensors, asked: Mapping[str, tuple[int, ...]], family: Family, tied: bool) -> None:
    """Raises a ValueError that lists the tensors that are missing, too many or of another shape."""
    known = "|".join((*family.ignored, *(["^lm_head.weight$"] if tied else [])))
    found = {name: tensors.shape(name) for name in tensors.names if not re.search(known, name) or name in asked}
    lines = [f"{name}: missing" for name in asked.keys() - found.keys()]
    lines += [f"{name}: not a part of this model" for name in found.keys() - asked.keys()]
    for name in asked.keys() & found.keys():
        if found[name] != asked[name]:
            lines.append(f"{name}: {found[name]} in the file, {asked[name]} by config.json")
    if lines:
        raise ValueError(f"{folder} does not fit its config.json:\n  " + "\n  ".join(sorted(lines)))


def family_of(config: TransformerConfig) -> Family:
    """The family that a network can be written as.

    Raises:
      ValueError: it is none of GPT-2's, Llama's, Mixtral's and BERT's.
    """
    names = ("positions", "norm", "activation", "bias", "causal", "post_norm")
    others = ("num_kv_heads", "head_size", "window", "qkv_bias", "moe")
    shape = tuple(getattr(config, name) for name in names)
    plain = config.head_dim * config.num_heads == config.width and config.kv_heads == config.num_heads
    if shape == ("learned", "layer", "gelu", True, True, False) and plain and config.moe.num_experts == 1:
        if config.window is None and config.qkv_bias in (None, True):
            return GPT2
    if shape == ("rotary", "rms", "swiglu", False, True, False) and not (config.window and config.qkv_bias):
        if config.moe.num_experts == 1 or (config.moe.normalize and not config.qkv_bias):
            return LLAMA
    if shape[:2] == ("learned", "layer") and shape[2] in ("gelu", "gelu_exact") and shape[3:] == (True, False, True):
        if plain and config.tied and config.num_types and config.qkv_bias in (None, True):
            if config.moe.num_experts == 1:
                return BERT
    raise ValueError(
        "neither GPT-2 nor Llama, Mixtral or BERT has such a network: "
        + ", ".join(f"net.{name}={getattr(config, name)}" for name in (*names, *others))
    )


def write_checkpoint(
    folder: Path,
    model: Model,
    tokenizer: Tokenizer,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    part: int = PART,
) -> None:
    """Writes a checkpoint that `transformers` opens, its tokenizer included.

    Args:
      folder: where to; made if need be.
      model: the network; rows of its embedding that pad the vocabulary are left out.
      tokenizer: of the texts.
      dtype: of the tensors.
      part: bytes of a file at most.

    Raises:
      ValueError: see `family_of`.
    """
    import ml_dtypes

    family = family_of(model.config)
    leaves = {path: np.asarray(leaf) for path, leaf in by_path(model.params).items()}
    for path, axis in VOCABULARY.items():
        if path in leaves:
            leaves[path] = leaves[path].take(range(model.num_tokens), axis)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for slot in _slots(family, model.config, {path: leaf.shape for path, leaf in leaves.items()}):
            parts = [leaves[path][slot.at] for path, _ in slot.parts]
            array = np.concatenate(parts, -1).astype(kind)
            yield slot.name, array.T if slot.transposed else array

    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors(), part)
    tree = family.document(model.config, model.num_tokens, tokenizer.begin, tokenizer.end) | {"dtype": dtype}
    inner = with_template(tokenizer) if family is BERT else tokenizer.library()
    name = {number: piece for piece, number in inner.get_vocab(with_added_tokens=True).items()}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name[tokenizer.begin],
        "eos_token": name[tokenizer.end],
        "model_max_length": model.config.context,
    }
    if family is BERT:
        settings |= {key: piece for piece, key in SPECIAL.items() if piece in name.values()}
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    documents = {"config.json": tree, "tokenizer_config.json": settings, "tokenizer.json": json.loads(inner.to_str())}
    for file_name, document in documents.items():
        with replacing(folder / file_name) as file:
            file.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def with_template(tokenizer: Tokenizer) -> Any:
    """The library's tokenizer, which puts a text between [CLS] and [SEP] and a second one before another [SEP]."""
    from tokenizers import processors

    inner = tokenizer.library()
    begin, end = tokenizer.piece(tokenizer.begin), tokenizer.piece(tokenizer.end)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, tokenizer.begin), (end, tokenizer.end)],
    )
    return inner
