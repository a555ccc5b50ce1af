"""Several steps a compiled call, and traces of some steps: the same run, seen from the host less often or more."""

from __future__ import annotations

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
import toy_methods
from jaxgen import trainer
from jaxgen.checkpoint import Checkpoints
from jaxgen.config import Rule
from jaxgen.data import batch_at
from jaxgen.method import Method
from jaxgen.program import abstract_state, keys_of
from jaxgen.report.log import read_metrics
from jaxgen.sharding import make_mesh
from jaxgen.watch import NonFiniteError

toy_methods.register()
KMEANS, LM = (toy_methods.EXPERIMENTS[name] for name in ("toy_kmeans", "toy_lm"))
QUIET = {"sample_every": 0, "eval_every": 0, "log_every": 4, "save_every": 4, "steps_per_call": 4}


def train_method(method, workdir, **changes):
    """Trains `method` on the data of the k-means."""
    experiment = harness.with_train(KMEANS, **{**QUIET, **changes})
    data = experiment.data.load()
    return trainer.train(experiment, method, data, workdir, harness.document(experiment), jax.devices()[:1])


def lines(workdir):
    return read_metrics(workdir / "metrics.jsonl")


@pytest.mark.parametrize("experiment", [KMEANS, LM], ids=["closed form", "gradients"])
def test_several_steps_a_call_are_the_steps_one_by_one(tmp_path, experiment):
    """Also from and to steps that are no multiple: single ones lead there. To rounding: they are other programs."""
    options = {"log_every": 4, "save_every": 4, "eval_every": 4, "sample_every": 0}
    harness.train(experiment, tmp_path / "single", steps=6, **options)
    harness.train(experiment, tmp_path / "single", steps=13, **options)
    harness.train(experiment, tmp_path / "several", steps=6, **options)  # one by one so far
    harness.train(experiment, tmp_path / "several", steps=13, steps_per_call=4, **options)
    single, several = (harness.leaves(harness.saved_state(experiment, tmp_path / r)) for r in ("single", "several"))
    for path, value in single.items():
        np.testing.assert_allclose(several[path], value, rtol=1e-6, atol=1e-7, err_msg=path)
    a, b = lines(tmp_path / "single"), lines(tmp_path / "several")
    assert [line["step"] for line in a] == [line["step"] for line in b] == [4, 4, 8, 8, 12, 12, 13, 13]
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, rel=1e-5)


def test_resume_in_calls_is_bitwise(tmp_path):
    options = {**QUIET, "steps": 16}
    harness.train(LM, tmp_path / "straight", **options)
    harness.train(LM, tmp_path / "halves", **{**options, "steps": 8})
    harness.train(LM, tmp_path / "halves", **options)
    harness.assert_bitwise(*(harness.saved_state(LM, tmp_path / run) for run in ("straight", "halves")))
    assert lines(tmp_path / "straight") == lines(tmp_path / "halves")


def test_a_call_is_compiled_once_and_the_rest_once(tmp_path):
    """13 steps in fours: three calls of one program, and a single step of another."""
    traced = []

    def step(state, batch, key):
        traced.append(1)
        return {"count": state["count"] + 1}, {"loss": state["count"]}

    init = lambda key, batch, warm=None: {"count": jnp.zeros(())}
    train_method(Method(init, step, reads=("x",)), tmp_path, steps=13)
    assert len(traced) == 3  # for its metrics' names, and to compile either
    assert [line["loss"] for line in lines(tmp_path)] == [3, 7, 11, 12]


def test_a_nan_inside_a_call_is_told_by_its_step(tmp_path):
    def step(state, batch, key):
        count = state["count"] + 1
        return {"count": count}, {"loss": jnp.where(count == 7, jnp.nan, count)}

    init = lambda key, batch, warm=None: {"count": jnp.zeros(())}
    with pytest.raises(NonFiniteError, match=r"loss is not finite, first at step 7;.*the last checkpoint is of step 4"):
        train_method(Method(init, step, reads=("x",)), tmp_path, steps=40)


def test_a_rollback_goes_on_behind_the_step_that_failed(tmp_path):
    """Step 7, inside the second call, fails in the first attempt: then the batches from the eighth on."""
    first_noise = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(keys_of(0).step, 0), 6))

    def step(state, batch, key):
        seen = state["seen"].at[state["count"]].set(batch["x"][0, 0])
        failing = (state["count"] == 6) & (jax.random.uniform(key) == first_noise)
        return {"count": state["count"] + 1, "seen": seen}, {"loss": jnp.where(failing, jnp.nan, 1.0)}

    init = lambda key, batch, warm=None: {"count": jnp.zeros((), jnp.int32), "seen": jnp.zeros(12)}
    method = Method(init, step, reads=("x",))
    assert train_method(method, tmp_path, steps=12, on_nonfinite="rollback", keep_last=9) == (12, "done")
    (event,) = [line for line in lines(tmp_path) if "rollback/from_step" in line]
    assert event == {"step": 4, "attempt": 1, "rollback/from_step": 7}
    experiment = harness.with_train(KMEANS, **QUIET)
    data = experiment.data.load()
    abstract = abstract_state(method, data.spec, 16, make_mesh(KMEANS.mesh, jax.devices()[:1]), KMEANS.mesh)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = checkpoints.restore(abstract).state
    checkpoints.close()
    steps = [0, 1, 2, 3, *range(7, 15)]
    expected = [batch_at(data, seed=0, step=s, batch_size=16, keys=("x",))["x"][0, 0] for s in steps]
    np.testing.assert_array_equal(state["seen"], np.array(expected))


def traced_steps(workdir):
    (path,) = (workdir / "profile").glob("plugins/profile/*/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sorted(int(event["args"]["step_num"]) for event in events if event.get("name") == "train")


@pytest.mark.parametrize(("per_call", "expected"), [(1, [4, 5, 6, 7]), (2, [4, 6])])
def test_a_trace_holds_the_steps_that_were_asked_for(tmp_path, capsys, per_call, expected):
    """Numbered from 0, by the first of each call."""
    options = {**QUIET, "steps": 12, "steps_per_call": per_call, "profile": "4:8"}
    harness.train(KMEANS, tmp_path, **options)
    assert traced_steps(tmp_path) == expected
    told = [line for line in capsys.readouterr().out.splitlines() if "trace" in line]
    assert len(told) == 1 and told[0].startswith("trace of the steps 5 to 8: open") and "ui.perfetto.dev" in told[0]
    harness.train(KMEANS, tmp_path, **options | {"steps": 16})
    assert "no trace: step 12 is past the start of train.profile=4:8" in capsys.readouterr().out
    assert traced_steps(tmp_path) == expected


def test_a_trace_ends_with_the_run(tmp_path):
    """A stop rule inside the window: the trace is written, and another can begin."""
    rules = (Rule("loss", above=-1.0),)
    outcome = harness.train(
        KMEANS, tmp_path, **QUIET | {"steps": 40, "save_every": 40, "profile": "4:36", "rules": rules}
    )
    assert 4 < outcome.step < 36
    assert traced_steps(tmp_path) == list(range(4, outcome.step, 4))
