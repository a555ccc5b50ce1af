"""The loop: no recompilation, no lost or overwritten run, clean stops, and no bad number ever saved."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import harness
import toy_methods
from jaxgen import catalog, runs, trainer
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Rule
from jaxgen.data import batch_at
from jaxgen.method import Method
from jaxgen.program import keys_of
from jaxgen.report.log import read_metrics
from jaxgen.watch import NonFiniteError

toy_methods.register()
KMEANS, LM, LORA = (toy_methods.EXPERIMENTS[name] for name in ("toy_kmeans", "toy_lm", "toy_lora"))


def train_method(method, experiment, workdir, **changes):
    """Trains `method` in place of the experiment's own."""
    experiment = harness.with_train(experiment, **changes)
    data = experiment.data.load()
    return trainer.train(experiment, method, data, workdir, harness.document(experiment), jax.devices()[:1])


def counter(metrics, grow=lambda count: count + 1, evaluate=None):
    """A method whose state counts its steps, and whose metrics are a function of the count and the key.

    `evaluate`, a function of the count, is its evaluated loss.
    """

    def step(state, batch, key):
        count = grow(state["count"])
        return {"count": count}, metrics(count, key)

    def evaluate_count(state, batch, key):
        ones = jnp.ones(len(batch["x"]))
        return {"loss": (evaluate(state["count"]) * ones, ones)}

    init = lambda key, batch, warm=None: {"count": jnp.zeros(())}
    return Method(init, step, evaluate=evaluate_count if evaluate else None, reads=("x",))


QUIET = {"sample_every": 0, "eval_every": 0, "log_every": 1}


def test_a_run_is_the_steps_done_by_hand(tmp_path):
    """The trainer adds nothing: the same batches and keys through `step` alone give the same bits."""
    harness.train(KMEANS, tmp_path, steps=3)
    data = KMEANS.data.load()
    method = catalog.make(KMEANS.method, data.spec)
    keys = keys_of(0)

    def batch(step):
        return jax.tree.map(jnp.asarray, batch_at(data, seed=0, step=step, batch_size=16, keys=("x",)))

    state = jax.jit(method.init)(keys.init, batch(0))
    for step in range(3):
        key = jax.random.fold_in(jax.random.fold_in(keys.step, 0), step)
        state, _ = jax.jit(method.step)(state, batch(step), key)
    harness.assert_bitwise(state, harness.saved_state(KMEANS, tmp_path))


def test_the_step_is_traced_twice_and_never_again(tmp_path):
    """Once for its metrics' names, once to compile: not again however many steps follow."""
    traces = []

    def metrics(count, key):
        traces.append(1)
        return {"loss": count}

    train_method(counter(metrics), KMEANS, tmp_path, steps=20, **QUIET)
    assert len(traces) == 2


def test_reaching_the_steps_that_a_run_has_changes_nothing(tmp_path):
    harness.train(KMEANS, tmp_path, steps=4)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert harness.train(KMEANS, tmp_path, steps=4) == (4, "done")
    assert harness.train(KMEANS, tmp_path, steps=4) == (4, "done")
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    changed = {p.name for p in before if before[p] != after[p]}
    assert before.keys() == after.keys() and changed <= {"curves.png"}
    assert harness.train(KMEANS, tmp_path, steps=2) == (4, "done")
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 4


def test_another_identity_is_refused_and_the_run_left_alone(tmp_path):
    harness.train(KMEANS, tmp_path, steps=4)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = dataclasses.replace(KMEANS, method=toy_methods.KMeansConfig(num_clusters=5))
    with pytest.raises(ValueError, match=r"method\.num_clusters: 4 → 5"):
        harness.train(other, tmp_path, steps=8)
    with pytest.raises(ValueError, match=r"train\.seed: 0 → 7"):
        harness.train(KMEANS, tmp_path, seed=7, steps=8)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_the_same_data_with_other_examples_is_another_run(tmp_path, monkeypatch):
    harness.train(LM, tmp_path, steps=4)
    data = LM.data.load()
    more = data._replace(spec=dataclasses.replace(data.spec, counts={**data.spec.counts, "train": 201}))
    monkeypatch.setattr(toy_methods.ToyTokens, "load", lambda self: more)
    with pytest.raises(ValueError, match=r"spec\.counts\.train: 200 → 201"):
        harness.train(LM, tmp_path, steps=8)


def steps_and_best(workdir, metric="eval/loss"):
    """The steps of a run's checkpoints, and the best of them."""
    checkpoints = Checkpoints(workdir / "checkpoints", best_metric=metric)
    found = checkpoints.steps(), checkpoints.best_step()
    checkpoints.close()
    return found


def test_best_may_be_a_training_metric(tmp_path):
    method = counter(lambda count, key: {"loss": jnp.abs(count - 4.0)})
    train_method(method, KMEANS, tmp_path, steps=9, save_every=1, best_metric="loss", **QUIET)
    assert steps_and_best(tmp_path, "loss") == ([4, 8, 9], 4)


def test_the_best_may_be_by_another_metric_when_the_run_goes_on(tmp_path):
    """The checkpoints until then carry `eval/loss` alone: they make way for the ones that carry `loss`."""
    method = counter(lambda count, key: {"loss": count}, evaluate=lambda count: count)
    options = {**QUIET, "save_every": 1, "eval_every": 1, "keep_last": 1}
    train_method(method, KMEANS, tmp_path, steps=3, **options)
    assert steps_and_best(tmp_path) == ([1, 3], 1)
    train_method(method, KMEANS, tmp_path, steps=6, best_metric="loss", **options)
    assert steps_and_best(tmp_path, "loss") == ([4, 6], 4)


def test_the_last_step_is_evaluated_and_may_be_the_best(tmp_path):
    method = counter(lambda count, key: {"loss": count}, evaluate=lambda count: 10 - count)
    train_method(method, KMEANS, tmp_path, steps=6, save_every=4, **{**QUIET, "eval_every": 4})
    evaluated = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "eval/loss" in line]
    assert evaluated == [{"step": 4, "eval/loss": 6.0}, {"step": 6, "eval/loss": 4.0}]
    assert steps_and_best(tmp_path) == ([4, 6], 6)


def test_a_start_that_fails_leaves_the_directory_free(tmp_path):
    def fail(count, key):
        raise RuntimeError("not enough memory")

    with pytest.raises(RuntimeError, match="not enough memory"):
        train_method(counter(fail), KMEANS, tmp_path, steps=2, **QUIET)
    assert train_method(counter(lambda c, k: {"loss": c}), KMEANS, tmp_path, steps=2, **QUIET) == (2, "done")


def test_bad_input_fails_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="batch_size=9 does not divide"):
        harness.train(KMEANS, tmp_path / "run", devices=8, batch_size=9)
    with pytest.raises(ValueError, match="image"):
        train_method(counter(lambda c, k: {"loss": c})._replace(reads=("image",)), KMEANS, tmp_path / "run")
    lora = dataclasses.replace(LORA, init_from={"base": str(tmp_path / "absent:params")})
    with pytest.raises(FileNotFoundError, match="no run in"):
        harness.train(lora, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_lora_starts_from_another_run_and_leaves_it_unchanged(tmp_path, monkeypatch):
    restore, restored = trainer.restore_sources, []

    def remembered(*args):
        warm = restore(*args)
        restored.extend(map(weakref.ref, jax.tree.leaves(warm)))
        return warm

    monkeypatch.setattr(trainer, "restore_sources", remembered)
    monkeypatch.setattr(trainer.Progress, "update", lambda *_: freed.append(all(ref() is None for ref in restored)))
    freed = []
    harness.train(LM, tmp_path / "base", steps=8)
    params = harness.saved_state(LM, tmp_path / "base")["params"]
    lora = dataclasses.replace(LORA, init_from={"base": f"{tmp_path / 'base'}:params"})
    (tmp_path / "lora" / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)  # as a first save cut short
    runs.write_config(tmp_path / "lora", harness.document(lora))
    harness.train(lora, tmp_path / "lora", steps=4)
    assert len(restored) == len(params) and all(freed), "the restored arrays stay beside the state"
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert json.loads((tmp_path / "lora" / "init_from" / "base.json").read_text()) == config
    state = harness.saved_state(lora, tmp_path / "lora")
    harness.assert_bitwise(state["base"], params)
    (tmp_path / "base").rename(tmp_path / "gone")  # going on needs the run alone
    harness.train(lora, tmp_path / "lora", steps=8)
    harness.assert_bitwise(harness.saved_state(lora, tmp_path / "lora")["base"], params)
    with pytest.raises(ValueError, match="has no parms.*did you mean params"):
        wrong = dataclasses.replace(LORA, init_from={"base": f"{tmp_path / 'gone'}:parms"})
        harness.train(wrong, tmp_path / "other")
    with pytest.raises(ValueError, match=r"starts from no 'bse' \(did you mean base\?\)"):
        harness.train(dataclasses.replace(LORA, init_from={"bse": f"{tmp_path / 'gone'}:params"}), tmp_path / "other")
    fit = r"does not fit:\n  base/embed: \(8, 16\) float32 from there, \(8, 4\) float32 in this method"
    with pytest.raises(ValueError, match=fit):
        narrow = toy_methods.LoraConfig(base=toy_methods.LmConfig(width=4))
        harness.train(
            dataclasses.replace(lora, method=narrow, init_from={"base": f"{tmp_path / 'gone'}:params"}),
            tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()


def test_what_a_run_starts_from_has_the_dtypes_of_its_state(tmp_path):
    train_method(counter(lambda c, k: {"loss": c}), KMEANS, tmp_path / "base", steps=1, **QUIET)
    init = lambda key, batch, warm=None: {"count": warm["base"] if warm else jnp.zeros((), jnp.bfloat16)}
    half = counter(lambda c, k: {"loss": c})._replace(init=init, starts_from=("base",))
    experiment = dataclasses.replace(KMEANS, init_from={"base": f"{tmp_path / 'base'}:count"})
    with pytest.raises(ValueError, match=r"count: \(\) float32 from there, \(\) bfloat16 in this method"):
        train_method(half, experiment, tmp_path / "half", **QUIET)
    inside = half._replace(init=lambda key, batch, warm=None: {"count": {"y": 0}["x" if warm else "y"]})
    with pytest.raises(ValueError, match=r"init_from names \(base\) does not fit: it has no 'x'"):
        train_method(inside, experiment, tmp_path / "half", **QUIET)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_nan_stops_the_run_with_its_first_step_and_is_never_saved(tmp_path, log_every):
    def metrics(count, key):
        return {"loss": jnp.where(count == 7, jnp.nan, count), "fine": count}

    with pytest.raises(NonFiniteError, match=r"loss is not finite, first at step 7;.*the last checkpoint is of step 6"):
        train_method(counter(metrics), KMEANS, tmp_path, steps=40, save_every=2, **{**QUIET, "log_every": log_every})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps()[-1] == 6
    checkpoints.close()
    assert (tmp_path / "curves.png").exists()


def test_a_state_that_is_not_finite_is_never_saved_though_every_metric_is(tmp_path):
    method = counter(lambda count, key: {"loss": jnp.float32(1)}, lambda c: jnp.where(c == 4, jnp.inf, c + 1))
    with pytest.raises(NonFiniteError, match="the state is not finite after step 6.*last checkpoint is of step 4"):
        train_method(method, KMEANS, tmp_path, steps=40, save_every=2, **QUIET)


def test_rollback_goes_on_with_other_noise_behind_the_data_that_failed(tmp_path):
    """The first attempt fails at step 7, later ones do not: they read the batches from the eighth on."""

    def step(state, batch, key):
        seen = state["seen"].at[state["count"]].set(batch["x"][0, 0])
        draw = jax.random.uniform(key)
        failing = (state["count"] == 6) & (state["noise"][5] == first_noise)
        noise = state["noise"].at[state["count"]].set(draw)
        return {"count": state["count"] + 1, "seen": seen, "noise": noise}, {"loss": jnp.where(failing, jnp.nan, draw)}

    keys = keys_of(0)
    first_noise = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(keys.step, 0), 5))

    def init(key, batch, warm=None):
        return {"count": jnp.zeros((), jnp.int32), "seen": jnp.zeros(12), "noise": jnp.zeros(12)}

    method = Method(init, step, reads=("x",))
    outcome = train_method(
        method, KMEANS, tmp_path, steps=12, save_every=4, keep_last=9, on_nonfinite="rollback", **QUIET
    )
    assert outcome == (12, "done")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    (event,) = [line for line in lines if "rollback/from_step" in line]
    assert event == {"step": 4, "attempt": 1, "rollback/from_step": 7}
    assert [np.isnan(line["loss"]) for line in lines if line["step"] == 7] == [True, False]

    data = KMEANS.data.load()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    from jaxgen.program import abstract_state
    from jaxgen.sharding import make_mesh

    mesh = make_mesh(KMEANS.mesh, jax.devices()[:1])
    state = checkpoints.restore(abstract_state(method, data.spec, 16, mesh, KMEANS.mesh)).state
    checkpoints.close()
    steps = [0, 1, 2, 3, *range(7, 15)]
    expected = [batch_at(data, seed=0, step=s, batch_size=16, keys=("x",))["x"][0, 0] for s in steps]
    np.testing.assert_array_equal(state["seen"], np.array(expected))


def test_rollbacks_end(tmp_path):
    always = counter(lambda count, key: {"loss": jnp.where(count == 5, jnp.nan, 1.0)})
    with pytest.raises(NonFiniteError, match="2 rollbacks did not help"):
        train_method(always, KMEANS, tmp_path, steps=9, save_every=2, on_nonfinite="rollback", max_rollbacks=2, **QUIET)
    assert sum("rollback/from_step" in line for line in read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_rule_rolls_back(tmp_path):
    """Step 6 is out of bounds with the first attempt's noise alone."""
    keys = keys_of(0)
    first_noise = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(keys.step, 0), 5))
    metrics = lambda c, key: {"loss": jnp.where((c == 6) & (jax.random.uniform(key) == first_noise), 9.0, 1.0)}
    rules = (Rule("loss", above=4.5, action="rollback"),)
    outcome = train_method(counter(metrics), KMEANS, tmp_path, steps=9, save_every=4, rules=rules, **QUIET)
    assert outcome == (9, "done")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line for line in lines if "rollback/from_step" in line] == [
        {"step": 4, "attempt": 1, "rollback/from_step": 6}
    ]
    assert [line["loss"] for line in lines if line["step"] == 6] == [9, 1]


@pytest.mark.parametrize(
    ("options", "reason", "rollbacks"),
    [
        ({"save_every": 2, "max_rollbacks": 2}, "loss = 5 is above 4.5; 2 rollbacks did not help", 2),
        ({"save_every": 90}, "loss = 5 is above 4.5; there is no checkpoint to roll back to", 0),
    ],
)
def test_a_rollback_rule_without_a_way_back_saves_and_says_why(tmp_path, options, reason, rollbacks):
    """Its numbers are finite: worth saving, as those of a stop rule."""
    rules = (Rule("loss", above=4.5, action="rollback"),)
    method = counter(lambda c, k: {"loss": c})
    outcome = train_method(method, KMEANS, tmp_path, steps=99, rules=rules, **options, **QUIET)
    assert outcome.reason == reason and steps_and_best(tmp_path)[0][-1] == outcome.step < 9
    assert sum("rollback/from_step" in line for line in read_metrics(tmp_path / "metrics.jsonl")) == rollbacks


def test_a_stop_rule_saves_and_says_why(tmp_path):
    rules = (Rule("absent", above=0.0), Rule("loss", above=4.5, patience=3))
    outcome = train_method(counter(lambda c, k: {"loss": c}), KMEANS, tmp_path, steps=50, rules=rules, **QUIET)
    assert outcome.reason == "loss = 7 is above 4.5 for 3 log lines in a row"
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps()[-1] == outcome.step == 8  # the save at step 8 first reads what is in flight
    checkpoints.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 9))


def test_a_nan_behind_a_rules_line_is_not_saved(tmp_path):
    """The rule fires on step 5; step 6, already under way then, is not finite."""
    method = counter(lambda c, k: {"loss": jnp.where(c == 6, jnp.nan, c)})
    with pytest.raises(NonFiniteError, match="first at step 6"):
        train_method(method, KMEANS, tmp_path, steps=50, save_every=40, rules=(Rule("loss", above=4.5),), **QUIET)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_two_processes_cannot_train_in_one_directory(tmp_path):
    running, end = threading.Event(), threading.Event()

    def wait(count):
        running.set()
        end.wait(60)

    def metrics(count, key):
        jax.debug.callback(wait, count)
        return {"loss": count}

    thread = threading.Thread(
        target=train_method, args=(counter(metrics), KMEANS, tmp_path), kwargs={"steps": 4, **QUIET}
    )
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not running.wait(0.05):
            assert thread.is_alive() and time.monotonic() < deadline, "the first run did not start"
        with pytest.raises(ValueError, match="another process is training in"):
            train_method(counter(lambda c, k: {"loss": c}), KMEANS, tmp_path, steps=4, **QUIET)
    finally:
        end.set()
        thread.join()


SLOW_RUN = """
import sys; sys.path[:0] = {path!r}
import conftest, harness, toy_methods
toy_methods.register()
print(harness.train(toy_methods.EXPERIMENTS["toy_kmeans"], {workdir!r}, steps=10**6, save_every=10**6,
                    sample_every=0, eval_every=0, log_every=10))
"""


def start_run(workdir: Path) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    code = SLOW_RUN.format(path=[str(tests), str(tests.parent)], workdir=None).replace(
        "None, steps", f"__import__('pathlib').Path({str(workdir)!r}), steps"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_for_steps(workdir: Path, num: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (workdir / "metrics.jsonl").exists() and len(read_metrics(workdir / "metrics.jsonl")) >= num:
            return
        time.sleep(0.05)
    raise TimeoutError("the run did not start")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_bitwise(tmp_path, number):
    with start_run(tmp_path / "run") as process:
        wait_for_steps(tmp_path / "run", 3)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "interrupted" in output
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    (step,) = checkpoints.steps()
    checkpoints.close()
    harness.train(KMEANS, tmp_path / "run", steps=step + 4, save_every=10**6)
    harness.train(KMEANS, tmp_path / "straight", steps=step + 4, save_every=10**6)
    harness.assert_bitwise(*(harness.saved_state(KMEANS, tmp_path / run) for run in ("run", "straight")))


def test_a_signal_at_a_milestone_is_obeyed_after_the_next_step(tmp_path, monkeypatch):
    """The evaluation of step 4 meets a SIGTERM: step 5 is done and saved, and the run goes on bitwise."""
    real = trainer.make_evaluate

    def make_evaluate(*args):
        evaluate = real(*args)

        def interrupted(state, split, **options):
            signal.raise_signal(signal.SIGTERM)
            return evaluate(state, split, **options)

        return interrupted

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "make_evaluate", make_evaluate)
        outcome = harness.train(KMEANS, tmp_path / "run", steps=8, save_every=100)
    assert outcome == (5, "interrupted")
    harness.train(KMEANS, tmp_path / "run", steps=8, save_every=100)
    harness.train(KMEANS, tmp_path / "straight", steps=8, save_every=100)
    harness.assert_bitwise(*(harness.saved_state(KMEANS, tmp_path / run) for run in ("run", "straight")))
    a, b = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("run", "straight"))
    assert a == b


def test_a_signal_at_an_evaluation_leaves_the_same_best(tmp_path, monkeypatch):
    """The checkpoint of step 4, the best, is saved by the signal's hand and carries its metric all the same."""
    method = counter(lambda count, key: {"loss": count}, evaluate=lambda count: jnp.abs(count - 5))
    options = {**QUIET, "steps": 16, "save_every": 4, "eval_every": 4}
    advance = trainer._Loop.advance

    def interrupted(self, batch):
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Loop, "advance", interrupted)
        assert train_method(method, KMEANS, tmp_path / "run", **options) == (4, "interrupted")
    train_method(method, KMEANS, tmp_path / "run", **options)
    train_method(method, KMEANS, tmp_path / "straight", **options)
    assert steps_and_best(tmp_path / "run") == steps_and_best(tmp_path / "straight") == ([4, 12, 16], 4)
    run, straight = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "straight"))
    assert run == straight


def test_a_signal_does_not_kill_the_last_save(tmp_path, monkeypatch):
    """It comes while the host waits for the disk, in whose place Orbax's wait stands here."""
    wait, met, sent = ocp.CheckpointManager.wait_until_finished, [], []

    def interrupted(manager):
        if manager.all_steps() and not sent:
            sent.append(1)
            signal.raise_signal(signal.SIGTERM)
        wait(manager)

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", interrupted)
    old = signal.signal(signal.SIGTERM, lambda *_: met.append(1))  # what would end the process
    try:
        assert harness.train(KMEANS, tmp_path, steps=2, eval_every=0, sample_every=0) == (2, "done")
    finally:
        signal.signal(signal.SIGTERM, old)
    assert sent and not met


def test_kill_9_loses_nothing_that_was_saved(tmp_path):
    workdir = tmp_path / "run"
    harness.train(KMEANS, workdir, steps=4)
    lines = read_metrics(workdir / "metrics.jsonl")
    with start_run(workdir) as process:
        wait_for_steps(workdir, len(lines) + 3)
        process.kill()
    harness.train(KMEANS, workdir, steps=8)
    harness.train(KMEANS, tmp_path / "straight", steps=8)
    harness.assert_bitwise(*(harness.saved_state(KMEANS, tmp_path / run) for run in ("run", "straight")))
    assert read_metrics(workdir / "metrics.jsonl") == read_metrics(tmp_path / "straight" / "metrics.jsonl")


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_goes_on(tmp_path):
    harness.train(KMEANS, tmp_path / "run", steps=8)
    damaged = tmp_path / "run" / "checkpoints" / "8"
    for file in (damaged / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.warns(UserWarning, match="8 is damaged"):
        harness.train(KMEANS, tmp_path / "run", steps=12)
    assert (tmp_path / "run" / "set_aside" / "8").is_dir()
    harness.train(KMEANS, tmp_path / "straight", steps=12)
    harness.assert_bitwise(*(harness.saved_state(KMEANS, tmp_path / run) for run in ("run", "straight")))


@pytest.mark.parametrize("step", [4, 8])
def test_samples_that_a_kill_has_cost_are_drawn_when_the_run_goes_on(tmp_path, step):
    """It came between the save and the end of the drawing, in the middle or at the last step."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    harness.train(KMEANS, straight, steps=8, sample_every=4)
    harness.train(KMEANS, run, steps=step, sample_every=4)
    (name,) = (path.name for path in (run / "samples").glob(f"{step:06d}.*"))
    (run / "samples" / name).unlink()
    assert harness.train(KMEANS, run, steps=8, sample_every=4) == (8, "done")
    assert (run / "samples" / name).read_bytes() == (straight / "samples" / name).read_bytes()
    assert read_metrics(run / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")


def test_the_host_waits_for_old_steps_only(tmp_path, monkeypatch):
    """Where the step takes long, the host starts it while the ones before it still run, and no more than two of them.

    No callback in the step could tell: JAX's CPU backend runs programs with callbacks before it returns.
    """
    results, running = [], []

    def metrics(count, key):
        x = jax.lax.fori_loop(0, 30, lambda i, x: jnp.tanh(x @ x / 200), jnp.full((200, 200), count))
        return {"loss": x.mean()}

    advance = trainer._Loop.advance

    def watched(self, batch):
        running.append(sum(not result["loss"].is_ready() for result in results))
        results.append(advance(self, batch))
        return results[-1]

    monkeypatch.setattr(trainer._Loop, "advance", watched)
    train_method(counter(metrics), KMEANS, tmp_path, **QUIET, save_every=1000, steps=16)
    assert max(running) <= trainer.AHEAD
    assert sum(num > 0 for num in running) >= 8, f"of the steps before each, so many were still running: {running}"


def test_lines_carry_the_time_of_a_step_and_of_waiting_for_data(tmp_path, monkeypatch):
    """Reading a batch takes 100 ms; the hour that an evaluation lasts by the clock is not among them."""
    real, least, hours = trainer.batch_at, 0.01, []

    def slow(*args, **kwargs):
        time.sleep(0.1)
        return real(*args, **kwargs)

    def evaluate(*args):
        return lambda state, split, **options: hours.append(3600) or {"loss": 1.0}

    clock = lambda: time.perf_counter() + sum(hours)
    monkeypatch.setattr(trainer, "Progress", functools.partial(trainer.Progress, clock=clock))
    monkeypatch.setattr(trainer, "batch_at", slow)
    monkeypatch.setattr(trainer, "make_evaluate", evaluate)
    method = counter(lambda count, key: {"loss": count}, evaluate=lambda count: count)
    options = {**QUIET, "log_every": 4, "eval_every": 4, "steps": 12}
    train_method(method, KMEANS, tmp_path / "cpu", **options)
    lines = [line for line in read_metrics(tmp_path / "cpu" / "metrics.jsonl", timing=True) if "loss" in line]
    assert [list(line) for line in lines] == [["step", "loss", "step_time", "data_wait"]] * 3  # a CPU has no known peak
    assert lines[0]["data_wait"] > 0.005  # the first of these six steps or fewer waited for its batch
    assert all(0 < line["data_wait"] <= line["step_time"] < 100 for line in lines)
    monkeypatch.setattr(trainer, "least_step_time", lambda *args: least)
    train_method(method, KMEANS, tmp_path / "known", **options)
    lines = [line for line in read_metrics(tmp_path / "known" / "metrics.jsonl", timing=True) if "loss" in line]
    assert [line["mfu"] for line in lines] == [pytest.approx(least / line["step_time"]) for line in lines]
    assert read_metrics(tmp_path / "known" / "metrics.jsonl") == read_metrics(tmp_path / "cpu" / "metrics.jsonl")


def test_timing_is_nothing_to_judge_a_run_by():
    for options in ({"rules": (Rule("step_time", above=1.0),)}, {"best_metric": "mfu"}):
        with pytest.raises(ValueError, match="differs from run to run"):
            harness.with_train(KMEANS, **options)


def test_a_rules_patience_survives_a_restart(tmp_path):
    """Two lines out of bounds before the stop, one after it: the third in a row fires."""
    rules = (Rule("loss", above=2.5, patience=3),)
    method = counter(lambda count, key: {"loss": count})
    assert train_method(method, KMEANS, tmp_path / "a", steps=4, rules=rules, **QUIET) == (4, "done")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    outcome = train_method(method, KMEANS, tmp_path / "a", steps=50, rules=rules, **QUIET)
    assert outcome.reason == "loss = 5 is above 2.5 for 3 log lines in a row"
    other = (Rule("loss", above=1.5, patience=3),)  # has not seen a line yet
    outcome = train_method(method, KMEANS, tmp_path / "b", steps=50, rules=other, **QUIET)
    assert outcome.reason == "loss = 7 is above 1.5 for 3 log lines in a row"


def test_an_end_between_the_intervals_leaves_no_trace(tmp_path):
    """Step 5 is logged and evaluated as the last one of the first half: the whole run's record does not have it."""
    harness.train(KMEANS, tmp_path / "halves", steps=5, sample_every=0)
    halves, straight = (tmp_path / name / "metrics.jsonl" for name in ("halves", "straight"))
    assert [line["step"] for line in read_metrics(halves)] == [2, 4, 4, 5, 5]
    harness.train(KMEANS, tmp_path / "halves", steps=9, sample_every=0)
    harness.train(KMEANS, tmp_path / "straight", steps=9, sample_every=0)
    assert read_metrics(halves) == read_metrics(straight)
    assert [line["step"] for line in read_metrics(halves)] == [2, 4, 4, 6, 8, 8, 9, 9]


def test_an_end_between_the_intervals_does_not_count_for_a_rule(tmp_path):
    """Of the lines at 4, 5 (the last step's) and 6, two are a log interval apart."""
    options = {**QUIET, "log_every": 2, "rules": (Rule("loss", above=3.5, patience=2),)}
    method = counter(lambda count, key: {"loss": count})
    assert train_method(method, KMEANS, tmp_path, steps=5, **options) == (5, "done")
    outcome = train_method(method, KMEANS, tmp_path, steps=50, **options)
    assert outcome.reason == "loss = 6 is above 3.5 for 2 log lines in a row"
