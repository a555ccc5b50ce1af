"""What accelerators can do: peak arithmetic and memory, from their makers' data sheets.

`flops` is the peak of one JAX device (a chip; a core of TPU v2 and v3) in products of bfloat16 matrices with float32
sums, float16 where a device has no bfloat16, without the doubling that sparse matrices bring. Utilisation is measured
against it whatever a program computes in.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxgen.config import closest
from jaxgen.flops import model_flops
from jaxgen.method import Method

GB, GIB = 10**9, 2**30


class Accelerator(NamedTuple):
    """One kind of device.

    Attributes:
      name: as `--device-kind` takes it.
      pattern: a regular expression on JAX's `device_kind`.
      flops: peak FLOP/s.
      memory: bytes.
    """

    name: str
    pattern: str
    flops: float
    memory: int


# The first pattern that is found wins.
ACCELERATORS = (
    Accelerator("v2", r"^TPU v2$", 22.5e12, 8 * GIB),
    Accelerator("v3", r"^TPU v3$", 61.5e12, 16 * GIB),
    Accelerator("v4", r"^TPU v4$", 275e12, 32 * GIB),
    Accelerator("v5e", r"^TPU v5( lite|e)$", 197e12, 16 * GIB),
    Accelerator("v5p", r"^TPU v5p?$", 459e12, 95 * GIB),
    Accelerator("v6e", r"^TPU v6( lite|e)$", 918e12, 32 * GIB),
    Accelerator("T4", r"\bT4\b", 65e12, 16 * GB),
    Accelerator("L4", r"\bL4\b", 121e12, 24 * GB),
    Accelerator("L40S", r"\bL40S\b", 362e12, 48 * GB),
    Accelerator("A100-40GB", r"\bA100\b.*40GB", 312e12, 40 * GB),
    Accelerator("A100-80GB", r"\bA100\b.*80GB", 312e12, 80 * GB),
    Accelerator("H100-PCIe", r"\bH100 PCIe\b", 756e12, 80 * GB),
    Accelerator("H100-NVL", r"\bH100 NVL\b", 835e12, 94 * GB),
    Accelerator("H100", r"\bH100\b", 989e12, 80 * GB),
    Accelerator("H200-NVL", r"\bH200 NVL\b", 835e12, 141 * GB),
    Accelerator("H200", r"\bH200\b", 989e12, 141 * GB),
    Accelerator("B200", r"\bB200\b", 2250e12, 180 * GB),
)
# Other names for --device-kind.
ALIASES = {"a100": "a100-80gb", "trillium": "v6e"}


def of_kind(kind: str) -> Accelerator | None:
    """The accelerator that JAX calls `kind`; None where it is not known, and for a part of one (MIG)."""
    if "MIG" in kind.split():
        return None
    return next((a for a in ACCELERATORS if re.search(a.pattern, kind)), None)


def named(name: str) -> Accelerator:
    """The accelerator that a user calls `name`: as in `ACCELERATORS`, in any case, or as JAX calls it.

    Raises:
      ValueError: no such kind; names the closest one.
    """
    names = {a.name.lower(): a for a in ACCELERATORS}
    key = name.lower().removeprefix("tpu").removeprefix("nvidia").strip(" -_")
    if found := names.get(ALIASES.get(key, key)) or of_kind(name):
        return found
    near = closest(key, names)
    hint = near if "did you mean" in near else f"; there are: {', '.join(a.name for a in ACCELERATORS)}"
    raise ValueError(f"unknown --device-kind {name!r}{hint}")


def peak_flops(device: jax.Device) -> float | None:
    """Peak FLOP/s of a device; None where it is not known, on CPUs for example."""
    found = of_kind(device.device_kind) if device.platform in ("tpu", "gpu", "cuda", "rocm") else None
    return found.flops if found else None


def usable_memory(accelerator: Accelerator) -> int:
    """Bytes that JAX takes of an accelerator: all of a TPU, three quarters of a GPU unless the environment says so."""
    if accelerator.pattern.startswith("^TPU"):
        return accelerator.memory
    variables = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    fraction = next((os.environ[name] for name in variables if os.environ.get(name)), 0.75)
    return int(accelerator.memory * float(fraction))


def memory_of(device: jax.Device) -> int | None:
    """Bytes that JAX may use of a device that is here; a CPU's are its share of the machine's, None where unknown."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return machine // len(jax.local_devices(backend="cpu"))


def least_step_time(method: Method, state: Any, batch: Any, mesh: Mesh) -> float | None:
    """Seconds that a step takes at the least, its model FLOPs at the peak of all devices; None where that is unknown.

    `state` and `batch` may be shapes. Traces the step, which the CPU's is spared.
    """
    peak = peak_flops(mesh.devices.flat[0])
    return model_flops(method, state, batch).model / (peak * mesh.size) if peak else None
