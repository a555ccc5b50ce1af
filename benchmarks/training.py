"""Training steps of ours, compiled as the trainer compiles them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def training(method: Any, spec: Any, batch: Mapping[str, Any], per_call: int = 1) -> tuple[Callable[[], None], Any]:
    """A call that does `per_call` steps in one program, on all devices there are, and the shapes of its state.

    Args:
      method: whose steps they are.
      spec: the description of its data.
      batch: what each step reads, {key: [B, ...]}.
      per_call: steps of a call.
    """
    import jax
    import numpy as np

    from jaxgen import backend
    from jaxgen.config import MeshConfig, TrainConfig
    from jaxgen.program import abstract_state, compile_step, keys_of, shardings_of
    from jaxgen.sharding import global_batch, make_mesh

    backend.prepare(TrainConfig(compilation_cache=""))
    mesh, keys = make_mesh(MeshConfig()), keys_of(0)
    size = len(next(iter(batch.values())))
    with jax.set_mesh(mesh):
        abstract = abstract_state(method, spec, size, mesh, MeshConfig())
        data = global_batch(lambda rows: {key: x[rows] for key, x in batch.items()}, size, mesh)
        state = jax.jit(method.init, out_shardings=shardings_of(abstract))(keys.init, data)
        program, bad = compile_step(method, abstract, data, keys.step, mesh, per_call)
        if per_call > 1:
            stacked = {key: np.stack([x] * per_call, 1) for key, x in batch.items()}
            data = global_batch(lambda rows: {key: x[rows] for key, x in stacked.items()}, size, mesh)
    kept: dict[str, Any] = {"state": state, "bad": bad, "number": 0}

    def run() -> None:
        number = np.int32(kept["number"])
        kept["state"], kept["bad"], metrics = program(kept["state"], kept["bad"], data, number, np.int32(0))
        kept["number"] += per_call
        jax.block_until_ready(metrics)

    return run, abstract
