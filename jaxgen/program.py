"""What is compiled: the state's layout, the training step, evaluation over a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.config import MeshConfig
from jaxgen.data.dataset import Dataset, Spec, evaluation_batch, num_evaluation_batches
from jaxgen.method import Method
from jaxgen.sharding import QUEUE, global_batch, replicated, state_shardings


class Keys(NamedTuple):
    """The run's independent random streams."""

    init: jax.Array
    step: jax.Array
    sample: jax.Array
    evaluate: jax.Array


def keys_of(seed: int) -> Keys:
    """The streams of a run with this seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def abstract_state(method: Method, spec: Spec, batch_size: int, mesh: Mesh, config: MeshConfig) -> Any:
    """The state's shapes, dtypes and shardings, without computing anything."""
    state = jax.eval_shape(method.init, jax.random.key(0), spec.batch(batch_size, method.reads))
    shardings = state_shardings(state, mesh, method.rules, config.min_shard_size)
    return jax.tree.map(lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh), state, shardings)


def shardings_of(abstract: Any) -> Any:
    """The shardings of an abstract state."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def compile_step(
    method: Method, abstract: Any, batch: Any, root: jax.Array, mesh: Mesh, num: int = 1
) -> tuple[Any, dict[str, jax.Array]]:
    """The one compiled program of training, and its first `bad`.

    The program is `(state, bad, batch, number, attempt) -> (state, bad, metrics)`, and does `num` steps.

    `bad` maps each metric to the first step (counted from 1) at which it was not finite, -1 while there is none; a
    step's randomness is a function of its number (`number`, from 0, is the first one's) and of the `attempt`. The
    metrics are those of the last step.

    Args:
      method: whose step it is.
      abstract: the state's layout, see `abstract_state`.
      batch: shapes and shardings of a batch, [B, ...].
      root: key of the steps' randomness.
      mesh: where it runs.
      num: how many steps; more than one take so many batches, as [B, num, ...].
    """

    def step(state, bad, batch, number, attempt):
        key = jax.random.fold_in(jax.random.fold_in(root, attempt), number)
        state, metrics = method.step(state, batch, key)
        bad = {k: jnp.where((bad[k] < 0) & ~jnp.isfinite(v), number + 1, bad[k]) for k, v in metrics.items()}
        return state, bad, metrics

    def steps(state, bad, batches, number, attempt):
        def one(carry, inputs):
            (state, bad), (batch, number) = carry, inputs
            state = jax.lax.with_sharding_constraint(state, shardings_of(abstract))  # what the loop carries has none
            state, bad, metrics = step(state, bad, batch, number, attempt)
            return (state, bad), metrics

        batches = jax.tree.map(lambda x: x.swapaxes(0, 1), batches)  # [num, B, ...]
        (state, bad), metrics = jax.lax.scan(one, (state, bad), (batches, number + jnp.arange(num)))
        return state, bad, jax.tree.map(lambda x: x[-1], metrics)

    metrics = jax.eval_shape(method.step, abstract, batch, jax.random.key(0))[1]
    if odd := [name for name, value in metrics.items() if value.shape]:
        raise ValueError(f"metrics are scalars, but {odd[0]} has the shape {metrics[odd[0]].shape}")
    scalar, everywhere = jax.ShapeDtypeStruct((), jnp.int32), replicated(mesh)
    bad = {name: jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere) for name in metrics}
    if num > 1:
        several = lambda x: jax.ShapeDtypeStruct((x.shape[0], num, *x.shape[1:]), x.dtype, sharding=x.sharding)
        batch = jax.tree.map(several, batch)
    jitted = jax.jit(
        step if num == 1 else steps,
        donate_argnums=0,
        out_shardings=(shardings_of(abstract), everywhere, everywhere),
        compiler_options=late(mesh),
    )
    return jitted.lower(abstract, bad, batch, scalar, scalar).compile(), {
        name: jax.device_put(np.int32(-1), everywhere) for name in metrics
    }


def late(mesh: Mesh) -> dict[str, str] | None:
    """Compiler options under which a step gathers a parameter, or computes a block anew, when it is needed.

    XLA's schedule for CPUs does first whatever can be done first. Those for GPUs and TPUs hide gathers behind
    computation, a few ahead; how many live at once there has not been measured.
    """
    cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if cpu else None


def make_examples(method: Method, data: Dataset, mesh: Mesh, batch_size: int, key: jax.Array) -> Callable[..., Any]:
    """What `method.evaluate` gives for each of the N examples of a split, in the split's own order.

    Returns:
      `(state, split, repeat=0, between=None) -> {name: (numerator [N], denominator [N])}`, float64. Another `repeat`
      draws other noise; `between` is called after every batch.
    """
    values = jax.jit(lambda *args: method.evaluate(*args), out_shardings=replicated(mesh))  # type: ignore[misc]

    def examples(
        state: Any, split: str, repeat: int = 0, between: Callable[[], None] | None = None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        parts, noise = [], jax.random.fold_in(key, repeat)
        for i in range(num_evaluation_batches(data, split, batch_size)):
            read = lambda rows, i=i: evaluation_batch(data, split, i, batch_size, method.reads, rows)  # noqa: E731
            batch = global_batch(read, batch_size, mesh)
            del batch["valid"]
            parts.append(values(state, batch, jax.random.fold_in(noise, i)))
            jax.block_until_ready(parts[-QUEUE:][0])
            if between:
                between()
        count = data.spec.count(split)  # what lies behind it is the last batch's padding
        return jax.tree.map(lambda *xs: np.concatenate(xs)[:count].astype(np.float64), *jax.device_get(parts))

    return examples


def make_evaluate(method: Method, data: Dataset, mesh: Mesh, batch_size: int, key: jax.Array) -> Callable[..., Any]:
    """`(state, split, repeat=0, between=None) -> {name: float}`, Σ numerator / Σ denominator of `make_examples`."""
    examples = make_examples(method, data, mesh, batch_size, key)

    def evaluate(
        state: Any, split: str, repeat: int = 0, between: Callable[[], None] | None = None
    ) -> dict[str, float]:
        values = examples(state, split, repeat, between)
        return {name: float(num.sum()) / float(den.sum()) for name, (num, den) in values.items()}

    return evaluate


def make_sample(method: Method, mesh: Mesh) -> Callable[..., Any]:
    """`method.sample` compiled, its result on every device: `(state, key, num, cond=None) -> pytree of [num, ...]`."""
    return jax.jit(method.sample, static_argnums=2, out_shardings=replicated(mesh))  # type: ignore[arg-type]
