"""The launch files: their syntax, and that the commands in them are ones that jaxgen understands."""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxgen import distributed
from jaxgen.config import load_config, override

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(p for p in (ROOT / "launch").iterdir() if p.suffix in (".sh", ".sbatch"))
TEXTS = [*SCRIPTS, ROOT / "docs" / "scale.md"]


def documents() -> list[dict]:
    return list(yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text()))


def commands(path: Path) -> list[list[str]]:
    """The arguments of each training that a file starts, numbers in place of its shell variables."""
    text = re.sub(r"\$\{#[^}]*\}", "2", path.read_text()).replace("\\\n", " ")
    found = re.findall(r"train\.py (configs/\w+\.py(?: +--[\w.-]+(?: +[^-\s\"'#][^\s\"']*)?)*)", text)
    return [shlex.split(re.sub(r"\$(\w+|\{[^}]*\}+)", "1", command)) for command in found]


def understood(args: list[str]) -> None:
    """Ends the program unless `train` knows every option."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--interrupted-status", type=int)
    distributed.add_options(parser)
    said, rest = parser.parse_known_args(args[1:])
    distributed.settings(distributed.asked(said), {"SLURM_STEP_NUM_TASKS": "2"})
    override(load_config(ROOT / args[0]), rest, "train")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_bash_and_stops_at_an_error(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert "set -euo pipefail" in path.read_text()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_training_commands_are_understood(path):
    found = commands(path)
    assert found
    for args in found:
        understood(args)


def test_the_kubernetes_job_starts_as_many_processes_as_it_has_pods_and_finds_the_first():
    service, job = documents()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = [arg.replace("$(JOB_COMPLETION_INDEX)", "3") for arg in container["args"]]
    understood(args[1:])
    options = dict(arg.split("=") for arg in args[2:])
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert int(options["--processes.num"]) == spec["completions"]
    host, port = options["--processes.coordinator"].split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert int(port) == service["spec"]["ports"][0]["port"]


def test_the_image_is_built_by_instructions_that_exist_and_leaves_out_what_git_ignores():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    instructions = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert instructions[0] == "FROM" and set(instructions) <= {"FROM", "WORKDIR", "COPY", "RUN", "ENTRYPOINT"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {*(ROOT / ".gitignore").read_text().splitlines(), ".git/"} <= set(ignored)


def test_an_option_that_does_not_exist_is_noticed(capsys):
    with pytest.raises(SystemExit):
        understood(["configs/ddpm_cifar10.py", "--mesh.fdsp", "8"])
    assert "fsdp" in capsys.readouterr().err


def test_every_launch_file_says_that_it_was_not_run():
    for path in (ROOT / "launch").iterdir():
        assert "Not run." in path.read_text(), path
