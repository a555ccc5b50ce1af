"""What is settled before JAX starts its devices.

Where it keeps compiled programs, whether GPUs repeat themselves, and that a CPU's memory stays from step to step.
Commands call it; a program that calls `jaxgen.trainer` does so itself, first of all.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import jax
from jax._src.xla_bridge import backends_are_initialized  # no public function tells

from jaxgen.config import TrainConfig

DETERMINISTIC = "--xla_gpu_deterministic_ops"
# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def prepare(config: TrainConfig) -> None:
    """Follows `compilation_cache` and `deterministic`, and keeps freed memory (see `_keep_memory`).

    A cache that JAX has been told of already (by JAX_COMPILATION_CACHE_DIR, say) stays.

    Raises:
      ValueError: `deterministic` comes too late, or XLA_FLAGS say otherwise.
    """
    _keep_memory()
    if config.deterministic:
        _make_deterministic()
    known = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if config.compilation_cache and not known:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))


def prepare_for(config: TrainConfig) -> None:
    """As `prepare`, for a run that may be anybody's: the cache is the user's own, since it holds programs."""
    prepare(TrainConfig(deterministic=config.deterministic))


def _keep_memory() -> None:
    """Has glibc keep what is freed for the next step.

    XLA's CPU devices ask for all the memory of a step when it starts, and free it at its end. glibc gives so large a
    block back to the system, which then has to clear it, page by page, for every step: a tenth to a quarter of a
    U-Net's time. One arena, since the others cannot hold blocks of that size. Does nothing where there is another C
    library, or the user has chosen otherwise (MALLOC_MMAP_MAX_ and the like, GLIBC_TUNABLES).
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if sys.platform != "linux" or chosen:
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            mallopt(option, value)


def _make_deterministic() -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    chosen = [flag for flag in flags.split() if flag.split("=")[0] == DETERMINISTIC]
    if chosen and chosen[-1].lower() not in (DETERMINISTIC, f"{DETERMINISTIC}=true", f"{DETERMINISTIC}=1"):
        raise ValueError(f"train.deterministic contradicts {chosen[-1]} in XLA_FLAGS; drop one of them")
    if chosen:
        return
    if backends_are_initialized():
        raise ValueError(
            f"train.deterministic comes too late: JAX has started its devices. Set XLA_FLAGS={DETERMINISTIC}=true "
            "before the program starts, or call jaxgen.backend.prepare before anything else of JAX"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}=true".strip()
