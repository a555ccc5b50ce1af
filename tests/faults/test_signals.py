"""SIGTERM and Ctrl-C at the worst moments: the state is saved in time, or was saved before, and the run goes on."""

from __future__ import annotations

import dataclasses
import re
import signal
import time

import pytest

import commands
import harness
import toy_methods
from jaxgen import cli, trainer, watch
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Rule
from jaxgen.data import Toy
from jaxgen.report.log import read_metrics

toy_methods.register()
STEPS = 60


def wait_until(process, happened, timeout: float = 300) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_run_that_is_stopped_at_the_worst_moments_ends_as_an_undisturbed_one(tmp_path):
    """In compilation, in mid-save (twice), about an evaluation, and by two Ctrl-C."""
    # Nothing but signals saves in the middle; an evaluation is 200 batches long.
    config = commands.write_config(tmp_path, STEPS, size=32_000, save_every=1000, eval_every=40)
    run, straight = tmp_path / "run", tmp_path / "straight"
    start = lambda workdir: commands.start("train.py", config, "--workdir", workdir, cache=tmp_path / "cache")
    commands.finish(start(straight))
    checkpoints = lambda: sorted(int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdigit())
    lines = lambda: len(read_metrics(run / "metrics.jsonl")) if (run / "metrics.jsonl").exists() else 0

    process = start(run)
    while "compiling" not in (line := process.stdout.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGTERM)
    text = commands.finish(process)
    assert (found := re.search(r"interrupted; saved at step (\d+); to go on:", text)), text
    first = int(found[1])
    assert checkpoints() == [first] and first < 20

    process = start(run)
    wait_until(process, lambda: lines() > first + 2)
    process.send_signal(signal.SIGTERM)
    wait_until(process, lambda: (run / "checkpoints").exists() and any((run / "checkpoints").glob("*tmp*")))
    process.send_signal(signal.SIGTERM)  # while it saves
    text = commands.finish(process)
    assert "interrupted; saved at step" in text, text
    second = checkpoints()[-1]
    assert first < second < 40

    process = commands.start(
        "train.py", config, "--workdir", run, "--interrupted-status", "75", cache=tmp_path / "cache"
    )
    wait_until(process, lambda: lines() >= 40)
    process.send_signal(signal.SIGTERM)
    text = commands.finish(process, code=75)
    assert "interrupted; saved at step" in text, text

    process = start(run)
    wait_until(process, lambda: lines() > 42)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=300)[0]
    assert process.returncode in (0, 130) and "Traceback" not in text, text

    commands.finish(start(run))
    assert read_metrics(run / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")


class Killed(Exception):
    """Ends a run where `kill -9` would."""


def test_amid_a_long_evaluation_the_state_is_saved_before_a_kill(tmp_path, monkeypatch):
    """The second batch meets the signal, the third is after the patience, the fourth meets the kill."""
    experiment = harness.with_train(toy_methods.EXPERIMENTS["toy_kmeans"], save_every=100)
    experiment = dataclasses.replace(experiment, data=Toy("ring", size=2000))  # 100 points, in batches of 16
    make_evaluate, batches = trainer.make_evaluate, []

    def watched(*args):
        evaluate = make_evaluate(*args)

        def long(state, split, between):
            def counted():
                batches.append(1)
                if len(batches) == 2:
                    signal.raise_signal(signal.SIGTERM)
                between()
                if len(batches) == 4:
                    raise Killed

            return evaluate(state, split, between=counted)

        return long

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "make_evaluate", watched)
        patch.setattr(trainer, "PATIENCE", -1.0)
        with pytest.raises(Killed):
            harness.train(experiment, tmp_path / "run", steps=8)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4] and not any("eval/loss" in line for line in lines)
    for workdir in ("run", "straight"):
        assert harness.train(experiment, tmp_path / workdir, steps=8) == (8, "done")
    harness.assert_bitwise(*(harness.saved_state(experiment, tmp_path / name) for name in ("run", "straight")))
    losses = lambda name: [line for line in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in line]
    assert losses("run") == losses("straight")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.steps() == [4, 8]
    checkpoints.close()


def test_what_was_saved_amid_an_evaluation_is_no_way_back_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(watch.Signals, "waited", lambda self: 100.0)
    experiment = harness.with_train(
        toy_methods.EXPERIMENTS["toy_kmeans"],
        steps=8,
        save_every=2,
        eval_every=4,
        max_rollbacks=1,
        rules=(Rule("eval/loss", above=-1.0, action="rollback"),),
    )
    step, reason = harness.train(experiment, tmp_path)
    assert step == 4 and "1 rollbacks did not help" in reason
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["rollback/from_step"]) for line in lines if "rollback/from_step" in line] == [(2, 4)]


def test_a_second_ctrl_c_ends_the_command_without_a_traceback(capsys):
    def train(args):
        raise KeyboardInterrupt

    assert cli.run_command(train, []) == 130
    assert "stopped at once" in capsys.readouterr().err
