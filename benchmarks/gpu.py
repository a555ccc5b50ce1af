"""What the cases of a GPU (`DEVICE = "gpu"`) need beside those of a CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

# Programs share the GPU's memory, of which JAX would take three quarters at its start.
ENVIRONMENT = {
    "cpu": {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    "gpu": {"JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
FINDS = {
    "jaxgen": "import jax; jax.devices('gpu')",
    "peers": "import torch; torch.zeros(1, device='cuda')",
}


def missing(pythons: Mapping[str, Path]) -> str:
    """The first environment that finds no GPU, and what it says; empty where both find one."""
    for name, python in pythons.items():
        done = subprocess.run([python, "-c", FINDS[name]], capture_output=True, text=True)
        if done.returncode:
            return f"{name}: {''.join(done.stderr.strip().splitlines()[-1:])}"
    return ""


def describe() -> str:
    """Name, memory and driver of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def jax_facts() -> dict[str, float]:
    """Peak memory, and peak arithmetic where it is known; nothing on a CPU."""
    import jax

    from jaxgen.devices import peak_flops

    device = jax.devices()[0]
    if device.platform == "cpu":
        return {}
    peak = peak_flops(device)
    memory = {"peak GB": (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9}
    return memory | ({"peak TFLOP/s": peak / 1e12} if peak else {})


def torch_device():
    """The GPU where the case may use one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_memory() -> dict[str, float]:
    """As `jax_facts`, the memory alone."""
    import torch

    return {"peak GB": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {}
