"""Real processes of one program on this machine: started together, waited for, never left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from commands import QUICK

ROOT = Path(__file__).parents[1]


def free_port(first: int = 0, last: int = 0) -> int:
    """A port that nobody listens on: any, or the first in `first`..`last`."""
    for port in range(first, last + 1):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return found.getsockname()[1]
    raise OSError("no port is free")


Own = tuple[list[str], dict[str, str]]  # the options and variables of one process


def explicit(num: int, heartbeat: int = 60) -> list[Own]:
    """`num` processes that are told by their options."""
    place = ["--processes.coordinator", f"127.0.0.1:{free_port()}", "--processes.num", str(num)]
    return [([*place, "--processes.id", str(i), "--processes.heartbeat", str(heartbeat)], {}) for i in range(num)]


def slurm(num: int) -> list[Own]:
    """`num` processes that are told by what Slurm's `srun` puts into the environment of tasks on one machine."""
    first = 65535 - 2**12 + 1  # JAX takes the coordinator's port from the job's number
    job = free_port(first + os.getpid() % 4000, 65535) - first
    shared = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(num)}
    shared |= {"SLURM_STEP_NUM_TASKS": str(num), "SLURM_STEP_NUM_NODES": "1"}
    return [([], shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}) for i in range(num)]


class Processes:
    """Processes that run `command` with `devices` CPU devices each; a context manager that ends those still there.

    Args:
      command: what all run, without the interpreter.
      each: the options and variables of each.
      folder: where what they write to the terminal goes, and the programs that they compile.
      devices: of each.
    """

    def __init__(self, command: Sequence[object], each: Sequence[Own], folder: Path, devices: int = 1):
        shared = {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONUNBUFFERED": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self._outputs = [folder / f"{time.monotonic_ns()}.{i}.txt" for i in range(len(each))]
        self.popen = []
        for (options, variables), output in zip(each, self._outputs, strict=True):
            args, env = [sys.executable, *map(str, command), *options], inherited | shared | variables
            with output.open("w") as file:
                self.popen.append(subprocess.Popen(args, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.popen:
            process.kill()
            process.wait()
        if error[0] is not None:
            print("\n".join(f"--- process {i}:\n{text}" for i, text in enumerate(self.texts())))

    def texts(self) -> list[str]:
        """What each has written so far."""
        return [path.read_text() for path in self._outputs]

    def wait(self, timeout: float) -> list[int]:
        """The exit codes; a TimeoutError where not all have ended in time."""
        self.wait_for(lambda: all(process.poll() is not None for process in self.popen), timeout)
        return [process.returncode for process in self.popen]

    def wait_for(self, what: Callable[[], bool], timeout: float = 200) -> None:
        """Waits until `what()` is true; a TimeoutError after so many seconds."""
        deadline = time.monotonic() + timeout
        while not what():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {timeout} s; exit codes: {[p.poll() for p in self.popen]}")
            time.sleep(0.02)

    def finish(self, timeout: float = 400) -> list[str]:
        """Waits until all have ended well; what each wrote."""
        codes = self.wait(timeout)
        assert codes == [0] * len(codes)
        return self.texts()
