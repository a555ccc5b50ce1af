"""Meshes, partition rules and batches: one program for a laptop's CPU, a GPU box and a TPU pod.

`jit` over a `Mesh` with the axes `data` (replicas), `fsdp` (replicas that also split the state) and `tensor` (split
layers).
A batch is split over `data` × `fsdp`; the state follows `(regex, PartitionSpec)` rules that stand beside the network
they describe. `pmap` is in maintenance mode since JAX 0.8 and adds nothing to this.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.config import MeshConfig

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))
# Programs that the host may start before it waits. Beyond 32 a device, XLA's threads on CPUs wait for a free slot while
# the collectives that would free one wait for a thread: on several simulated devices the process hangs, then aborts.
QUEUE = 8


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `config` over `devices` (default: all). An axis of -1 takes the devices that the others leave.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    asked = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"{asked}: sizes are positive, and one of them may be -1 (the devices that the others leave)")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise ValueError(f"{asked} does not fit {len(devices)} device(s): the sizes must multiply to that number")
    # make_mesh defaults to explicit axes, under which ordinary indexing fails.
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as `params/conv/kernel`; what the rules' regular expressions and checkpoint messages see."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


Rule = tuple[str, P] | tuple[str, P, int]
"""A regex on a leaf's path and its layout; and, where `tensor` splits something in equal units (heads, groups of a
normalisation), their number: no unit is cut."""

LAYERS = "layers"
"""The first axis of a rule whose leaf stacks the layers of a scan: it is not split, and `regathered` leaves the stack
to the loop, which gathers a layer at a time (`one_layer`)."""


def _ruled(name: str, shape: Sequence[int], mesh: Any, rules: Sequence[Rule]) -> P | None:
    """What the first rule that matches says of a leaf, without the axes that do not divide; None where none matches."""
    for pattern, rule, *units in rules:
        if re.search(pattern, name):
            axes = (None,) * (len(shape) - len(rule)) + tuple(rule)
            if len(axes) > len(shape):  # a scalar of the optimizer that shares the parameter's path
                return P()
            return _dividing(axes, shape, mesh, *units)
    return None


def state_shardings(state: Any, mesh: Mesh, rules: Sequence[Rule] = (), min_shard_size: int = 2**14) -> Any:
    """A `NamedSharding` for every leaf of the abstract `state`.

    The first rule whose regex is found in the leaf's path wins; a mesh axis that does not divide its dimension (for
    `tensor`, the rule's units as well) is dropped.
    A rule written for one layer also fits the stacked layers of a scan: a spec shorter than the leaf's rank is aligned
    to the right when the leaf has more dimensions than the spec names. Leaves without a rule are split over `fsdp` on
    their largest divisible axis when they have `min_shard_size` elements or more, and replicated otherwise.
    """

    def spec(path, leaf) -> P:
        if (ruled := _ruled(path_name(path), leaf.shape, mesh, rules)) is not None:
            return ruled
        size = mesh.shape["fsdp"]
        split = [n if n % size == 0 else 0 for n in leaf.shape]
        if size == 1 or math.prod(leaf.shape) < min_shard_size or not any(split):
            return P()
        return P(*(None,) * int(np.argmax(split)), "fsdp")

    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, spec(path, leaf)), state)


def regathered(function: Callable[..., Any], rules: Sequence[Rule] = ()) -> Callable[..., Any]:
    """`function(params, …)` that gathers each parameter over `fsdp` for the forward pass, and anew for the backward.

    Otherwise XLA keeps what it has gathered until the backward pass is through, and each device holds the whole
    network. With it, a schedule that gathers late holds no more than it uses at a time. What depends on one
    parameter alone (a cast, a slice) is computed anew as well. Does nothing where no mesh of ours with `fsdp` is set.

    Args:
      function: what is differentiated by its first argument.
      rules: how `tensor` splits the parameters, which it goes on to do, see `state_shardings`.
    """
    mesh = _current_mesh()
    if mesh is None or mesh.shape["fsdp"] == 1:
        return function

    def gather(path, leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        return leaf if _stacked(name, rules) else _gathered(leaf, _ruled(name, leaf.shape, mesh, rules))

    def gathering(params, *args):
        return function(jax.tree_util.tree_map_with_path(gather, params), *args)

    def recomputing(params, *args):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        shapes = {leaf.shape[1:] if _stacked(path_name(path), rules) else leaf.shape for path, leaf in leaves}

        def saved(primitive, *avals, **_) -> bool:
            return primitive.name != "sharding_constraint" and not (len(avals) == 1 and avals[0].shape in shapes)

        return jax.checkpoint(gathering, policy=saved)(params, *args)

    return recomputing


def one_layer(layer: Any, rules: Sequence[Rule], prefix: str) -> Any:
    """The parameters of one layer of a stack, gathered over `fsdp` in the body of the scan that uses them.

    Args:
      layer: the slice of the stack.
      rules: those of the stack, with `LAYERS` for its first axis.
      prefix: of the stack's path, which a rule's regex may begin with.
    """
    mesh = _current_mesh()
    if mesh is None or mesh.shape["fsdp"] == 1:
        return layer
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _gathered(leaf, _ruled(prefix + path_name(path), (1, *leaf.shape), mesh, rules), 1), layer
    )


def _stacked(name: str, rules: Sequence[Rule]) -> bool:
    """Whether the first rule that matches says that the leaf stacks layers."""
    return next((tuple(rule[1])[:1] == (LAYERS,) for rule in rules if re.search(rule[0], name)), False)


def _gathered(leaf: jax.Array, spec: P | None, skipped: int = 0) -> jax.Array:
    """A leaf as its `spec` has it but for `fsdp`; of the spec of a stack, the first axis is `skipped`."""
    names = lambda a: (a,) if isinstance(a, str) else a or ()
    return _laid_out(leaf, P(*("tensor" if "tensor" in names(a) else None for a in tuple(spec or P())[skipped:])))


def fenced(params: Any, turn: jax.Array) -> Any:
    """`params` in a loop that changes `turn`: what is gathered over `fsdp` is not gathered before the loop and kept."""
    mesh = _current_mesh()
    if mesh is None or mesh.shape["fsdp"] == 1:
        return params
    # Without a layout of their own, if an open one, they would take the gathered one of their first use.
    own = lambda x: jax.lax.with_sharding_constraint(x, P(*[P.UNCONSTRAINED] * x.ndim))
    return jax.tree.map(own, jax.lax.optimization_barrier((params, turn))[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _laid_out(x: jax.Array, spec: P) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, spec)


@_laid_out.defjvp
def _laid_out_jvp(spec, primals, tangents):
    free = P(*("tensor" if a == "tensor" else P.UNCONSTRAINED for a in spec))
    return jax.lax.with_sharding_constraint(primals[0], spec), jax.lax.with_sharding_constraint(tangents[0], free)


def _axis_size(mesh: Any, axes: str | tuple[str, ...]) -> int:
    return math.prod(mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises a ValueError when the batch does not divide over the mesh's `data` × `fsdp` devices."""
    ways = _axis_size(mesh, ("data", "fsdp"))
    if batch_size % ways:
        raise ValueError(
            f"train.batch_size={batch_size} does not divide over mesh.data × mesh.fsdp = {ways} devices; "
            f"take {math.ceil(batch_size / ways) * ways}, or a smaller mesh"
        )


def global_batch(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], batch_size: int, mesh: Mesh
) -> dict[str, jax.Array]:
    """Puts a global batch on the mesh; each process reads only the rows that its own devices address.

    Args:
      read: `(rows [n]) -> {key: [n, ...]}`, a pure function of the rows' numbers in 0 … batch_size - 1.
      batch_size: rows of the global batch.
      mesh: where it goes, split over `data` × `fsdp`.
    """
    sharding = NamedSharding(mesh, BATCH)
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    spans = {index[0].indices(batch_size)[:2] for index in indices if index}
    rows = np.unique(np.concatenate([np.arange(*span) for span in spans]))
    local = read(rows)

    def place(x: np.ndarray) -> jax.Array:
        def shard(index):
            start, stop, _ = index[0].indices(batch_size)
            first = np.searchsorted(rows, start)
            return x[first : first + stop - start]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, shard)

    return {key: place(x) for key, x in local.items()}


def constrain(x: jax.Array, spec: P = BATCH, units: int = 0) -> jax.Array:
    """Pins an activation [B, ...] to `spec` (default: batch over `data` × `fsdp`); does nothing where no mesh is set.

    Called at block boundaries: without it XLA may move sharded weights' layouts into the activations and recompute
    whole blocks ("involuntary full rematerialization"). `units` as in `Rule`.
    """
    mesh = _current_mesh()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, _dividing(spec, x.shape, mesh, units))


def lay_out(x: jax.Array, spec: P) -> jax.Array:
    """A weight where it is used, laid out as `spec`; unlike `constrain`, it leaves its gradient free to lie otherwise.

    So the gradient of what was gathered is not gathered as well.
    """
    return x if (mesh := _current_mesh()) is None else _laid_out(x, _dividing(spec, x.shape, mesh))


def over_batch(function: Callable[..., tuple[Any, Any]], rows: Any, *shared: Any) -> tuple[Any, Any]:
    """`function(rows, *shared) -> (sums, outs)`, by each device on its own rows; the sums meet in one all-reduce.

    For functions that loop over the batch: of a loop over an axis that is split, XLA would gather the axis. Where no
    mesh of ours splits the batch, or it does not divide, the function is called as it is.

    Args:
      function: sums over its rows, and a pytree of [n, ...] arrays for the n rows that it is given.
      rows: a pytree of [N, ...] arrays.
      *shared: pytrees that every device sees whole.
    """
    mesh, axes = _current_mesh(), BATCH[0]
    size = 1 if mesh is None else _axis_size(mesh, axes)
    if size == 1 or jax.tree.leaves(rows)[0].shape[0] % size:
        return function(rows, *shared)

    def reduced(rows: Any, *shared: Any) -> tuple[Any, Any]:
        sums, outs = function(rows, *shared)
        return jax.lax.psum(sums, axes), outs

    specs = (BATCH, *(P() for _ in shared))
    split = jax.shard_map(reduced, in_specs=specs, out_specs=(P(), BATCH), axis_names=set(axes), check_vma=False)
    return split(rows, *shared)


def _current_mesh() -> Any:
    """The mesh that is set, where it is one of ours."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or not set(AXES) <= set(mesh.axis_names) else mesh


def _dividing(spec: Iterable[Any], shape: Sequence[int], mesh: Any, units: int = 0) -> P:
    """`spec` without the axes that do not divide their dimension; for `tensor`, the units in it."""

    def kept(axes: Any, size: int) -> Any:
        names: tuple[str, ...] = ()
        for name in (axes,) if isinstance(axes, str) else axes or ():
            if name == LAYERS:
                continue
            whole = math.gcd(size, units) if name == "tensor" else size
            if size % _axis_size(mesh, (*names, name)) == 0 == whole % mesh.shape[name]:
                names += (name,)
        return names if len(names) > 1 else names[0] if names else None

    return P(*(kept(axes, size) for axes, size in zip(spec, shape, strict=False)))


@functools.cache
def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())
