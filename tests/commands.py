"""Real runs in processes of their own: `python train.py` on a toy, started as cheaply as it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Most of the tests' time goes into compiling small programs that run a few times: without optimisation, and with XLA's
# older emitter of machine code, that takes a third of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

CONFIG = """
from jaxgen.classical import kmeans
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Toy

config = Experiment(
    kmeans.Config(num_clusters=4),
    Toy("ring", size={size}),
    TrainConfig(
        steps={steps},
        batch_size=16,
        log_every=1,
        save_every={save_every},
        eval_every={eval_every},
        sample_every=10,
        num_samples=8,
    ),
)
"""


def write_config(folder: Path, steps: int, size: int = 320, save_every: int = 2, eval_every: int = 10) -> Path:
    """A config file of k-means on the ring, which is evaluated over a tenth of `size` examples."""
    path = folder / "toy.py"
    path.write_text(CONFIG.format(steps=steps, size=size, save_every=save_every, eval_every=eval_every))
    return path


def start(
    *args: object, cache: Path, env: Mapping[str, str] | None = None, preexec_fn: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """Starts `python ARGS…` in the repository; what is compiled is found in `cache` from the second time on."""
    own = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK}",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env=os.environ | own | dict(env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=preexec_fn,
    )


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 300) -> str:
    """Waits for the end, which must be with this exit status, and returns what was printed."""
    try:
        text = process.communicate(timeout=timeout)[0]
    finally:
        process.kill()
    assert process.returncode == code, (process.returncode, text)
    return text
