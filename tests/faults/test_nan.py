"""A NaN in the data, or in the gradients alone, stops the run by its step, or is rolled back from and skipped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import harness
import toy_methods
from jaxgen import trainer
from jaxgen.data import Toy, batch_at
from jaxgen.method import gradient_method
from jaxgen.report.log import read_metrics
from jaxgen.watch import NonFiniteError

toy_methods.register()
EXPERIMENT = harness.with_train(
    toy_methods.EXPERIMENTS["toy_kmeans"],
    steps=16,
    save_every=2,
    keep_last=20,
    log_every=1,
    sample_every=0,
    eval_every=0,
)
POISONED = 7  # the step, counted from 1, whose batch holds the bad example


def poisoned(value: float):
    """The ring with one example of `value` alone, which the batch of that step reads and no other before the 25th."""
    data = Toy("ring", size=400).load()
    places = np.arange(400)

    def read(split, indices, keys):
        batch = data.read(split, indices, keys)
        if split == "train" and "x" in batch:
            batch["x"] = np.where(indices[:, None] == bad, np.float32(value), batch["x"])
        return batch

    rows = lambda step: batch_at(
        data._replace(read=lambda split, indices, keys: {"n": places[indices]}),
        seed=0,
        step=step,
        batch_size=16,
        keys=("n",),
    )["n"]
    bad = rows(POISONED - 1)[3]
    assert [step for step in range(1, 26) if bad in rows(step - 1)] == [POISONED]
    return data._replace(read=read)


def method():
    """The point that is nearest to all: its loss is a mean distance, whose gradient at distance 0 is 0/0."""
    distance = lambda w, x: jnp.sqrt(jnp.sum((x * w[None]) ** 2, 1))
    loss_fn = lambda params, batch, noise: (distance(params["w"], batch["x"]).mean(), {})
    init = lambda key, batch, warm=None: {"w": jnp.ones(2)}
    return gradient_method(init, loss_fn, optax.sgd(0.01), reads=("x",))


def train(workdir, value, **changes):
    experiment = harness.with_train(EXPERIMENT, **changes)
    document = harness.document(experiment)
    return trainer.train(experiment, method(), poisoned(value), workdir, document, jax.devices()[:1])


# An example of zeros has a finite distance and no finite gradient.
@pytest.mark.parametrize(
    ("value", "names"), [(np.nan, "grad_norm, loss"), (np.inf, "grad_norm, loss"), (0.0, "grad_norm")]
)
def test_it_stops_the_run_by_step_and_metric_and_what_it_advises_works(tmp_path, value, names):
    message = (
        rf"^{names} is not finite, first at step {POISONED}; the run has stopped; the last checkpoint is of step 6\."
    )
    with pytest.raises(NonFiniteError, match=message + r".*go on with --train\.on-nonfinite rollback"):
        train(tmp_path, value)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 4, 6]
    assert train(tmp_path, value, on_nonfinite="rollback") == (16, "done")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line for line in lines if "rollback/from_step" in line] == [
        {"step": 6, "attempt": 1, "rollback/from_step": POISONED}
    ]
    again = [line for line in lines if line.get("attempt") == 1 and "loss" in line]
    assert [line["step"] for line in again] == list(range(7, 17))
    assert all(np.isfinite(line["loss"]) and np.isfinite(line["grad_norm"]) for line in again)


def test_without_skipping_the_data_it_comes_again_until_the_run_gives_up(tmp_path):
    with pytest.raises(NonFiniteError, match=rf"first at step {POISONED}; 2 rollbacks did not help"):
        train(tmp_path, np.nan, on_nonfinite="rollback", skip_data=False, max_rollbacks=2)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["attempt"] for line in lines if "rollback/from_step" in line] == [1, 2]
