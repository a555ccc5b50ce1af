"""SIGTERM and Ctrl-C at the worst moments: the state is saved in time, or was saved before, and the run goes on."""

from __future__ import annotations

import re
import signal
import time

import commands
from jaxgen import cli
from jaxgen.report.log import read_metrics

STEPS = 60


def wait_until(process, happened, timeout: float = 300) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_a_run_that_is_stopped_at_the_worst_moments_ends_as_an_undisturbed_one(tmp_path):
    """In compilation, in mid-save (twice), amid a long evaluation with a kill soon after, and by two Ctrl-C."""
    # Nothing but signals saves in the middle; an evaluation is 2000 batches long, which takes seconds.
    config = commands.write_config(tmp_path, STEPS, size=320_000, save_every=1000, eval_every=40)
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

    process = start(run)
    wait_until(process, lambda: lines() >= 40)
    process.send_signal(signal.SIGTERM)
    wait_until(process, lambda: checkpoints()[-1] == 40)
    process.kill()  # the time that was given is over
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not any("eval/loss" in line for line in read_metrics(run / "metrics.jsonl")), "the evaluation had ended"

    process = start(run)
    wait_until(process, lambda: lines() > 42)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=300)[0]
    assert process.returncode in (0, 130) and "Traceback" not in text, text

    commands.finish(start(run))
    losses = lambda workdir: [line for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]
    assert losses(run) == losses(straight)


def test_a_second_ctrl_c_ends_the_command_without_a_traceback(capsys):
    def train(args):
        raise KeyboardInterrupt

    assert cli.run_command(train, []) == 130
    assert "stopped at once" in capsys.readouterr().err
