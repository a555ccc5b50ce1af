"""What a run will ask for, before a byte is trained: arithmetic, memory a device, examples, time at the least.

The step is the one that training compiles, lowered for a mesh of the same shape; the state exists as shapes alone, and
nothing is written. A mesh that is not here is simulated on CPU devices: the memory is then that of XLA's CPU compiler
for the program that accelerators are given, which is close to theirs but not the same (it computes bfloat16 in
float32, and fuses otherwise).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from jaxgen import catalog
from jaxgen.config import Experiment
from jaxgen.data import Images, Spec, Text
from jaxgen.devices import Accelerator, memory_of, named, peak_flops, usable_memory
from jaxgen.flops import Flops, model_flops
from jaxgen.kernels import plain
from jaxgen.method import Method
from jaxgen.program import abstract_state, compile_step, keys_of
from jaxgen.sharding import BATCH, check_batch, make_mesh, path_name

UNITS = {"E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
MARGIN = 0.9  # of the memory: the rest is for batches read ahead, evaluation, samples and gaps between arrays


class Size(NamedTuple):
    """How large a part of the state is: its numbers, their bytes in all, and the bytes that a device holds."""

    numbers: int
    bytes: int
    bytes_a_device: int


class Memory(NamedTuple):
    """Bytes a device of one compiled step, as XLA's `memory_analysis` has them."""

    arguments: int
    outputs: int
    aliased: int
    temporary: int

    @property
    def peak(self) -> int:
        """Arguments and temporaries, and what of the outputs takes no argument's place."""
        return self.arguments + self.temporary + self.outputs - self.aliased


class Plan(NamedTuple):
    """What a run will ask for.

    Attributes:
      mesh: the mesh's axes and their sizes.
      device: what the devices are, in words; None where nobody said.
      has: bytes that JAX may use of a device; None where unknown.
      peak_flops: FLOP/s of a device; None where unknown.
      state: the state's top-level parts.
      flops: of a step, over all devices.
      memory: of a call of `train.steps_per_call` steps, a device; None where it was not compiled.
      examples: a step's.
      tokens: in an example; 0 where the data are none.
      steps: of the run.
      train_examples: how many there are; None where the data are not here to be counted.
      advice: options that would save memory, where it does not fit.
      idle: parameters of a mixture's experts that a token does not meet.
    """

    mesh: Mapping[str, int]
    device: str | None
    has: int | None
    peak_flops: float | None
    state: Mapping[str, Size]
    flops: Flops
    memory: Memory | None
    examples: int
    tokens: int
    steps: int
    train_examples: int | None
    advice: tuple[str, ...]
    idle: int = 0

    @property
    def num_devices(self) -> int:
        """Devices of the mesh."""
        return math.prod(self.mesh.values())

    @property
    def parameters(self) -> int:
        """Numbers in `params`; where there is none, in all that is no optimizer's state, average or counter."""
        if "params" in self.state:
            return self.state["params"].numbers
        return sum(size.numbers for name, size in self.state.items() if not re.search(r"opt|ema|count", name))

    @property
    def active(self) -> int:
        """Parameters that a token meets: of a mixture's experts, as many as it is sent to."""
        return self.parameters - self.idle

    @property
    def state_a_device(self) -> int:
        """Bytes of the state that a device holds."""
        return sum(size.bytes_a_device for size in self.state.values())

    @property
    def fits(self) -> bool | None:
        """Whether a step takes at most nine tenths of a device's memory; None where one of them is unknown.

        Not compiled, a state that is too large for that does not fit; whether a smaller one does is unknown.
        """
        if self.has is None:
            return None
        if self.memory is None:
            return None if self.state_a_device <= MARGIN * self.has else False
        return self.memory.peak <= MARGIN * self.has

    def seconds(self, utilisation: float) -> float | None:
        """Seconds a step at this share of the devices' peak; None where that is unknown."""
        if self.peak_flops is None:
            return None
        return self.flops.model / (self.peak_flops * self.num_devices * utilisation)


def devices_for(num: int) -> list[jax.Device]:
    """So many devices: those that are here, or else simulated ones.

    Raises:
      ValueError: there are not so many; says how to simulate them.
    """
    if num < 1:
        raise ValueError(f"--devices is a number from 1 on, not {num}")
    for devices in (jax.devices(), jax.devices("cpu")):
        if len(devices) >= num:
            return devices[:num]
    raise ValueError(
        f"{num} devices are neither here nor simulated ({len(devices)} are): set the environment variable "
        f"XLA_FLAGS=--xla_force_host_platform_device_count={num} before the program starts"
    )


def plan(
    config: Experiment, num_devices: int | None = None, *, device_kind: str | None = None, compiled: bool = True
) -> Plan:
    """Plans the run that `config` describes.

    Args:
      config: the experiment; its data need not be here where their description does without them: images of TFDS, and
        text where the method's `num_tokens` says how many tokens there are.
      num_devices: devices of the mesh; None for all that are here. On a CPU they are stand-ins for accelerators.
      device_kind: what they are, see `jaxgen.devices.named`; None for what is here.
      compiled: whether the step is compiled, which takes most of the time; the peak of memory is unknown otherwise.

    Raises:
      ValueError: an unknown kind of device, a mesh or a batch that does not fit the devices, or what `make` refuses.
      FileNotFoundError: the data are not here, and their description needs them.
    """
    accelerator = named(device_kind) if device_kind else None
    devices = jax.devices() if num_devices is None else devices_for(num_devices)
    mesh = make_mesh(config.mesh, devices)
    batch_size = config.train.batch_size
    check_batch(batch_size, mesh)
    spec = _described(config)
    method = catalog.make(config.method, spec)
    stand_in = devices[0].platform == "cpu" and (num_devices is not None or accelerator is not None)
    with jax.set_mesh(mesh):
        state = abstract_state(method, spec, batch_size, mesh, config.mesh)
        sharding = NamedSharding(mesh, BATCH)
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            for name, x in spec.batch(batch_size, method.reads).items()
        }
        flops = model_flops(method, state, batch)
        memory = None
        if compiled:
            with plain() if stand_in else contextlib.nullcontext():
                key, num = keys_of(config.train.seed).step, config.train.steps_per_call
                step, _ = compile_step(method, state, batch, key, mesh, num)
            found = step.memory_analysis()
            memory = Memory(
                found.argument_size_in_bytes,
                found.output_size_in_bytes,
                found.alias_size_in_bytes,
                found.temp_size_in_bytes,
            )
    drawn = Plan(
        mesh=dict(mesh.shape),
        **_device(devices[0], accelerator, stand_in),
        state=sizes(state),
        flops=flops,
        memory=memory,
        examples=batch_size,
        tokens=math.prod(spec.shape("tokens")) if "tokens" in method.reads else 0,
        steps=config.train.steps,
        train_examples=spec.counts.get("train"),
        advice=(),
        idle=_idle(config, state),
    )
    return drawn._replace(advice=advice(config, drawn, method, spec, mesh)) if drawn.fits is False else drawn


def _described(config: Experiment) -> Spec:
    """The data's description, without reading them where that is possible."""
    if isinstance(config.data, Images):
        return config.data.spec()
    try:
        return config.data.load().spec
    except FileNotFoundError:
        if not (isinstance(config.data, Text) and getattr(config.method, "num_tokens", None)):
            raise
        return config.data.unread()


def _idle(config: Experiment, state: Any) -> int:
    moe = getattr(getattr(config.method, "net", None), "moe", None)
    if moe is None or moe.num_experts == 1 or "params" not in state:
        return 0
    leaves = jax.tree_util.tree_leaves_with_path(state["params"])
    experts = sum(x.size for path, x in leaves if re.search("moe/(up|gate|down)/", path_name(path)))
    return experts * (moe.num_experts - moe.top_k) // moe.num_experts


def _device(device: jax.Device, accelerator: Accelerator | None, stand_in: bool) -> dict[str, Any]:
    if accelerator is not None:
        return {"device": accelerator.name, "has": usable_memory(accelerator), "peak_flops": accelerator.flops}
    if stand_in:
        return {"device": None, "has": None, "peak_flops": None}
    return {"device": device.device_kind, "has": memory_of(device), "peak_flops": peak_flops(device)}


def sizes(state: Any) -> dict[str, Size]:
    """The sizes of the top-level parts of an abstract state with shardings."""
    parts = state if isinstance(state, Mapping) else {"state": state}
    found = {}
    for name, part in parts.items():
        leaves = jax.tree.leaves(part)
        shards = [math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves]
        widths = [leaf.dtype.itemsize for leaf in leaves]
        found[name] = Size(
            sum(leaf.size for leaf in leaves),
            sum(leaf.size * width for leaf, width in zip(leaves, widths, strict=True)),
            sum(shard * width for shard, width in zip(shards, widths, strict=True)),
        )
    return found


def advice(config: Experiment, drawn: Plan, method: Method, spec: Spec, mesh: Mesh) -> tuple[str, ...]:
    """Options that would save memory, the ones that leave the run what it is first."""
    found = []
    more = [n for n in range(mesh.shape["fsdp"] + 1, mesh.size + 1) if (mesh.size // mesh.shape["tensor"]) % n == 0]
    for fsdp in more[:1]:
        other = dataclasses.replace(config.mesh, data=-1, fsdp=fsdp, tensor=mesh.shape["tensor"])
        layout = make_mesh(other, list(mesh.devices.flat))
        split = sizes(abstract_state(method, spec, config.train.batch_size, layout, other))
        less = sum(size.bytes_a_device for size in split.values())
        if less < 0.9 * drawn.state_a_device:
            found.append(
                f"--mesh.fsdp {fsdp} (or more) splits the state: {readable(less)} a device, not "
                f"{readable(drawn.state_a_device)}"
            )
    for option, value in _options(config.method, "method"):
        name = option.rpartition(".")[2]
        if name == "remat" and not value:
            found.append(f"--{option.replace('_', '-')} computes activations again instead of keeping them")
        if name == "accumulate":
            found.append(f"--{option} {2 * value} takes a batch in parts, each with its own activations")
    if config.train.batch_size % (2 * mesh.shape["data"] * mesh.shape["fsdp"]) == 0:
        found.append(f"{2 * mesh.size} devices (--devices {2 * mesh.size}) halve a device's share of the batch")
    if config.train.batch_size > 1:
        found.append(f"--train.batch-size {config.train.batch_size // 2} halves the activations (it is another run)")
    return tuple(found)


def _options(config: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass and of those in it, by the names of their options."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from _options(getattr(config, field.name), f"{path}.{field.name}")
    else:
        yield path, config


def readable(num: float, unit: str = "B") -> str:
    """A number of bytes, or of another unit, to three digits: `1.3 GB`."""
    prefix, size = next(((prefix, size) for prefix, size in UNITS.items() if num >= size), ("", 1))
    return f"{num / size:.3g} {prefix}{unit}"
