"""Several processes that train, sample or evaluate as one: how they start, agree, and end together.

Every process runs the same command; they find each other at the coordinator (process 0), and `jax.devices()` is then
the devices of all of them. Where the command line or the cluster's environment says nothing, there is one process and
nothing in here costs anything.

The agreements go through the coordinator's key-value store, not through the devices: they need no compiled program, and
wait for no step that is under way.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src.distributed import global_state  # the key-value store has no public name (Orbax takes it from here too)
from jax.experimental import multihost_utils

T = TypeVar("T")

HEARTBEAT = 100  # seconds, JAX's default
FOREVER = 2**31 - 1  # ms: a process that is lost ends the others' waiting by its heartbeat
MEETING = 2_000  # ms that a process which ends with an error gives the others to end with theirs
KEPT = 1000  # words of process 0 that stay to be read: no process is so many log lines behind

_exchanges, _firsts = itertools.count(), itertools.count()  # all processes agree on the same things in the same order


class FailedElsewhere(ValueError):
    """The disk, memory or device of another process has failed."""


class Processes(NamedTuple):
    """What was said about the processes; None where nothing was."""

    coordinator: str | None = None
    num: int | None = None
    id: int | None = None
    heartbeat: int = HEARTBEAT
    auto: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--processes.num` and its like, for the commands that run on several processes."""
    group = parser.add_argument_group("several processes", "all run the same command; Slurm's srun needs no option")

    def add(name: str, help: str, **kwargs: Any) -> None:
        group.add_argument(f"--processes.{name}", dest=f"processes_{name}", help=help, **kwargs)

    add("coordinator", "process 0's address (or JAX_COORDINATOR_ADDRESS)", metavar="HOST:PORT")
    add("num", "how many processes there are (or JAX_NUM_PROCESSES)", metavar="N", type=int)
    add("id", "which one this is, from 0 (or JAX_PROCESS_ID)", metavar="N", type=int)
    lost = f"seconds without a sign of life after which a process is lost and all end (default: {HEARTBEAT})"
    add("heartbeat", lost, metavar="SECONDS", type=int, default=HEARTBEAT)
    add("auto", "ask the cluster, as JAX does on Cloud TPU pods and in Kubernetes jobs", action="store_true")


def asked(known: argparse.Namespace) -> Processes:
    """The options of `add_options` as they were given."""
    return Processes(*(getattr(known, f"processes_{name}") for name in Processes._fields))


def settings(said: Processes, env: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize`; None where there is one process.

    Options come before the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; what neither says,
    a cluster does: Slurm (a step of several tasks), Open MPI, a TPU pod in Kubernetes, or, with `auto`, any that JAX
    knows.

    Raises:
      ValueError: one of address, number and id lacks where no cluster knows it, or they make no sense.
    """

    def number(name: str, value: int | None, variable: str) -> int | None:
        text = env.get(variable)
        if value is not None or text is None:
            return value
        if not text.isdigit():
            raise ValueError(f"{variable}={text!r} is no whole number ({name})")
        return int(text)

    address = said.coordinator or env.get("JAX_COORDINATOR_ADDRESS")
    num = number("the number of processes", said.num, "JAX_NUM_PROCESSES")
    index = number("this process's id", said.id, "JAX_PROCESS_ID")
    hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES") or ""
    # An interactive Slurm shell has a job's variables too, but is a step of one task.
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
    cluster = said.auto or "," in hosts or any(int(env.get(name) or 1) > 1 for name in counts)
    if said.heartbeat < 1:
        raise ValueError(f"--processes.heartbeat is a number of seconds from 1 on, not {said.heartbeat}")
    lacking = [name for name, value in (("coordinator", address), ("num", num), ("id", index)) if value is None]
    if len(lacking) == 3 and not cluster:
        return None
    if lacking and not cluster:
        raise ValueError(
            f"--processes.{' and --processes.'.join(lacking)} not given: each of several processes needs the "
            "coordinator's address, their number and its own id"
        )
    if num is not None and num < 1 or index is not None and not 0 <= index < (num or index + 1):
        raise ValueError(f"--processes.num {num} --processes.id {index}: the ids of n processes are 0 … n - 1")
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise ValueError(f"--processes.coordinator takes HOST:PORT, such as 10.0.0.1:1234, not {address!r}")
    if num == 1:
        return None
    arguments = {"coordinator_address": address, "num_processes": num, "process_id": index}
    return arguments if lacking else arguments | {"cluster_detection_method": "deactivate"}


def initialize(said: Processes, stoppable: bool = False) -> None:
    """Joins the other processes, if there are any; before JAX touches a device.

    Args:
      said: what the command line says.
      stoppable: whether a SIGTERM to one process is a wish of all to stop, see `Stop`; else it ends this process.

    Raises:
      ValueError: see `settings`.
    """
    arguments = settings(said, os.environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", stoppable)
    try:
        jax.distributed.initialize(
            **arguments, heartbeat_timeout_seconds=said.heartbeat, shutdown_timeout_seconds=max(said.heartbeat, 10)
        )
    except ValueError as error:  # JAX knows the cluster less well than it seemed
        raise ValueError(f"{error} Give --processes.coordinator, --processes.num and --processes.id") from None


def num_processes() -> int:
    """How many processes there are; `jax.process_count` would start the devices."""
    return global_state.num_processes


def is_first() -> bool:
    """Whether this is process 0, the one that writes."""
    return global_state.process_id == 0


def _store() -> Any:
    return global_state.client


def exchange(text: str) -> list[str]:
    """What each process says here, in the order of their ids; waits for all of them."""
    if num_processes() == 1:
        return [text]
    call, own = next(_exchanges), global_state.process_id
    _store().key_value_set(f"jaxgen/all/{call}/{own}", text)
    said = [
        text if i == own else _store().blocking_key_value_get(f"jaxgen/all/{call}/{i}", FOREVER)
        for i in range(num_processes())
    ]
    # All have said something here, so all have read what was said before.
    _store().key_value_delete(f"jaxgen/all/{call - 1}/{own}")
    return said


def first(value: Any) -> Any:
    """Process 0's value, which JSON can hold, in every process."""
    if num_processes() == 1:
        return value
    call = next(_firsts)
    if not is_first():
        return json.loads(_store().blocking_key_value_get(f"jaxgen/first/{call}", FOREVER))
    _store().key_value_set(f"jaxgen/first/{call}", json.dumps(value))
    _store().key_value_delete(f"jaxgen/first/{call - KEPT}")
    return value


def together(work: Callable[[], T]) -> T:
    """`work()`, unless it raises in any process: then every process raises, and none goes on alone.

    Args:
      work: nothing in it may wait for other processes.

    Raises:
      ValueError: it raised in other processes only; says in which, and what. A `FailedElsewhere` where it was the
        disk, memory or device.
    """
    if num_processes() == 1:
        return work()
    error: BaseException | None
    try:
        result, error = work(), None
    except (Exception, SystemExit) as raised:  # whatever it is, the others must know
        error = raised
    # Of a disk, memory or device that fails the others must think the same: it is no damage of what was read.
    failures = (OSError, MemoryError, jax.errors.JaxRuntimeError)
    failing = isinstance(error, failures) and not isinstance(error, FileNotFoundError)
    said = exchange("" if error is None else f"{'!' * failing}{type(error).__name__}: {error}"[:2000])
    if error is not None:
        raise error
    if failed := [f"process {i}: {text.removeprefix('!')}" for i, text in enumerate(said) if text]:
        kind = FailedElsewhere if any(text.startswith("!") for text in said) else ValueError
        raise kind("\n".join(failed[:3]))
    return result


def check_same(document: Any) -> None:
    """Raises a ValueError in every process unless all have the same `document`, which JSON can hold."""
    said = exchange(f"{zlib.crc32(json.dumps(document, sort_keys=True).encode()):08x}")
    if other := [str(i) for i, text in enumerate(said) if text != said[0]]:
        raise ValueError(
            f"process {', '.join(other)} was started with another config or options than process 0, or sees other "
            "data: give every process the same command and the same files"
        )


class Stop:
    """Whether all processes stop after this step, because one of them got a SIGTERM; to be asked after every step.

    JAX's preemption service notices the signal, and takes the first step that no process has passed: nobody waits for
    anybody until there was a signal. It counts steps as Orbax does when it saves.

    Args:
      step: where the run stands.
    """

    def __init__(self, step: int):
        # A service that had agreed before it knew of a step has taken step 1, which a run that goes on has passed.
        self._reached = multihost_utils.reached_preemption_sync_point(1)
        self._step = step - 1
        self(step)

    def __call__(self, step: int) -> bool:
        """Whether to stop after `step`; the run may have done several steps since it asked, or rolled back."""
        for number in range(min(self._step + 1, step), step + 1):
            self._reached |= multihost_utils.reached_preemption_sync_point(number)
        self._step = step
        return self._reached

    def ask(self) -> None:
        """Asks all processes to stop, as a SIGTERM would."""
        os.kill(os.getpid(), signal.SIGTERM)


def leave(code: int) -> None:
    """Ends this process with an error at once, if it is one of several: the others end when they miss it.

    A Python that ends in the usual way waits for the others first, who may be waiting for it. They get two seconds to
    end with the same error.
    """
    if num_processes() == 1:
        return
    with contextlib.suppress(Exception):
        _store().wait_at_barrier("jaxgen/leave", MEETING)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(0.2)  # the coordinator goes with this process, and takes those with it that are still there
    os._exit(code)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Leaving the block well waits for all processes; an error in it ends this one at once, see `leave`."""
    try:
        yield
        exchange("done")
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if num_processes() > 1 and code:
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            leave(code if isinstance(code, int) else 1)
        raise
