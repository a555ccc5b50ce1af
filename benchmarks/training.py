"""Training steps of ours, compiled as the trainer compiles them, and the same in PyTorch."""

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


def step_facts(method: Any, abstract: Any, batch: Any) -> dict[str, float]:
    """Parameters of a state and model FLOPs of a step of ours; `abstract` and `batch` may be shapes."""
    import jax

    from jaxgen.flops import model_flops

    count = sum(leaf.size for leaf in jax.tree.leaves(abstract["params"]))
    return {"parameters": count, "GFLOP": model_flops(method, abstract, batch).model / 1e9}


def torch_training(
    model: Any, loss_of: Callable[..., Any], rate: float = 1e-3, warmup: int = 0, ema_decay: float = 0.0
) -> tuple[Callable[..., float], list[Any]]:
    """The same in PyTorch: a call that does a step on its arguments and gives the loss, and the weights' average.

    Args:
      model: whose parameters are trained, by fused AdamW with gradients clipped to a norm of 1.
      loss_of: gives the loss of a call's arguments.
      rate: the peak rate.
      warmup: steps in which the rate rises to it.
      ema_decay: of the average, which starts as ours does; 0 for none.
    """
    import torch

    params = list(model.parameters())
    average = [p.detach().clone() for p in params] if ema_decay else []
    adamw = torch.optim.AdamW(params, lr=rate, weight_decay=0.0, fused=True)
    done = 0

    def step(*inputs: Any) -> float:
        nonlocal done
        adamw.param_groups[0]["lr"] = rate * min(1.0, done / warmup) if warmup else rate
        done += 1
        loss = loss_of(*inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adamw.step()
        adamw.zero_grad()
        if average:
            torch._foreach_lerp_(average, params, 1 - min(ema_decay, done / (done + 9)))
        return loss.item()

    return step, average


def torch_facts(model: Any) -> dict[str, float]:
    """Parameters of a model in PyTorch."""
    return {"parameters": sum(p.numel() for p in model.parameters())}
