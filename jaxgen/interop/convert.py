"""The command `jaxgen convert`: a checkpoint of Hugging Face becomes a run, and a run becomes one."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxgen import catalog, runs
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Experiment, MeshConfig, TrainConfig, experiment_to_json
from jaxgen.data import SOURCES, Text, tokenizer
from jaxgen.interop import huggingface
from jaxgen.language import bert, gpt
from jaxgen.program import abstract_state, keys_of, shardings_of
from jaxgen.sharding import make_mesh
from jaxgen.trained import layout, open_run, restore


def convert(args: Sequence[str]) -> int:
    """`convert FROM TO`: a GPT-2, Llama or BERT checkpoint of Hugging Face becomes a run, and a run one of these."""
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
    known = parser.parse_args(args)
    if (known.target / "config.json").exists():
        raise ValueError(f"{known.target} holds a config.json already: choose another place")
    if _is_run(known.source):
        num = write_run(known.source, known.target, known.checkpoint, known.dtype)
        print(f"{known.target}: {num:,} parameters of {known.source}, as transformers reads them")
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
    method = catalog.make(config.method, spec)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        abstract = abstract_state(method, spec, config.train.batch_size, mesh, config.mesh)
        init = jax.jit(lambda key, warm: method.init(key, None, warm), out_shardings=shardings_of(abstract))
        state = init(keys_of(config.train.seed).init, {"pretrained": model.params})
    document = experiment_to_json(config, catalog.kinds(), SOURCES) | {"spec": spec.to_json()}
    target.mkdir(parents=True, exist_ok=True)
    with_info = {"data_step": 0, "attempt": 0, "rules": [], "extra": []}
    checkpoints = Checkpoints(target / runs.CHECKPOINTS, writing=True)
    if not checkpoints.save(0, state, with_info):
        raise ValueError(f"{source} holds numbers that are not finite")
    checkpoints.close()
    runs.write_config(target, document)
    if model.missing:
        print("not in the checkpoint, and initialised: " + ", ".join(model.missing))
    return sum(x.size for x in jax.tree.leaves(model.params))


def write_run(source: Path, target: Path, which: str = "last", dtype: str = "float32") -> int:
    """Writes a run's parameters as a checkpoint, and returns their number; see `huggingface.write_checkpoint`."""
    run = open_run(source)
    method = run.config.method
    if not isinstance(method, bert.Config | gpt.Config) or getattr(method, "core", "transformer") != "transformer":
        raise ValueError(f"{source} is no run of a transformer of gpt or bert: there is no such checkpoint of it")
    huggingface.family_of(method.net)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = restore(run, layout(run, mesh), which).state
    chosen = tokenizer.Tokenizer(run.spec.tokenizer)
    model = huggingface.Model(method.net, method.num_tokens or chosen.size, jax.tree.map(np.asarray, state["params"]))
    huggingface.write_checkpoint(target, model, chosen, dtype)  # type: ignore[arg-type]
    return sum(x.size for x in jax.tree.leaves(model.params))
