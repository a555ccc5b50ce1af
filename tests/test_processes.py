"""Several real processes of one machine, which must do what one does: gloo between them, one device or two each.

Two groups of processes train side by side with one process on as many devices: two with two devices each, started as
Slurm starts them, and four with one, by options. Others are killed.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import harness
import toy_echo
from jaxgen import runs, trained
from jaxgen.config import MeshConfig, load_config
from jaxgen.data import batch_at
from jaxgen.metrics import evaluation, readers
from jaxgen.report.log import read_metrics
from jaxgen.sharding import make_mesh
from processes import Processes, explicit, slurm

pytestmark = pytest.mark.usefixtures("registered")
STATE = dict(rtol=2e-6, atol=2e-7)  # the gradients' sums have another order
SESSION = Path(__file__).with_name("process_session.py")

HEAD = """
import dataclasses, sys
sys.path.insert(0, {tests!r})
import harness, toy_echo
from jaxgen.config import Experiment, Rule, TrainConfig
from jaxgen.data import Images
from jaxgen.classical import kmeans
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig
"""
CONFIGS = {
    "echo": "config = toy_echo.EXPERIMENT",
    "torn": "config = dataclasses.replace(toy_echo.EXPERIMENT, data=toy_echo.Torn())",
    "rules": (
        "config = harness.with_train(toy_echo.EXPERIMENT, max_rollbacks=1, save_every=2,"
        " rules=(Rule('loss', above=0.0, patience=3, action='rollback'),))"
    ),
    "ddpm": (
        "config = Experiment(ddpm.Config(net=UNetConfig(width=8, multipliers=(1,), attention_resolutions=(),"
        " num_heads=2, num_groups=4), sample=SampleConfig(steps=2)), Images('digits', validation=16),"
        " TrainConfig(steps=2, batch_size=16, log_every=1, sample_every=0, eval_every=0, num_samples=4))"
    ),
    "kmeans": (
        "config = Experiment(kmeans.Config(num_clusters=4), Images('digits'), TrainConfig(steps=40, batch_size=16,"
        " log_every=1, sample_every=0, save_every=50, eval_every=0))"
    ),
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    toy_echo.register()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the configs, as users write them."""
    folder = tmp_path_factory.mktemp("processes")
    for name, text in CONFIGS.items():
        (folder / f"{name}.py").write_text(HEAD.format(tests=str(Path(__file__).parent)) + text + "\n")
    return folder


def session(place, name, commands, each, devices) -> list[str]:
    """What each process wrote, all of which have run the same commands."""
    path = place / f"{name}.json"
    path.write_text(json.dumps([[str(arg) for arg in command] for command in commands]))
    with Processes([SESSION, path], each, place, devices) as group:
        return group.finish()


def losses(run, name="loss"):
    return [row[name] for row in read_metrics(run / "metrics.jsonl") if name in row]


@pytest.fixture(scope="module")
def one(place):
    """The run of one process on four devices."""
    harness.train(toy_echo.EXPERIMENT, place / "one", devices=4)
    return place / "one"


@pytest.fixture(scope="module")
def two(place):
    """What two processes have done, and what they wrote."""
    config = lambda name: place / f"{name}.py"
    (place / "locked").mkdir()
    (place / "read").mkdir()
    commands = [
        ("train", config("echo"), "--workdir", place / "two"),
        ("train", config("rules"), "--workdir", place / "rules2"),
        ("sample", place / "two", "--num", 8, "--out", place / "two.npz", "--mesh.data", 4),
        ("train", config("kmeans"), "--workdir", place / "kmeans2", "--train.steps", 3),
        ("evaluate", place / "kmeans2", "--num", 8, "--split", "validation"),
        ("read", readers.FEATURES["fashion"], place / "read" / "{id}.npz"),
        ("train", config("echo"), "--workdir", place / "seeds", "--train.seed", "{id}"),
        ("train", config("echo"), "--workdir", place / "locked"),
    ]
    with (place / "locked" / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return session(place, "two", commands, slurm(2), devices=2)


@pytest.fixture(scope="module")
def four(place, two):
    """What four processes have done: the same run, and copies of that of two, one of them damaged."""
    config = lambda name: place / f"{name}.py"
    for name in ("on", "damaged"):
        shutil.copytree(place / "two", place / name)
    # What the second process has written: rows of the batch, and parts of the parameters.
    for path in (place / "damaged" / "checkpoints" / "8" / "state" / "ocdbt.process_1" / "d").iterdir():
        path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    commands = [
        ("train", config("echo"), "--workdir", place / "four"),
        ("train", config("echo"), "--workdir", place / "on", "--train.steps", 12, "--mesh.data", 4, "--mesh.fsdp", 1),
        ("train", config("echo"), "--workdir", place / "damaged", "--mesh.fsdp", 1),
    ]
    return session(place, "four", commands, explicit(4), devices=1)


def test_batches_are_those_of_one_process_row_for_row(place, one, two, four):
    """By a checksum of every batch, which any row at another place changes, and by the rows of the last one."""
    data = toy_echo.EXPERIMENT.data.load()
    batches = [batch_at(data, seed=0, step=i, batch_size=16, keys=("x",))["x"] for i in range(8)]
    expected = [float(toy_echo.checksum(x)) for x in batches]
    assert len(set(expected)) == 8
    for name in ("one", "two", "four"):
        assert losses(place / name, "rows") == expected, name
        state = harness.saved_state(toy_echo.EXPERIMENT, place / name, devices=2, step=8)
        np.testing.assert_array_equal(np.asarray(state["batch"])[:, 0], batches[-1], err_msg=name)


def test_losses_and_the_final_state_are_those_of_one_process(place, one, two, four):
    state = harness.leaves(harness.saved_state(toy_echo.EXPERIMENT, one, devices=2, step=8))
    for name in ("two", "four"):
        np.testing.assert_allclose(losses(place / name), losses(one), **STATE, err_msg=name)
        np.testing.assert_allclose(losses(place / name, "eval/loss"), losses(one, "eval/loss"), **STATE, err_msg=name)
        for path, value in harness.leaves(harness.saved_state(toy_echo.EXPERIMENT, place / name, 2, 8)).items():
            np.testing.assert_allclose(value, state[path], **STATE, err_msg=f"{name}: {path}")


def test_a_run_has_the_same_files_however_many_processes_wrote_it(place, one, two, four):
    def files(run):
        paths = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
        return sorted(
            p.name.split(".")[0] if "tfevents" in p.name else str(p) for p in paths if p.parts[0] != runs.CHECKPOINTS
        )

    for name in ("two", "four"):
        assert files(place / name) == files(one)
        assert (place / name / runs.CONFIG).read_bytes() == (one / runs.CONFIG).read_bytes()
        assert [row["step"] for row in read_metrics(place / name / runs.METRICS)] == [
            row["step"] for row in read_metrics(one / runs.METRICS)
        ]


def test_only_the_first_process_writes_what_is_no_checkpoint(place, two, four):
    for texts in (two, four):
        for i, text in enumerate(texts):
            # One line: behind it readers of the damaged checkpoint may complain when they are cleared away.
            opened = json.loads(text.rpartition("opened:")[2].partition("\n")[0])
            inside = [Path(p).relative_to(place).parts for p in opened if Path(p).is_relative_to(place)]
            own = [parts for parts in inside if not {"cache", "read", runs.CHECKPOINTS} & set(parts)]
            assert bool(own) == (i == 0), (i, own)


def test_a_checkpoint_of_two_processes_comes_back_in_one_and_in_four_on_other_meshes(place, two, four):
    whole = harness.saved_state(toy_echo.EXPERIMENT, place / "two", devices=2, step=8)
    lone = harness.saved_state(harness.on_mesh(toy_echo.EXPERIMENT, 1, 1), place / "two", devices=1, step=8)
    harness.assert_bitwise(whole, lone)
    # Four processes have compared the checksums of all arrays, and gone on; so does one.
    shutil.copytree(place / "two", place / "alone")
    harness.train(harness.on_mesh(toy_echo.EXPERIMENT, 1, 1), place / "alone", devices=1, steps=12)
    assert len(losses(place / "on")) == 12
    np.testing.assert_allclose(losses(place / "on"), losses(place / "alone"), **STATE)


def test_damage_that_one_process_meets_sends_all_back_to_the_same_checkpoint(place, one, two, four):
    assert all("checkpoints/8 is damaged: ValueError: process 2: " in text for text in four[:2])
    assert all("checkpoints/8 is damaged: Exception: Encountered error while reading" in text for text in four[2:])
    assert (place / "damaged" / "set_aside" / "8").is_dir()
    np.testing.assert_allclose(losses(place / "damaged"), losses(one), **STATE)


def test_rules_and_rollbacks_are_the_same_in_every_process(place, two):
    outcome = harness.train(load_config(place / "rules.py"), place / "rules1", devices=4)
    assert "1 rollbacks did not help" in outcome.reason and f"saved at step {outcome.step}" in two[0]
    rows = [read_metrics(place / name / runs.METRICS) for name in ("rules1", "rules2")]
    assert [(row["step"], row.get("attempt", 0)) for row in rows[0]] == [
        (row["step"], row.get("attempt", 0)) for row in rows[1]
    ]


def drawn(workdir, name):
    """Eight samples of a run by one process on four devices."""
    run, mesh = trained.open_run(workdir), make_mesh(MeshConfig(), jax.devices()[:4])
    with jax.set_mesh(mesh):
        found = trained.restore(run, trained.layout(run, mesh), "last")
        return trained.draw_samples(run, mesh, found.state, 8)[name]


def test_two_processes_sample_as_one_does(place, two):
    with np.load(place / "two.npz") as arrays:
        np.testing.assert_allclose(arrays["x"], drawn(place / "two", "x"), **STATE)


@pytest.mark.slow
def test_two_processes_train_and_sample_a_diffusion_model_as_one_does(place):
    commands = [
        ("train", place / "ddpm.py", "--workdir", place / "ddpm2"),
        ("sample", place / "ddpm2", "--num", 8, "--out", place / "ddpm2.npz"),
    ]
    session(place, "ddpm", commands, explicit(2), devices=2)
    harness.train(load_config(place / "ddpm.py"), place / "ddpm1", devices=4)
    np.testing.assert_allclose(losses(place / "ddpm2"), losses(place / "ddpm1"), rtol=1e-5)
    image = drawn(place / "ddpm2", "image")
    with np.load(place / "ddpm2.npz") as arrays:  # rounded to the 17 levels of a pixel
        assert np.mean(arrays["image"] != image) < 0.01 and len(np.unique(image)) > 8


def test_two_processes_evaluate_as_one_does(place, two):
    """All that is measured but the time."""
    run = trained.open_run(place / "kmeans2")
    data, mesh = run.config.data.load(), make_mesh(MeshConfig(), jax.devices()[:4])
    with jax.set_mesh(mesh):
        found = trained.restore(run, trained.layout(run, mesh), "last")
        report = evaluation.evaluate(run, data, mesh, found, "validation", num=8)
    (path,) = (place / "kmeans2" / "evaluation").glob("*.json")
    written = json.loads(path.read_text())
    assert written.keys() == report.keys() - {"image", "nearest"}
    for part in ("samples", "floor", "gaussian"):
        assert written[part] == pytest.approx(report[part], rel=1e-4), part
    assert written["metrics"]["loss"]["value"] == pytest.approx(report["metrics"]["loss"]["value"], rel=1e-5)


def test_the_networks_that_read_samples_tell_every_process_all(place, two):
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8)
    features, labels = readers.load(readers.FEATURES["fashion"]).read(images)
    for i in range(2):
        with np.load(place / "read" / f"{i}.npz") as found:
            np.testing.assert_allclose(found["features"], features, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found["labels"], labels)


def test_an_error_of_one_process_is_one_of_all(two):
    assert all("refused: process 1 was started with another config or options" in text for text in two)
    assert "refused: another process is training in" in two[0]
    assert "refused: process 0: ValueError: another process is training in" in two[1]


def test_killing_one_process_ends_the_others_and_a_restart_goes_on(place):
    """Killed, started again, asked to stop by a SIGTERM to one, and finished by one process: as if nothing had been."""
    heartbeat, run = 10, place / "killed"
    command = ["train.py", place / "kmeans.py", "--workdir", run, "--train.steps", 100_000]
    running = lambda group: any(line.startswith("step ") for line in group.texts()[0].splitlines())
    with Processes(command, explicit(2, heartbeat), place) as group:
        group.wait_for(lambda: (run / runs.CHECKPOINTS / "50").is_dir())
        group.popen[1].kill()
        began = time.monotonic()
        codes = group.wait(2 * heartbeat)
        # The coordinator looks once a second for processes that it has not heard of for so long; the rest is for the
        # end of a Python on a busy machine.
        assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None) and time.monotonic() - began < heartbeat + 6
    with Processes(command, explicit(2, heartbeat), place) as group:
        group.wait_for(lambda: running(group))
        group.popen[1].terminate()
        text = group.finish()[0]
        last = int(
            re.search(r"interrupted; saved at step (\d+); to go on, in each of 2 processes: python train.py", text)[1]
        )
    config = load_config(place / "kmeans.py")
    assert last > 50 and (run / runs.CHECKPOINTS / str(last)).is_dir()
    for workdir in (run, place / "straight"):
        harness.train(config, workdir, devices=2, steps=last + 5)
    assert len(losses(run)) == last + 5
    np.testing.assert_allclose(losses(run), losses(place / "straight"), rtol=1e-5)


def test_an_error_that_one_process_meets_alone_in_a_run_ends_all(place):
    (place / "torn.json").write_text(json.dumps([["train", str(place / "torn.py"), "--workdir", str(place / "torn")]]))
    with Processes([SESSION, place / "torn.json"], explicit(2, heartbeat=10), place) as group:
        codes = group.wait(60)
        assert codes[1] == 1 and codes[0] not in (0, None)
        assert "OSError: the disk of one machine is gone" in group.texts()[1]
