"""The only loop. It knows arrays, meshes and checkpoints; it knows no model.

One compiled step with donated state; the key and the batch are functions of the step's number, so that the state alone
resumes a run, bit for bit. Metrics stay on the devices until they are ready: the host never waits for the step that it
has just started.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxgen import distributed, runs
from jaxgen.checkpoint import Checkpoints, Restored
from jaxgen.config import Experiment
from jaxgen.data.dataset import Dataset, batch_at
from jaxgen.data.prefetch import Prefetch
from jaxgen.devices import least_step_time
from jaxgen.method import Method
from jaxgen.program import abstract_state, compile_step, keys_of, make_evaluate, make_sample, shardings_of
from jaxgen.report.profile import Profile
from jaxgen.report.progress import Progress
from jaxgen.report.record import Record
from jaxgen.report.samples import with_text
from jaxgen.sharding import BATCH, check_batch, global_batch, make_mesh
from jaxgen.start import restore_sources
from jaxgen.watch import NonFiniteError, Verdict, Watch, interrupts

AHEAD = 2  # calls that the host may start before it waits for the oldest: the devices stay fed, the queue short
PATIENCE = 2.0  # seconds after a signal in which an evaluation may end before its checkpoint is saved without it


class Outcome(NamedTuple):
    """How training ended: the last step done, and `done`, `interrupted`, or what the rule that stopped it says."""

    step: int
    reason: str


def train(
    config: Experiment,
    method: Method,
    data: Dataset,
    workdir: Path,
    document: dict[str, Any],
    devices: Sequence[jax.Device] | None = None,
) -> Outcome:
    """Trains, or goes on with, the run in `workdir` until `config.train.steps`.

    Args:
      config: the experiment.
      method: what `make` built of `config.method`.
      data: the loaded data.
      workdir: the run's directory; made if need be.
      document: what config.json holds, see `jaxgen.config.experiment_to_json`.
      devices: what to train on; all by default.

    Raises:
      ValueError: before anything is written: `workdir` holds another run, the batch does not fit the mesh, the data
        lacks a key that the method reads, a checkpoint does not fit, a run to start from is missing.
      NonFiniteError: a metric or the state became NaN or infinite, and no rollback was asked for or left.
    """
    mesh = make_mesh(config.mesh, devices)
    check_batch(config.train.batch_size, mesh)
    distributed.together(lambda: runs.check_identity(workdir, document))
    distributed.check_same(runs.without_place(document))
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        loop = _Loop(config, method, data, workdir, mesh)
        outcome = loop.run(document, stack)
    loop.record.write_curves()
    return outcome


class _Loop:
    """The mutable side of training: where the run stands and what is in flight."""

    def __init__(self, config: Experiment, method: Method, data: Dataset, workdir: Path, mesh: Mesh):
        self.config, self.method, self.data, self.workdir, self.mesh = config, method, data, workdir, mesh
        self.cfg, self.keys, self.watch = config.train, keys_of(config.train.seed), Watch(config.train)
        self.main = distributed.is_first()
        self.abstract = abstract_state(method, data.spec, self.cfg.batch_size, mesh, config.mesh)
        self.state: Any = None
        self.programs: dict[int, Any] = {}  # by the number of steps that a call does
        self.step = self.data_step = self.attempt = 0
        self.record = Record(workdir, self.main)
        self.pending: deque[tuple[int, Any, Any]] = deque()  # log lines whose numbers may still be on the devices
        self.started: deque[Any] = deque()  # steps and metrics of the newest calls, which may still be running

    def run(self, document: dict[str, Any], stack: contextlib.ExitStack) -> Outcome:
        cfg = self.cfg
        fresh = distributed.first(not runs.has_checkpoints(self.workdir))
        warm = restore_sources(self.config, self.method, self.data.spec, self.abstract, self.mesh) if fresh else {}
        distributed.together(lambda: self.claim(stack))
        self.checkpoints = Checkpoints(
            self.workdir / runs.CHECKPOINTS, cfg.keep_last, cfg.best_metric, cfg.best_mode, writing=True
        )
        stack.callback(self.checkpoints.close)
        info = self.resume(warm)
        del warm  # the state has copies: the devices need not hold it for the whole run
        due = 0 < self.step <= cfg.steps and self.method.sample and self.due(cfg.sample_every)
        # It was killed between a save and the drawing.
        lacking = distributed.first(bool(due) and not self.record.has_samples(self.step))
        if self.step >= cfg.steps and not lacking:
            return Outcome(self.step, "done")
        self.evaluate = make_evaluate(self.method, self.data, self.mesh, cfg.batch_size, self.keys.evaluate)
        self.sample = make_sample(self.method, self.mesh) if self.method.sample else None
        self.signals = stack.enter_context(interrupts(self.step))
        stack.callback(self.checkpoints.wait)  # while signals are still caught: none may kill the last save
        self.progress = stack.enter_context(Progress(cfg.steps, start=self.step, enabled=self.main))
        self.progress.print("compiling the training step …")
        if first := next(self.calls(), None):  # none where only samples are lacking
            self.program(first[1])
            self.bad = self.none_bad
        shapes = self.data.spec.batch(cfg.batch_size, self.method.reads)
        self.progress.least_step_time = least_step_time(self.method, self.abstract, shapes, self.mesh)

        self.profile = stack.enter_context(Profile(cfg.profile, self.workdir / "profile", self.main))
        if self.profile.missed(self.step):
            self.progress.print(f"no trace: step {self.step} is past the start of train.profile={cfg.profile}")
        if self.main:  # not before all that may fail at the start
            if fresh:
                runs.copy_sources(self.workdir, self.config.init_from)
            else:
                document = document | {"init_from": runs.read_config(self.workdir)["init_from"]}
            runs.write_config(self.workdir, document)
        self.record.open(self.step, self.attempt, info["extra"])
        stack.callback(self.record.close)
        if lacking:
            self.draw()
        return self.loop()

    def claim(self, stack: contextlib.ExitStack) -> None:
        """Makes the run's directory, and locks it; of several processes the first does."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        if self.main:
            stack.enter_context(runs.locked(self.workdir))

    def calls(self) -> Iterator[tuple[int, int]]:
        """Number of the first batch and number of steps of each call from here to the end.

        A call of several steps begins at a multiple of them; single ones lead there, and to the end.
        """
        step, number, most = self.step, self.data_step, self.cfg.steps_per_call
        while step < self.cfg.steps:
            num = most if step % most == 0 and step + most <= self.cfg.steps else 1
            yield number, num
            step, number = step + num, number + num

    def program(self, num: int) -> Any:
        """The compiled program of `num` steps, see `compile_step`."""
        if num not in self.programs:
            with self.progress.pause():
                sharding = NamedSharding(self.mesh, BATCH)
                batch = self.data.spec.batch(self.cfg.batch_size, self.method.reads)
                batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in batch.items()}
                self.programs[num], self.none_bad = compile_step(
                    self.method, self.abstract, batch, self.keys.step, self.mesh, num
                )
        return self.programs[num]

    def loop(self) -> Outcome:
        prefetch = Prefetch(self.fetch, self.calls())
        self.progress.begin(self.step)
        try:
            while self.step < self.cfg.steps:
                self.profile.begin(self.step, self.state)
                begin = time.perf_counter()
                batches = prefetch.get()
                waited = time.perf_counter() - begin
                self.started.append((batches[0], self.advance(batches)))
                if len(self.started) > AHEAD:
                    jax.block_until_ready(self.started.popleft())
                self.progress.update(self.step, waited)
                if how_to_open := self.profile.end(self.step, self.state):
                    self.progress.print(how_to_open)
                stopping = self.signals(self.step)  # asked once: a signal from here on is the next step's
                verdict = self.settle(self.step - AHEAD * self.cfg.steps_per_call) or self.milestones(stopping)
                if verdict and verdict.action == "rollback" and not self.no_way_back():
                    prefetch.close()
                    self.rollback(verdict)
                    self.progress.begin(self.step)
                    self.started.clear()
                    prefetch = Prefetch(self.fetch, self.calls())
                elif verdict:
                    return self.stop(verdict)
                elif stopping and self.step < self.cfg.steps:
                    return Outcome(self.step, "interrupted")
            return Outcome(self.step, "done")
        finally:
            prefetch.close()

    def fetch(self, number: int, num: int = 1) -> tuple[int, Any]:
        """`num`, and so many global batches from `number` on, on the mesh: one as it is, several as [B, num, ...]."""
        cfg = self.cfg

        def read(rows: np.ndarray) -> dict[str, np.ndarray]:
            at = functools.partial(
                batch_at, self.data, seed=cfg.seed, batch_size=cfg.batch_size, keys=self.method.reads, rows=rows
            )
            batches = [at(step=number + i) for i in range(num)]
            return batches[0] if num == 1 else jax.tree.map(lambda *xs: np.stack(xs, 1), *batches)

        return num, global_batch(read, cfg.batch_size, self.mesh)

    def advance(self, batches: tuple[int, Any]) -> Any:
        """Starts one call with what `fetch` gave, and puts its metrics in the queue when they are to be logged."""
        num, batch = batches
        # NumPy scalars: they travel with the call, so that the host neither waits nor compiles anything new.
        number, attempt = np.int32(self.step), np.int32(self.attempt)
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step):
            self.state, self.bad, metrics = self.program(num)(self.state, self.bad, batch, number, attempt)
        self.step += num
        self.data_step += num
        if self.step % self.cfg.log_every == 0 or self.step == self.cfg.steps:
            for leaf in jax.tree.leaves((metrics, self.bad)):
                leaf.copy_to_host_async()
            self.pending.append((self.step, metrics, self.bad))
        return metrics

    def settle(self, until: int) -> Verdict | None:
        """Writes the log lines up to the step `until`, and asks the watch about them."""
        while self.pending and self.pending[0][0] <= until:
            step, metrics, bad = self.pending.popleft()
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            values = {name: metrics[name] for name in sorted(metrics, key=lambda name: (name != "loss", name))}
            self.progress.show(values)
            timing = self.progress.timing(self.step - self.num_running())
            if verdict := self.report(step, values, jax.device_get(bad), self.cfg.log_every, timing):
                return verdict
        return self.watch.nonfinite(jax.device_get(self.bad)) if until == self.step else None

    def num_running(self) -> int:
        """How many of the steps that were started have not ended."""
        return sum(n for n, metrics in self.started if not all(x.is_ready() for x in jax.tree.leaves(metrics)))

    def report(
        self, step: int, values: dict[str, float], bad: Mapping[str, int], every: int, timing: Any = None
    ) -> Verdict | None:
        """Logs a line, which is due at the multiples of `every`, and judges it; not by the rules where it is not due.

        The line of a last step that is not due is dropped when the run goes on: it must leave no trace in the rules.
        """
        due = step % every == 0
        if self.cfg.rules:
            values = distributed.first(values)  # no two processes may judge by figures that each has measured
        self.record.write(step, values, self.attempt, due, timing)
        return self.watch.nonfinite(bad) or (self.watch.rules(step, values) if due else None)

    def milestones(self, stopping: bool) -> Verdict | None:
        """Evaluates, saves and samples when this step asks for it; nothing of a run that went wrong.

        In this order also when a signal stops the run: the checkpoint carries what a straight run's does, at the price
        of a longer wait at a step where an evaluation is due.
        """
        cfg, step = self.cfg, self.step
        evaluating = self.due(cfg.eval_every) and self.method.evaluate and self.data.spec.counts.get("validation", 0)
        sampling, saving = self.due(cfg.sample_every) and self.sample, self.due(cfg.save_every) or stopping
        if not (evaluating or sampling or saving):
            return None
        if verdict := self.settle(step):
            return verdict
        with self.progress.pause():
            if evaluating:
                between = self.save_early if jax.process_count() == 1 else None  # all processes save together
                metrics = {f"eval/{k}": v for k, v in self.evaluate(self.state, "validation", between=between).items()}
                self.checkpoints.discard(step)  # what `save_early` saved knows nothing of this evaluation
                bad = {name: -1 if np.isfinite(value) else step for name, value in metrics.items()}
                if verdict := self.report(step, metrics, bad, cfg.eval_every):
                    return verdict
            if saving and not self.save():
                return self.watch.state(step)
            if sampling:
                self.draw()
        return None

    def due(self, every: int) -> bool:
        """Whether what is done every so many steps is to be done at this one; 0 for never."""
        return bool(every) and (self.step % every == 0 or self.step == self.cfg.steps)

    def draw(self) -> None:
        """Draws and writes the samples of this step."""
        key = jax.random.fold_in(self.keys.sample, 0)  # the same noise each time, so that pictures compare
        samples = self.sample(self.state, key, self.cfg.num_samples)  # type: ignore[misc]
        self.record.write_samples(self.step, with_text(samples, self.data.spec))

    def save_early(self) -> None:
        """Saves amid an evaluation that goes on for long after a signal: the process may be killed before its end."""
        if 0 < self.signals.waited() > PATIENCE and self.step not in self.checkpoints.steps():
            self.save()

    def save(self) -> bool:
        metrics, extra = self.record.logged(self.step)
        info = {"data_step": self.data_step, "attempt": self.attempt, "rules": self.watch.counts(), "extra": extra}
        return self.checkpoints.save(self.step, self.state, info, metrics)

    def resume(self, warm: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sets the state of the newest whole checkpoint, or a fresh one where there is none; returns its info."""
        self.state = None  # the old arrays go before the new ones come
        found = self.checkpoints.restore(self.abstract)
        if found is None:
            init = jax.jit(self.method.init, out_shardings=shardings_of(self.abstract))
            batch = self.fetch(0)[1]
            state = init(self.keys.init, batch, warm) if warm else init(self.keys.init, batch)
            found = Restored(0, state, {"data_step": 0, "attempt": 0, "rules": [], "extra": []})
        self.checkpoints.set_aside(after=found.step)  # damaged ones, whose steps will be saved anew
        self.step, self.state = found.step, found.state
        self.data_step, self.attempt = found.info["data_step"], found.info["attempt"]
        self.watch.restore(found.info["rules"])
        return found.info

    def no_way_back(self) -> str:
        """Why a rollback is out of the question; empty where it is not."""
        if self.attempt >= self.cfg.max_rollbacks:
            return f"{self.cfg.max_rollbacks} rollbacks did not help"
        return "" if self.checkpoints.steps() else "there is no checkpoint to roll back to"

    def rollback(self, verdict: Verdict) -> None:
        """Goes back to the last checkpoint, and on with other noise and, if asked for, behind the data so far."""
        attempt, data_step = self.attempt + 1, self.data_step - (self.step - verdict.step)
        self.resume()
        self.attempt, self.bad = attempt, self.none_bad
        self.pending.clear()
        if self.cfg.skip_data:
            self.data_step = data_step
        self.progress.print(f"{verdict.why}: rolled back from step {verdict.step} to {self.step}, attempt {attempt}")
        self.record.write(self.step, {"rollback/from_step": verdict.step}, attempt)

    def stop(self, verdict: Verdict) -> Outcome:
        """Ends the run for good: an error where its numbers are no longer finite, else a saved state and the reason."""
        rollback = verdict.action == "rollback"
        what = self.no_way_back() if rollback else "the run has stopped"
        if verdict.nonfinite:
            self.fail(verdict, what)
        while later := self.settle(self.step):  # what was in flight when the rule fired
            if later.nonfinite:
                self.fail(later, "the run has stopped")
        if self.step not in self.checkpoints.steps() and not self.save():
            self.fail(self.watch.state(self.step), "the run has stopped")
        return Outcome(self.step, f"{verdict.why}; {what}" if rollback else verdict.why)

    def fail(self, verdict: Verdict, what: str) -> None:
        self.record.write_curves()
        steps = self.checkpoints.steps()
        back = f"the last checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint yet"
        hint = "go on with --train.on-nonfinite rollback, or " if verdict.action == "stop" and steps else ""
        raise NonFiniteError(
            f"{verdict.why}; {what}; {back}. To go on, {hint}start anew in another --workdir with a lower "
            "learning rate or clipped gradients"
        )
