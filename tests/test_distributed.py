"""Who says that there are several processes, and how; what they then do is in test_processes.py."""

import os

import pytest

from jaxgen import distributed, trained
from jaxgen.config import MeshConfig
from jaxgen.distributed import Processes, settings

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
VARIABLES = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


def explicit(address, num, index):
    found = {"coordinator_address": address, "num_processes": num, "process_id": index}
    return found | {"cluster_detection_method": "deactivate"}


@pytest.mark.parametrize(
    ("said", "env", "found"),
    [
        (Processes(), {}, None),
        (Processes("a:1", 2, 0), {}, explicit("a:1", 2, 0)),
        (Processes(), VARIABLES, explicit("a:1", 4, 3)),
        (Processes("b:2", id=0), VARIABLES, explicit("b:2", 4, 0)),  # options come first
        (Processes("a:1", 1, 0), {}, None),
    ],
)
def test_options_come_before_variables(said, env, found):
    assert settings(said, env) == found


@pytest.mark.parametrize(
    ("env", "several"),
    [
        (SLURM | {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}, True),
        (SLURM | {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1"}, False),  # an interactive shell within a job
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # the script of a job, outside of srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # any program in a cluster sees it: needs --processes.auto
    ],
)
def test_the_cluster_is_asked_where_it_says_that_there_are_several(env, several):
    """JAX then finds out the address, the number and the id, as far as nobody has said them."""
    nothing = {"coordinator_address": None, "num_processes": None, "process_id": None}
    assert settings(Processes(), env) == (nothing if several else None)
    assert settings(Processes(auto=True), env) == nothing
    if several:
        assert settings(Processes("a:1"), env) == nothing | {"coordinator_address": "a:1"}


@pytest.mark.parametrize(
    ("said", "env", "message"),
    [
        (Processes("a:1", 2), {}, "--processes.id not given: each of several processes needs"),
        (Processes(num=2), {}, "--processes.coordinator and --processes.id not given"),
        (Processes("a:1", 2, 2), {}, "--processes.num 2 --processes.id 2: the ids of n processes are 0 … n - 1"),
        (Processes("a:1", 0, 0), {}, "--processes.num 0"),
        (Processes("a", 2, 0), {}, "takes HOST:PORT, such as 10.0.0.1:1234, not 'a'"),
        (Processes("a:1", 2, 0, heartbeat=0), {}, "--processes.heartbeat is a number of seconds from 1 on, not 0"),
        (Processes(), VARIABLES | {"JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID='x' is no whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(said, env, message):
    with pytest.raises(ValueError, match=message):
        settings(said, env)


@pytest.mark.parametrize(
    ("num", "batch_size", "mesh", "count"),
    [
        (2, 64, MeshConfig(data=4, fsdp=2), 4),  # the mesh spans all processes
        (4, 64, MeshConfig(data=4), 1),
        (2, 64, MeshConfig(), 4),
        (2, 32, MeshConfig(), 2),  # 8 examples a device
        (3, 64, MeshConfig(fsdp=2), 2),  # six devices are a multiple of both
        (4, 64, MeshConfig(fsdp=2), 2),
        (2, 64, MeshConfig(data=1), 1),  # refused by make_mesh, not here
    ],
)
def test_each_process_makes_its_share_of_the_devices(monkeypatch, num, batch_size, mesh, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4))
    monkeypatch.setattr(distributed, "num_processes", lambda: num)
    monkeypatch.setenv("XLA_FLAGS", "")
    trained.use_cores(batch_size, mesh)
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count={count}"


def test_one_process_agrees_with_itself():
    assert distributed.exchange("a") == ["a"] and distributed.first({"a": 1}) == {"a": 1}
    assert distributed.together(lambda: 3) == 3 and distributed.is_first()
    distributed.check_same({"a": 1})
    with distributed.ending_together(), pytest.raises(KeyError):
        distributed.together(lambda: {}["a"])
