"""The contract: a method is a few pure functions over one explicit state.

The trainer knows nothing of a method but the fields of `Method`. Alternation, inner loops, phases and closed forms live
inside `step`, as scans over explicit state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.sharding import Rule, fenced, regathered

PyTree = Any


class Method(NamedTuple):
    """What the trainer needs of a method.

    Attributes:
      init: `(key, batch, warm=None) -> state`; `state` is any pytree of arrays, `warm` maps the names of `init_from`
        to the restored subtrees (None when the run starts from nothing; the state's layout is the same).
      step: `(state, batch, key) -> (state, metrics)`; one optimisation step, jit-compiled by the trainer with `state`
        donated. `metrics` maps names to scalars, `loss` among them where the method has one.
      sample: `(state, key, num, cond=None) -> {name: [num, ...]}`, or None; images under `image`, uint8 [num, H, W, C].
      evaluate: `(state, batch, key) -> {name: (numerator [B], denominator [B])}` in inference mode, or None. The metric
        is Σ numerator / Σ denominator over the split.
      reads: the batch keys that `init`, `step` and `evaluate` read.
      rules: `(regex on the state's path, PartitionSpec)` pairs; the first that matches wins (see `jaxgen.sharding`).
      starts_from: the names of `init_from` that `init` finds in `warm`.
      conditions: the keys of `cond`, `{key: [num, ...]}`, that `sample` takes: batch keys, laid out like them, and
        others that the method documents.
      enumerates: whether samples are what the model holds, one after the other and round again (the centroids, say): a
        second call would start anew, so that all are taken in one.
      objective: the one loss that a `gradient_method` is made of, for functions that wrap it; None for other methods.
    """

    init: Callable[..., PyTree]
    step: Callable[..., tuple[PyTree, dict[str, jax.Array]]]
    sample: Callable[..., dict[str, jax.Array]] | None = None
    evaluate: Callable[..., dict[str, tuple[jax.Array, jax.Array]]] | None = None
    reads: tuple[str, ...] = ("image",)
    rules: tuple[Rule, ...] = ()
    starts_from: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    enumerates: bool = False
    objective: Objective | None = None


class Objective(NamedTuple):
    """One loss, and how its parameters begin; the fields are the arguments of `gradient_method`."""

    init_params: Callable[..., PyTree]
    loss_fn: Callable[..., tuple[jax.Array, dict[str, Any]]]
    draw: Callable[..., PyTree]
    accumulate: int = 1
    weight_fn: Callable[..., jax.Array] | None = None
    factored: str | None = None

    def descend(
        self,
        tx: optax.GradientTransformation,
        params: PyTree,
        opt_state: PyTree,
        batch: PyTree,
        key: jax.Array,
        rules: Any,
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        """One step on the loss, see `descend`."""
        return descend(
            tx,
            self.loss_fn,
            params,
            opt_state,
            batch,
            self.draw(key, batch),
            accumulate=self.accumulate,
            weight_fn=self.weight_fn,
            rules=rules,
        )


def split_batch(tree: PyTree, num: int) -> PyTree:
    """Cuts every leaf [B, ...] into `num` parts, [num, B/num, ...].

    Example i goes to part i % num: under a batch sharded over devices this order moves no data between them, whereas
    consecutive parts would need an all-gather.

    Raises:
      ValueError: a leading axis does not divide by `num`.
    """

    def cut(x: jax.Array) -> jax.Array:
        if x.shape[0] % num:
            raise ValueError(f"cannot split a batch of {x.shape[0]} into {num} equal parts")
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # JAX's check for reused keys takes transposed ones for used
            return jax.random.wrap_key_data(cut(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return x.reshape(-1, num, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, tree)


def descend(
    tx: optax.GradientTransformation,
    loss_fn: Callable[..., tuple[jax.Array, dict[str, Any]]],
    params: PyTree,
    opt_state: PyTree,
    *args: PyTree,
    accumulate: int = 1,
    weight_fn: Callable[..., jax.Array] | None = None,
    rules: Sequence[Rule] = (),
) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
    """One gradient step on `loss_fn(params, *args) -> (loss, metrics)`; the only place where gradients meet optax.

    With `accumulate` = k > 1, every leaf of `args` [B, ...] is cut into k parts, and the gradients of the parts' mean
    losses are averaged with the weights `weight_fn(*part)`, so that the step equals that of the whole batch up to
    rounding. Draw noise for the whole batch outside and pass it in `args`.

    Args:
      tx: the optimizer.
      loss_fn: a mean loss over the examples (or tokens) of `args`, and a flat dict of scalar metrics; what it has to
        hand on that is no scalar (batch statistics, say) may stand there too, and comes back in the returned dict.
      params: what is differentiated.
      opt_state: `tx`'s state.
      *args: pytrees of [B, ...] arrays.
      accumulate: the number of parts.
      weight_fn: `(*part) -> scalar` total weight of a part's mean: its number of examples by default; pass the
        number of tokens for a per-token mean.
      rules: the method's, of `params`: how `tensor` splits what `fsdp` gathers.

    Returns:
      `(params, opt_state, metrics)`, metrics with `loss` and `grad_norm` (the global L2 norm, before `tx`) added.

    Raises:
      ValueError: the batch does not divide, or `accumulate` > 1 and `loss_fn` hands on something that is no scalar,
        which a weighted mean would not carry over exactly (batch statistics).
    """
    grad_fn = jax.value_and_grad(regathered(loss_fn, rules), has_aux=True)
    if accumulate == 1:
        (loss, metrics), grads = grad_fn(params, *args)
    else:
        parts = split_batch(args, accumulate)
        first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), parts)  # slicing would consume keys
        shapes = jax.eval_shape(grad_fn, params, *first)
        carried = [name for name, value in shapes[0][1].items() if not hasattr(value, "shape") or value.shape]
        if carried:
            raise ValueError(
                f"gradient accumulation over {accumulate} parts is not exact for a loss that hands on "
                f"{', '.join(carried)} (batch statistics depend on the whole batch); set accumulate=1"
            )
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.promote_types(s.dtype, jnp.float32)), shapes)

        def add(carry, part):
            total, sums = carry
            weight = jnp.asarray(
                jax.tree.leaves(part)[0].shape[0] if weight_fn is None else weight_fn(*part), jnp.float32
            )
            # A part without a single token weighs nothing, though its mean is 0/0.
            grow = lambda s, x: jnp.where(weight > 0, s + weight * x, s)
            return (total + weight, jax.tree.map(grow, sums, grad_fn(fenced(params, total), *part))), None

        (total, sums), _ = jax.lax.scan(add, (jnp.zeros(()), zeros), parts)
        mean = jax.tree.map(lambda s, x: (s / total).astype(x.dtype), sums, shapes)
        (loss, metrics), grads = mean
    updates, opt_state = tx.update(grads, opt_state, params)
    metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads)}
    return optax.apply_updates(params, updates), opt_state, metrics


def gradient_method(
    init_params: Callable[..., PyTree],
    loss_fn: Callable[..., tuple[jax.Array, dict[str, Any]]],
    tx: optax.GradientTransformation,
    sample: Callable[..., dict[str, jax.Array]] | None = None,
    evaluate: Callable[..., dict[str, tuple[jax.Array, jax.Array]]] | None = None,
    *,
    draw: Callable[..., PyTree] | None = None,
    accumulate: int = 1,
    weight_fn: Callable[..., jax.Array] | None = None,
    reads: tuple[str, ...] = ("image",),
    rules: tuple[Rule, ...] = (),
    factored: str | None = None,
) -> Method:
    """A `Method` from one loss; its state is `{"params", "opt_state"}`.

    Args:
      init_params: `(key, batch, warm=None) -> params`.
      loss_fn: `(params, batch, noise) -> (loss, metrics)`, the mean loss over the batch.
      tx: the optimizer.
      sample: see `Method`; reads `state["params"]`.
      evaluate: see `Method`; reads `state["params"]`.
      draw: `(key, batch) -> noise`, all that is random in the loss, as a pytree of [B, ...] arrays drawn for the whole
        batch, so that accumulation is exact. None hands the loss one key an example, [B].
      accumulate: parts that a batch is cut into, see `descend`.
      weight_fn: `(batch, noise) -> scalar`, see `descend`.
      reads: see `Method`.
      rules: see `Method`.
      factored: a regex on the paths of kernels whose layers are `nets.dense.Dense`, which takes low-rank factors.
    """

    def keys(key, batch):
        return jax.random.split(key, jax.tree.leaves(batch)[0].shape[0])

    objective = Objective(init_params, loss_fn, draw or keys, accumulate, weight_fn, factored)

    def init(key, batch, warm=None):
        params = init_params(key, batch, warm)
        return {"params": params, "opt_state": tx.init(params)}

    def step(state, batch, key):
        params, opt_state, metrics = objective.descend(tx, state["params"], state["opt_state"], batch, key, rules)
        return {"params": params, "opt_state": opt_state}, metrics

    return Method(init, step, sample, evaluate, reads, rules, objective=objective)


def with_ema(method: Method, subtree: str = "params", decay: float = 0.999) -> Method:
    """Keeps an exponential moving average of `state[subtree]` in `state["ema"]`; samples and evaluates with it.

    After the n-th step the weight of the past is min(decay, n / (n + 9)), so that the average forgets the
    initialisation soon (the warm-up of TensorFlow's ExponentialMovingAverage).

    Raises:
      ValueError: `decay` outside [0, 1).
    """
    if not 0 <= decay < 1 or math.isnan(decay):
        raise ValueError(f"an EMA's decay lies in [0, 1), not {decay}")

    def init(key, batch, warm=None):
        state = method.init(key, batch, warm)
        # A copy: the state is donated, and one buffer cannot be given twice.
        ema = jax.tree.map(jnp.copy, state[subtree])
        return {**state, "ema": ema, "ema_count": jnp.zeros((), jnp.int32)}

    def inner(state):
        return {name: value for name, value in state.items() if name not in ("ema", "ema_count")}

    def step(state, batch, key):
        new, metrics = method.step(inner(state), batch, key)
        count = state["ema_count"] + 1
        keep = jnp.minimum(decay, count / (count + 9.0))
        ema = jax.tree.map(lambda e, p: (keep * e + (1 - keep) * p).astype(e.dtype), state["ema"], new[subtree])
        return {**new, "ema": ema, "ema_count": count}, metrics

    def averaged(function):
        if function is None:
            return None
        return lambda state, *args, **kwargs: function({**inner(state), subtree: state["ema"]}, *args, **kwargs)

    return method._replace(init=init, step=step, sample=averaged(method.sample), evaluate=averaged(method.evaluate))
