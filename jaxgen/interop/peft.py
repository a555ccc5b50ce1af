"""LoRA adapters in PEFT's format, `adapter_config.json` and `adapter_model.safetensors`, of GPT-2 and Llama.

A tensor `base_model.model.MODULE.lora_A.weight` is [r, in], `lora_B.weight` [out, r]; the module names are those of
`layouts`. GPT-2 has its queries, keys and values in one module, c_attn, so with one A for the three: read, each of ours
gets that A and its own part of B. Written, adapters that share their A become one of rank r again; others become one
whose A has all of theirs one below the other, and whose B has blocks on its diagonal and zeros elsewhere, of rank r
times the number of them, with α as many times larger.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.checksum import by_path, nested
from jaxgen.interop.huggingface import family_of
from jaxgen.interop.tensors import Tensors
from jaxgen.nets.transformer import Transformer, TransformerConfig
from jaxgen.report.atomic import replacing

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
REFUSED = (
    *("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "layer_replication", "target_parameters"),
    *("alora_invocation_tokens", "arrow_config", "use_qalora", "use_bdlora", "kasa_config", "monteclora_config"),
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")  # of `init_lora_weights`: the base is no longer the model's


class Adapters(NamedTuple):
    """Adapters of a `Transformer`: rank, α, and `lora_a` and `lora_b` at the path of each matrix."""

    rank: int
    alpha: float
    params: Any

    @property
    def targets(self) -> tuple[str, ...]:
        """The matrices' paths, as regexes that match nothing else."""
        return tuple(sorted({f"^{path.rpartition('/')[0]}$" for path in by_path(self.params)}))


class _Module(NamedTuple):
    """A linear module of the checkpoint: its name in a layer, `{}` for the layer's number, and what it holds."""

    name: str
    paths: tuple[str, ...]

    @property
    def short(self) -> str:
        """What PEFT's config calls it, the same in all layers."""
        return self.name.rpartition("{}.")[2]


def _modules(config: TransformerConfig) -> Iterator[_Module]:
    for name, place in family_of(config).places(config).items():
        if name.endswith(".weight") and name.count("{}") < 2 and place.paths[0].endswith("/kernel"):
            yield _Module(name.removesuffix(".weight"), place.paths)


def _shapes(config: TransformerConfig, num_tokens: int) -> dict[str, tuple[int, ...]]:
    tree = jax.eval_shape(Transformer(config, num_tokens).init, jax.random.key(0))
    return {path: leaf.shape for path, leaf in by_path(tree).items()}


def _pattern(table: Mapping[str, Any], module: str, default: Any) -> Any:
    """What PEFT's `rank_pattern` or `alpha_pattern` says of a module."""
    return next((value for key, value in table.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters."""
    return (folder / CONFIG).is_file()


def read_adapters(folder: Path, config: TransformerConfig, num_tokens: int) -> Adapters:
    """Reads adapters for a network of this `config` and vocabulary; those of smaller ranks are filled up with zeros.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: it is no LoRA, or one with an option that ours has not; tensors that are no part of the network, or of
        another shape.
    """
    try:
        tree = json.loads((folder / CONFIG).read_text("utf-8"))
        kind, alpha = tree.get("peft_type"), float(tree["lora_alpha"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error!r}") from None
    asked = [name for name in REFUSED if tree.get(name)] + ["bias"] * (tree.get("bias", "none") != "none")
    if str(tree.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
        asked.append(f"init_lora_weights={tree['init_lora_weights']}")
    if kind != "LORA" or asked:
        options = f" with {', '.join(asked)}" if asked else ""
        raise ValueError(f"{folder} holds {kind} adapters{options}: only plain LoRA is read")
    if not (folder / TENSORS).is_file():
        older = " (adapter_model.bin needs PyTorch: save it as safetensors first)" * any(folder.glob("*.bin"))
        raise FileNotFoundError(f"no {folder / TENSORS}{older}")
    tensors, shapes = Tensors(folder / TENSORS), _shapes(dataclasses.replace(config, vocab_multiple=1), num_tokens)
    ours = _shapes(config, num_tokens)  # an output layer may have rows that no token needs
    known: set[str] = set()
    factors: dict[str, np.ndarray] = {}
    rank = max((tensors.shape(name)[0] for name in tensors.names if name.endswith("lora_A.weight")), default=0)
    for module in _modules(config):
        *lead, inputs, _ = shapes[module.paths[0]]
        ends = np.cumsum([shapes[path][-1] for path in module.paths])
        for layer in range(lead[0]) if lead else (None,):
            name = PREFIX + module.name.format(layer)
            pair = [f"{name}.lora_{letter}.weight" for letter in "AB"]
            if not set(pair) <= set(tensors.names):
                continue
            a, b = (tensors.read(tensor).astype(np.float32).T for tensor in pair)  # [in, r], [r, out]
            if (len(a), b.shape) != (inputs, (a.shape[1], ends[-1])):
                raise ValueError(f"{name}: factors {a.shape} and {b.shape} of a matrix [{inputs}, {ends[-1]}]")
            known |= set(pair)
            own_rank = a.shape[1]
            own_alpha = _pattern(tree.get("alpha_pattern") or {}, module.name.format(layer), alpha)
            scale = own_alpha / (math.sqrt(own_rank) if tree.get("use_rslora") else own_rank)
            for path, part in zip(module.paths, np.split(b, ends[:-1], 1), strict=True):
                for leaf, x, shape in (
                    ("lora_a", a, (*lead, inputs, rank)),
                    ("lora_b", part * np.float32(scale * rank / alpha), (*lead, rank, ours[path][-1])),
                ):
                    whole = factors.setdefault(f"{path}/{leaf}", np.zeros(shape, np.float32))
                    whole[... if layer is None else layer][: x.shape[0], : x.shape[1]] = x
    if unknown := sorted(set(tensors.names) - known) or ([] if factors else ["no tensors"]):
        raise ValueError(f"{folder} does not fit this network:\n  " + "\n  ".join(unknown[:20]))
    return Adapters(rank, alpha, nested(factors))


def write_adapters(
    folder: Path, adapters: Adapters, config: TransformerConfig, num_tokens: int, base: str | None
) -> None:
    """Writes adapters that PEFT opens on a model that `huggingface.write_checkpoint` wrote.

    Args:
      folder: where to; made if need be.
      adapters: what is written.
      config: of the network.
      num_tokens: that it knows.
      base: the model's name or folder, as PEFT's config has it; None for none.

    Raises:
      ValueError: adapters of what is no linear module there (an embedding), or a network of no family.
    """
    from safetensors.numpy import save

    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in by_path(adapters.params).items()}
    left = {path.rpartition("/")[0] for path in leaves}
    shapes = _shapes(dataclasses.replace(config, vocab_multiple=1), num_tokens)
    tensors: dict[str, np.ndarray] = {}
    tree: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": config.positions == "learned",  # GPT-2's modules store [in, out]
        "target_modules": [],
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    for module in _modules(config):
        own = [path for path in module.paths if path in left]
        if not own:
            continue
        left -= set(own)
        first = leaves[f"{own[0]}/lora_a"]
        shared = len(own) == len(module.paths) and all((leaves[f"{path}/lora_a"] == first).all() for path in own)
        times = 1 if shared else len(own)
        tree["target_modules"].append(module.short)
        if times > 1:
            tree["rank_pattern"][module.short] = times * adapters.rank
            tree["alpha_pattern"][module.short] = times * adapters.alpha
        for layer in range(config.num_layers) if "{}" in module.name else (...,):
            a = first[layer] if shared else np.concatenate([leaves[f"{path}/lora_a"][layer] for path in own], 1)
            b = np.zeros((a.shape[1], sum(shapes[path][-1] for path in module.paths)), np.float32)
            row = column = 0
            for path in module.paths:
                width = shapes[path][-1]
                if path in own:
                    b[row : row + adapters.rank, column : column + width] = leaves[f"{path}/lora_b"][layer][:, :width]
                    row += 0 if shared else adapters.rank
                column += width
            name = PREFIX + module.name.format(layer)
            tensors |= {f"{name}.lora_A.weight": a.T.copy(), f"{name}.lora_B.weight": b.T.copy()}
    if left:
        raise ValueError(f"PEFT has no such adapters as those of {', '.join(sorted(left))}")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / TENSORS) as file:
        file.write(save(tensors, metadata={"format": "pt"}))
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(tree, indent=2) + "\n").encode())
