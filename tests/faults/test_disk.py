"""A full disk, and a place that may not be written, end a run with a clear error and no damage."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import re
import resource
import shutil
import subprocess

import jax
import pytest

import commands
import harness
import toy_methods
from jaxgen import cli, trainer
from jaxgen.method import Method
from jaxgen.report.log import read_metrics

toy_methods.register()
# What could not be written stays in buffers, which complain once more when they are cleared away.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
OFTEN = {"save_every": 2, "eval_every": 4, "sample_every": 4, "log_every": 1}
KMEANS = harness.with_train(toy_methods.EXPERIMENTS["toy_kmeans"], **OFTEN)


@pytest.fixture(autouse=True)
def clear_away():
    yield
    gc.collect()


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


@contextlib.contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond so many bytes: a write that would fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def heavy() -> Method:
    """A method whose state, a megabyte of noise that is drawn anew at each step, is far larger than its logs."""
    init = lambda key, batch, warm=None: {"noise": jax.random.normal(key, (512, 512))}
    step = lambda state, batch, key: ({"noise": jax.random.normal(key, (512, 512))}, {"loss": state["noise"][0, 0]})
    return Method(init, step, reads=("x",))


def train_heavy(workdir, steps):
    experiment = harness.with_train(KMEANS, steps=steps, sample_every=0, eval_every=0)
    data = experiment.data.load()
    return trainer.train(experiment, heavy(), data, workdir, harness.document(experiment), jax.devices()[:1])


def test_a_checkpoint_that_does_not_fit_on_the_disk_harms_none_before(tmp_path):
    run, straight = tmp_path / "run", tmp_path / "straight"
    train_heavy(run, steps=4)
    before = contents(run / "checkpoints")
    with largest_file(200_000), pytest.raises(OSError) as error:
        train_heavy(run, steps=12)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(run / "checkpoints")
    assert before.items() <= contents(run / "checkpoints").items()
    for directory in (run, straight):  # the run goes on when there is room
        assert train_heavy(directory, steps=12) == (12, "done")
    lines, expected = (read_metrics(directory / "metrics.jsonl") for directory in (run, straight))
    assert lines == expected and len(lines) == 12
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["10", "12"]


@pytest.fixture
def disk(tmp_path):
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    gc.collect()
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_however_little_room_is_left_the_run_ends_clearly_and_goes_on(disk, tmp_path):
    """One file after another is the one that no longer fits: config.json, a checkpoint, events, samples."""
    straight, run, filler = tmp_path / "straight", disk / "run", disk / "filler"
    harness.train(KMEANS, straight, steps=10)
    harness.train(KMEANS, run, steps=10)
    shutil.copytree(run, tmp_path / "half")
    harness.train(KMEANS, straight, steps=20)
    failed = set()
    for kilobytes in (0, 8, 20, 44, 80):
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "half", run)
        free = os.statvfs(disk)
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 1024 * kilobytes)))
        with pytest.raises(OSError) as error:
            harness.train(KMEANS, run, steps=20)
        assert error.value.errno == errno.ENOSPC and error.value.filename.startswith(str(run))
        failed.add(re.sub(r"\d+", "N", os.path.relpath(error.value.filename, run)))
        saved = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
        assert saved >= 10
        harness.assert_bitwise(harness.saved_state(KMEANS, run), harness.saved_state(KMEANS, run, step=saved))
        filler.unlink()
        assert harness.train(KMEANS, run, steps=20) == (20, "done")
        assert read_metrics(run / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")
        harness.assert_bitwise(harness.saved_state(KMEANS, run), harness.saved_state(KMEANS, straight))
        assert not list(run.rglob("*tmp*"))
    assert len(failed) >= 3, failed


def test_the_command_says_which_file_and_what_to_do(tmp_path, capsys):
    config, run = commands.write_config(tmp_path, steps=30), tmp_path / "run"
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
    process = commands.start("train.py", config, "--workdir", run, cache=tmp_path / "cache", preexec_fn=small)
    text = commands.finish(process, code=2)
    assert re.search(rf"error: {run}/\S+: File too large; make room there: nothing that was saved is harmed", text), (
        text
    )
    assert "Traceback" not in text
    assert cli.run_command(cli.train, [str(config), "--workdir", str(run)]) == 0
    assert "done, 30 steps" in capsys.readouterr().out
    steps = [line["step"] for line in read_metrics(run / "metrics.jsonl") if "eval/loss" not in line]
    assert steps == list(range(1, 31))


def obey_modes() -> None:
    """Takes from root the right to write where the mode of a file forbids it (CAP_DAC_OVERRIDE)."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


TRAIN_IN_EACH = """
import sys
from jaxgen import cli
print("exit codes", [cli.run_command(cli.train, [sys.argv[1], "--workdir", place]) for place in sys.argv[2:]])
"""


def test_a_read_only_place_is_refused_before_anything_is_done(tmp_path):
    config, place = commands.write_config(tmp_path, steps=4), tmp_path / "place"
    assert cli.run_command(cli.train, [str(config), "--workdir", str(place / "old")]) == 0
    before = contents(place)
    paths = [place, *place.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        args = "-c", TRAIN_IN_EACH, config, place / "new", place / "old"
        text = commands.finish(commands.start(*args, cache=tmp_path / "cache", preexec_fn=obey_modes))
        for named in ("new", "old/.lock"):
            assert f"error: {place / named}: Permission denied; choose a place that this user may" in text, text
        assert "exit codes [2, 2]" in text and "compiling" not in text and "Traceback" not in text
    finally:
        for path in paths:
            path.chmod(0o755)
    assert contents(place) == before and not (place / "new").exists()


@pytest.mark.parametrize("name", ["checkpoints", "samples", "metrics.jsonl"])
def test_a_file_in_the_way_is_named(tmp_path, name, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(harness.document(KMEANS)))
    (run / name).mkdir() if name == "metrics.jsonl" else (run / name).write_text("")
    assert cli.run_command(lambda args: harness.train(KMEANS, run, steps=8), []) == 2
    assert re.search(
        rf"error: {run}\S*: (Not a directory|File exists|Is a directory); another file is in the way",
        capsys.readouterr().err,
    )
