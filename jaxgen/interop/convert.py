"""The command `jaxgen convert`: a checkpoint of Hugging Face, or adapters of PEFT, become a run, and back."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen import catalog, runs
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Experiment, MeshConfig, TrainConfig, experiment_to_json
from jaxgen.data import SOURCES, Spec, Text, tokenizer
from jaxgen.interop import huggingface, peft
from jaxgen.language import bert, gpt, lora
from jaxgen.program import abstract_state, keys_of, shardings_of
from jaxgen.sharding import make_mesh
from jaxgen.trained import Run, layout, open_run, restore


def convert(args: Sequence[str]) -> int:
    """`convert FROM TO`: a checkpoint of Hugging Face, or PEFT's adapters, become a run, and a run one of these."""
    parser = argparse.ArgumentParser(prog="convert", allow_abbrev=False)
    parser.add_argument("source", metavar="FROM", type=Path, help="a checkpoint's folder, or a run")
    parser.add_argument("target", metavar="TO", type=Path, help="the run's directory, or the checkpoint's folder")
    parser.add_argument("--checkpoint", default="last", help="of a run: last, best, or a step (default: last)")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the tensors that are written"
    )
    parser.add_argument(
        "--data", default="speeches", metavar="NAME", help="the text of the run's config: see `Text.name`"
    )
    parser.add_argument("--base", type=Path, metavar="RUN", help="of adapters: the run that they adapt")
    parser.add_argument("--merge", action="store_true", help="of a run of lora: writes the whole model, adapters added")
    known = parser.parse_args(args)
    for file in (runs.CONFIG, peft.CONFIG):
        if (known.target / file).exists():
            raise ValueError(f"{known.target} holds a{'n' * (file[0] in 'aeiou')} {file} already: choose another place")
    if _is_run(known.source):
        num, reader = write_run(known.source, known.target, known.checkpoint, known.dtype, known.merge)
        print(f"{known.target}: {num:,} parameters of {known.source}, as {reader} reads them")
    elif peft.is_adapter(known.source):
        if known.base is None:
            raise ValueError(f"{known.source} holds adapters: say with --base RUN what they adapt")
        num = read_adapter_run(known.source, known.target, known.base)
        print(f"{known.target}: a run with {num:,} of adapters; next: jaxgen sample {known.target} --prompt TEXT")
    else:
        num = read_run(known.source, known.target, known.data)
        print(f"{known.target}: a run with {num:,} parameters; next: jaxgen sample {known.target} --prompt TEXT")
    return 0


def _is_run(folder: Path) -> bool:
    try:
        return "method" in json.loads((folder / runs.CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong


def read_run(source: Path, target: Path, name: str = "speeches") -> int:
    """Makes a run of a checkpoint, at step 0, and returns its number of parameters; see `huggingface.read_checkpoint`.

    Args:
      source: the checkpoint's folder, with a tokenizer in it.
      target: the run's directory.
      name: the text of its config, which `evaluate` reads.
    """
    model, chosen = huggingface.read_checkpoint(source), tokenizer.read(source)
    if chosen.size > model.num_tokens:
        raise ValueError(f"the tokenizer has {chosen.size} tokens, the model {model.num_tokens}")
    length, paired = min(model.config.context, 1024), not model.config.causal
    method_config = (bert.Config if paired else gpt.Config)(model.config, num_tokens=model.num_tokens)
    config: Experiment = Experiment(
        method=method_config,
        data=Text(name, str(source.resolve()), length, "pairs" if paired else "stream"),
        train=TrainConfig(batch_size=8),
        mesh=MeshConfig(data=1),
    )
    spec = dataclasses.replace(config.data.unread(), sizes={"tokens": (chosen.size,)}, tokenizer=chosen.saved)
    _save(config, spec, {"pretrained": model.params}, source, target)
    if model.missing:
        print("not in the checkpoint, and initialised: " + ", ".join(model.missing))
    return sum(x.size for x in jax.tree.leaves(model.params))


def read_adapter_run(source: Path, target: Path, base: Path) -> int:
    """Makes a run of `lora` of PEFT's adapters, at step 0, and returns their number of parameters.

    Args:
      source: the adapters' folder, see `peft.read_adapters`.
      target: the run's directory.
      base: a run of `gpt`, which they adapt.
    """
    run, params = _opened(base, "last")
    if not isinstance(run.config.method, gpt.Config):
        raise ValueError(f"{base} is no run of the method gpt: adapters are read for one of these")
    base_method = run.config.method
    num_tokens = base_method.num_tokens or tokenizer.Tokenizer(run.spec.tokenizer).size
    found = peft.read_adapters(source, base_method.net, num_tokens)
    method = lora.Config(run.config.method, found.rank, found.alpha, found.targets)
    config = dataclasses.replace(run.config, method=method, mesh=MeshConfig(data=1), init_from={})
    put_in = lambda state: {**state, "params": {**state["params"], "adapters": found.params}}
    _save(config, run.spec, {"base": params["params"]}, source, target, put_in)
    return sum(x.size for x in jax.tree.leaves(found.params))


def _save(
    config: Experiment,
    spec: Spec,
    warm: dict[str, Any],
    source: Path,
    target: Path,
    put_in: Callable[[Any], Any] = lambda state: state,
) -> None:
    """Writes a run at step 0 whose method starts from `warm`, with what `put_in` changes in its state."""
    method = catalog.make(config.method, spec)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        abstract = abstract_state(method, spec, config.train.batch_size, mesh, config.mesh)
        init = jax.jit(lambda key, warm: put_in(method.init(key, None, warm)), out_shardings=shardings_of(abstract))
        state = init(keys_of(config.train.seed).init, warm)
    document = experiment_to_json(config, catalog.kinds(), SOURCES) | {"spec": spec.to_json()}
    target.mkdir(parents=True, exist_ok=True)
    with_info = {"data_step": 0, "attempt": 0, "rules": [], "extra": []}
    checkpoints = Checkpoints(target / runs.CHECKPOINTS, writing=True)
    if not checkpoints.save(0, state, with_info):
        raise ValueError(f"{source} holds numbers that are not finite")
    checkpoints.close()
    runs.write_config(target, document)


def _opened(folder: Path, which: str) -> tuple[Run, Any]:
    """A run and its state, on one device."""
    run = open_run(folder)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        return run, restore(run, layout(run, mesh), which).state


def write_run(
    source: Path, target: Path, which: str = "last", dtype: str = "float32", merge: bool = False
) -> tuple[int, str]:
    """Writes a run's parameters as a checkpoint, see `huggingface.write_checkpoint`, or a run's adapters as PEFT's.

    Returns:
      The number of parameters, and what reads them.
    """
    run = open_run(source)
    method, adapters = run.config.method, None
    if isinstance(method, lora.Config):
        method, adapters = method.base, method
    if not isinstance(method, bert.Config | gpt.Config) or getattr(method, "core", "transformer") != "transformer":
        raise ValueError(f"{source} is no run of a transformer of gpt or bert: there is no such checkpoint of it")
    huggingface.family_of(method.net)
    state, chosen = _opened(source, which)[1], tokenizer.Tokenizer(run.spec.tokenizer)
    num_tokens = method.num_tokens or chosen.size
    if adapters and not merge:
        if isinstance(method, bert.Config):
            raise ValueError(f"{source} adapts a BERT: --merge writes all of it")
        if adapters.whole:
            raise ValueError(f"{source} trained {', '.join(adapters.whole)} as a whole: --merge writes all of it")
        if dtype != "float32":
            raise ValueError("adapters are written as float32: leave out --dtype")
        factors = peft.Adapters(adapters.rank, adapters.alpha, jax.tree.map(np.asarray, state["params"]["adapters"]))
        # A run is no model that PEFT could open: who opens the adapters says which it is.
        peft.write_adapters(target, factors, method.net, num_tokens, None)
        return sum(x.size for x in jax.tree.leaves(factors.params)), "PEFT"
    params = lora.merged(adapters, state) if adapters else state["params"]
    model = huggingface.Model(method.net, num_tokens, jax.tree.map(np.asarray, params))
    huggingface.write_checkpoint(target, model, chosen, dtype)  # type: ignore[arg-type]
    return sum(x.size for x in jax.tree.leaves(model.params)), "transformers"
