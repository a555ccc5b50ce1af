"""`kill -9` at random moments: the run goes on, and ends as an undisturbed one does."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

import commands
import harness
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import load_config
from jaxgen.report.log import read_metrics

STEPS = 40


def train(config: Path, workdir: Path, cache: Path):
    return commands.start("train.py", config, "--workdir", workdir, cache=cache)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def names(workdir: Path) -> set[str]:
    """All files, but for the random names in checkpoints and the event files, one a start."""
    found = (path.relative_to(workdir).as_posix() for path in workdir.rglob("*"))
    return {re.sub("[0-9a-f]{32}", "*", name) for name in found if "tfevents" not in name}


def assert_same_run(workdir: Path, reference: Path, config: Path) -> None:
    """The same losses, config, samples and checkpoints, all whole, and no file more."""
    assert names(workdir) == names(reference)
    assert read_metrics(workdir / "metrics.jsonl") == read_metrics(reference / "metrics.jsonl")
    for name in ("config.json", *(f"samples/{path.name}" for path in (reference / "samples").iterdir())):
        assert (workdir / name).read_bytes() == (reference / name).read_bytes(), name
    experiment = load_config(config)
    checkpoints = Checkpoints(reference / "checkpoints")
    steps = checkpoints.steps()
    checkpoints.close()
    for step in steps:  # a warning of damage would be an error
        states = [harness.saved_state(experiment, directory, step=step) for directory in (workdir, reference)]
        harness.assert_bitwise(*states)


def survive(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kills runs so many times, at moments drawn from the life of a process; each run ends as it would have alone."""
    rng, config, cache, reference = random.Random(seed), folder / "toy.py", folder / "cache", folder / "straight"
    commands.write_config(folder, STEPS)
    commands.finish(train(config, folder / "first", cache))  # compiles
    began = time.monotonic()
    process, until_loop = train(config, reference, cache), 0.0
    while process.poll() is None:
        if not until_loop and size(reference / "metrics.jsonl"):
            until_loop = time.monotonic() - began
        time.sleep(0.01)
    life = time.monotonic() - began
    commands.finish(process)
    counts, runs = {"kills": 0, "runs": 0, "in mid-save": 0, "in the loop": 0}, 0

    while counts["kills"] < kills:
        runs += 1
        workdir, ended = folder / f"run{runs}", False
        while not ended:
            process, metrics, before = (
                train(config, workdir, cache),
                workdir / "metrics.jsonl",
                size(workdir / "metrics.jsonl"),
            )
            if counts["kills"] < kills:
                if rng.random() < 0.5:  # at any moment of its life
                    time.sleep(rng.uniform(0, life))
                else:  # at any moment of its loop
                    while process.poll() is None and size(metrics) <= before:
                        time.sleep(0.005)
                    time.sleep(rng.uniform(0, life - until_loop))
                process.kill()
            text, _ = process.communicate(timeout=300)
            assert process.returncode in (0, -9) and "damaged" not in text, text
            ended = process.returncode == 0
            counts["kills"] += not ended
            counts["in the loop"] += not ended and size(metrics) != before
            counts["in mid-save"] += not ended and bool(list((workdir / "checkpoints").glob("[0-9]*tmp*")))
        assert_same_run(workdir, reference, config)
    counts["runs"] = runs
    return counts


def test_3_kills_leave_no_trace(tmp_path):
    counts = survive(tmp_path, 3, seed=0)
    assert counts["kills"] == 3, counts


@pytest.mark.slow
def test_100_kills_leave_no_trace(tmp_path):
    counts = survive(tmp_path, 100, seed=1)
    print(counts)
    assert counts["kills"] == 100 and counts["in the loop"] >= 20 and counts["in mid-save"] >= 5, counts
