"""What JAX is told before its devices start: compiled programs that the next start finds, and repeatable GPUs."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxgen import backend
from jaxgen.config import TrainConfig

PROGRAM = """
import collections, json, os, sys
import jax
import toy_methods
from jaxgen import cli
toy_methods.register()
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
for name, *args in json.loads(sys.argv[1]):
    assert cli.run_command(getattr(cli, name), args) == 0
print("hits", events["cache_hits"], "misses", events["cache_misses"], "flags", os.environ["XLA_FLAGS"])
"""


def call(folder, *commands):
    """Commands in a process of their own: cache hits and misses, and its XLA_FLAGS."""
    tests = Path(__file__).parent
    without = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")}
    path = os.pathsep.join([str(tests.parent), str(tests)])
    own = {"PYTHONPATH": path, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "HOME": str(folder)}
    args = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(args, cwd=folder, env=without | own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    hits, misses, flags = re.search(r"hits (\d+) misses (\d+) flags (.*)", done.stdout).groups()
    return int(hits), int(misses), flags


def test_a_second_start_compiles_nothing_anew(tmp_path):
    """Training again, in another directory, and drawing samples again; by default under the home directory."""
    (tmp_path / "toy.py").write_text("import toy_methods\nconfig = toy_methods.EXPERIMENTS['toy_kmeans']\n")
    train = ["train", "toy.py", "--train.steps", "4", "--train.eval-every", "0", "--train.deterministic"]
    sample = ["sample", "a", "--num", "4", "--out", "x.npz"]
    _, misses, flags = call(tmp_path, [*train, "--workdir", "a"], sample)
    assert misses > 0 and flags.count(f"{backend.DETERMINISTIC}=true") == 1
    cache = tmp_path / ".cache" / "jaxgen" / "xla"
    before = set(cache.glob("*-cache"))
    hits, misses, _ = call(tmp_path, [*train, "--workdir", "b"], sample)
    assert hits > 0 and misses == 0 and set(cache.glob("*-cache")) == before


def test_a_cache_that_jax_knows_of_stays():
    """The environment's directory, which conftest.py names, comes first."""
    before = jax.config.jax_compilation_cache_dir
    assert before == os.environ["JAX_COMPILATION_CACHE_DIR"] and Path(before).name.startswith("jaxgen-tests-")
    for prepare in (backend.prepare, backend.prepare_for):
        prepare(TrainConfig())
        assert jax.config.jax_compilation_cache_dir == before


def test_deterministic_needs_its_flag_before_the_devices_start(monkeypatch):
    jax.devices()
    config = TrainConfig(deterministic=True)
    with pytest.raises(ValueError, match=r"comes too late.*Set XLA_FLAGS=--xla_gpu_deterministic_ops=true before"):
        backend.prepare(config)
    flags = os.environ["XLA_FLAGS"]
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_gpu_deterministic_ops=false")
    with pytest.raises(ValueError, match="train.deterministic contradicts --xla_gpu_deterministic_ops=false"):
        backend.prepare(config)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_gpu_deterministic_ops=true {flags}")
    backend.prepare(config)
    assert os.environ["XLA_FLAGS"] == f"--xla_gpu_deterministic_ops=true {flags}"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_memory_is_kept_from_one_step_to_the_next():
    """Filling a block that was freed before faults no page in; it does where the user has chosen glibc's own way."""
    program = """
import resource
from jaxgen import backend
from jaxgen.config import TrainConfig
backend.prepare(TrainConfig(compilation_cache=""))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    bytearray(b'x') * 2**26
    last = faults() - before
print(last * resource.getpagesize() / 2**26)
"""

    def share(**env):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | env
        return float(subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout)

    assert share() < 0.01
    assert share(MALLOC_TRIM_THRESHOLD_="131072") > 0.9
