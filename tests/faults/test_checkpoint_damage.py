"""Damage to any file of a checkpoint is seen or does no harm: the newest whole one is used, with a warning."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import harness
import toy_methods
from jaxgen.checkpoint import Checkpoints
from jaxgen.checksum import text_checksum
from jaxgen.report.log import read_metrics

toy_methods.register()
# So many clusters that their array lies in a file of its own.
KMEANS = dataclasses.replace(toy_methods.EXPERIMENTS["toy_kmeans"], method=toy_methods.KMeansConfig(num_clusters=300))
KMEANS = harness.with_train(KMEANS, batch_size=320)
# Orbax drops the reads that it has not begun when one fails, which Python reports when it clears them away.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def clear_away():
    yield
    gc.collect()


# What a restore goes by; the other files of a checkpoint are Orbax's notes, which no array depends on.
NEEDED = ("state/_METADATA", "state/manifest.ocdbt", "state/d/*", "state/ocdbt.process_0/d/*", "info/metadata")

HARM = {
    "truncated": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x10]) + data[len(data) // 2 + 1 :],
    "empty": lambda data: b"",
}


def files(checkpoint: Path) -> dict[str, list[Path]]:
    """The files of a checkpoint by their kind: their path in it, with `*` for the names that are random."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        kind = re.sub(r"[0-9a-f]{32}", "*", path.relative_to(checkpoint).as_posix())
        found.setdefault(kind, []).append(path)
    return found


def contents(directory: Path) -> dict[Path, bytes]:
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def named(caught) -> list[int]:
    """The checkpoints that warnings call damaged, in order."""
    found = (re.search(r"^checkpoint .*/checkpoints/(\d) is damaged: \w+: ", str(w.message)) for w in caught)
    return [int(match[1]) for match in found if match]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints of the steps 2, 4, 6 and 8; steps 2 and 8 carry metrics."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    harness.train(KMEANS, workdir, save_every=2, eval_every=8, keep_last=4)
    return workdir


@pytest.fixture
def broken(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_damage_to_each_file_of_the_newest_is_seen_or_harmless(run, broken, harm):
    whole = {step: harness.saved_state(KMEANS, run, step=step) for step in (6, 8)}
    noticed = []
    for kind, paths in files(broken / "checkpoints" / "8").items():
        for path in paths:
            data = path.read_bytes()
            path.write_bytes(harm(data))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                state = harness.saved_state(KMEANS, broken)
            path.write_bytes(data)
            assert named(caught) in ([], [8]), kind
            harness.assert_bitwise(state, whole[6 if named(caught) else 8])
            noticed += [kind] * len(named(caught))
    assert set(noticed) >= set(NEEDED)


def test_of_several_damaged_in_a_row_each_is_named_and_the_run_goes_on(run, broken, tmp_path):
    for step, harm in ((8, "truncated"), (6, "flipped"), (4, "empty")):
        file = files(broken / "checkpoints" / str(step))["state/_METADATA"][0]
        file.write_bytes(HARM[harm](file.read_bytes()))
    with pytest.warns(UserWarning) as caught:
        harness.train(KMEANS, broken, steps=12, save_every=2, eval_every=8, keep_last=4)
    assert named(caught) == [8, 6, 4]
    assert sorted(path.name for path in (broken / "set_aside").iterdir()) == ["4", "6", "8"]  # not deleted
    straight = tmp_path / "straight"
    harness.train(KMEANS, straight, steps=12, save_every=2, eval_every=8, keep_last=4)
    harness.assert_bitwise(harness.saved_state(KMEANS, broken), harness.saved_state(KMEANS, straight))
    assert read_metrics(broken / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")


def test_when_all_are_damaged_the_error_names_all_and_nothing_is_deleted(broken):
    for checkpoint in (broken / "checkpoints").iterdir():
        files(checkpoint)["info/metadata"][0].write_bytes(b"{}")
    before = contents(broken)
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(ValueError) as error:
        harness.train(KMEANS, broken, steps=12)
    assert f"no whole checkpoint in {broken}/checkpoints; tried: [8, 6, 4, 2]" in str(error.value)
    assert contents(broken) == before


def test_damaged_metrics_cost_a_checkpoint_its_place_as_the_best_alone(broken):
    """Its arrays are whole; Orbax would not even open the directory."""
    (file,) = files(broken / "checkpoints" / "8")["metrics/metrics"]
    value = json.loads(file.read_text())["eval/loss"]
    for text in ('{"eval/loss": 0.', json.dumps({"eval/loss": value / 2}), "[]", '{"eval/loss": "x"}', ""):
        file.write_text(text)
        with pytest.warns(
            UserWarning, match="the metrics of checkpoint .*/8 are damaged: it is not taken for the best"
        ):
            checkpoints = Checkpoints(broken / "checkpoints")
            assert checkpoints.steps() == [2, 4, 6, 8] and checkpoints.best_step() is None
            checkpoints.close()
    with pytest.warns(UserWarning, match="the metrics of checkpoint"):
        assert harness.train(KMEANS, broken, steps=12, save_every=2, eval_every=4) == (12, "done")
    assert not (broken / "set_aside").exists()


def test_damaged_times_cost_nothing(run, broken):
    """Orbax would not open the directory: it reads when a checkpoint was made, which nothing here goes by."""
    file = broken / "checkpoints" / "8" / "_CHECKPOINT_METADATA"
    for text in ('{"commit_timestamp_nsecs": 1e40}', '{"commit": 1, "custom_metadata": {"a": 1}}', "[]", "{"):
        file.write_text(text)
        harness.assert_bitwise(harness.saved_state(KMEANS, broken), harness.saved_state(KMEANS, run, step=8))


def test_checkpoints_of_earlier_versions_are_read(run, broken):
    """They have the metrics once, and a checksum of the info alone."""
    (file,) = files(broken / "checkpoints" / "8")["info/metadata"]
    item = json.loads(file.read_text())
    old = {"info": item["info"], "info_checksum": text_checksum(item["info"]), "checksums": item["checksums"]}
    file.write_text(json.dumps(old))
    harness.assert_bitwise(harness.saved_state(KMEANS, broken), harness.saved_state(KMEANS, run, step=8))
    file.write_text(json.dumps(old | {"info": item["info"] | {"data_step": 9}}))
    with pytest.warns(UserWarning, match="8 is damaged: ValueError: checksum of the info differs"):
        harness.saved_state(KMEANS, broken)


def fuzz(directory: Path, num: int, seed: int) -> dict[str, int]:
    """How often which step came back from checkpoints with random damage, in a process of its own."""
    script = Path(__file__).with_name("checkpoint_fuzz.py")
    env = os.environ | {"PYTHONPATH": str(script.parents[2]), "PYTHONFAULTHANDLER": "1", "XLA_FLAGS": ""}
    command = [sys.executable, str(script), str(directory), str(seed), str(num)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60 + 3 * num)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads(done.stdout)
    assert sum(counts.values()) == num
    return counts


def test_random_damage_gives_a_whole_checkpoint_or_a_clear_error(tmp_path):
    counts = fuzz(tmp_path, 150, seed=0)
    assert counts.keys() == {"1", "2", "3", "null"}  # all outcomes were met


@pytest.mark.slow
def test_random_damage_gives_a_whole_checkpoint_or_a_clear_error_many_times(tmp_path):
    counts = fuzz(tmp_path, 3000, seed=1)
    assert min(counts.values()) >= 100 and counts.keys() == {"1", "2", "3", "null"}


def test_a_run_of_another_architecture_shows_both_trees(broken):
    """Its config.json was exchanged: another number of clusters than the arrays have."""
    tree = json.loads((broken / "config.json").read_text())
    tree["method"]["config"]["num_clusters"] = 7
    (broken / "config.json").write_text(json.dumps(tree))
    before = contents(broken)
    other = dataclasses.replace(KMEANS, method=toy_methods.KMeansConfig(num_clusters=7))
    with pytest.raises(ValueError) as error:
        harness.train(other, broken, steps=12)
    lines = str(error.value).splitlines()
    assert lines[0] == f"checkpoint {broken}/checkpoints/8 does not fit:"
    assert lines[1:] == [
        "  centroids: (300, 2) float32 in the checkpoint, (7, 2) float32 asked for",
        "  counts: (300,) float32 in the checkpoint, (7,) float32 asked for",
    ]
    assert contents(broken) == before
