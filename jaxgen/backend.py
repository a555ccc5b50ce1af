"""What JAX is told before it starts its devices: where it keeps compiled programs, and whether GPUs repeat themselves.

Commands call it; a program that calls `jaxgen.trainer` does so itself, first of all.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax._src.xla_bridge import backends_are_initialized  # no public function tells

from jaxgen.config import TrainConfig

DETERMINISTIC = "--xla_gpu_deterministic_ops"


def prepare(config: TrainConfig) -> None:
    """Follows `compilation_cache` and `deterministic`.

    A cache that JAX has been told of already (by JAX_COMPILATION_CACHE_DIR, say) stays.

    Raises:
      ValueError: `deterministic` comes too late, or XLA_FLAGS say otherwise.
    """
    if config.deterministic:
        _make_deterministic()
    known = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if config.compilation_cache and not known:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))


def prepare_for(config: TrainConfig) -> None:
    """As `prepare`, for a run that may be anybody's: the cache is the user's own, since it holds programs."""
    prepare(TrainConfig(deterministic=config.deterministic))


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
