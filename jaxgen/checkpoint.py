"""Orbax checkpoints that are checked: asynchronous, the best and the last k, back on any mesh, damage noticed.

Orbax restores a file with a flipped byte without a word, and counts an empty step directory as the latest step. So
every checkpoint carries a checksum of each array, computed on the devices, and restoring walks back to the newest
whole one.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxgen import distributed
from jaxgen.checksum import by_path, digest, text_checksum
from jaxgen.config import closest
from jaxgen.manager import DELETED, Manager, Names


class Restored(NamedTuple):
    """A checkpoint: the step it was saved at, the state's arrays, and the plain values saved beside them."""

    step: int
    state: Any
    info: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they lie; made when the first is saved.
      keep_last: newest checkpoints to keep.
      best_metric: the metric whose best checkpoint is kept as well.
      best_mode: whether the best is the lowest ("min") or highest ("max").
      writing: whether this is the one process (group) that trains: it clears away what a killed save has left.
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int = 2,
        best_metric: str = "eval/loss",
        best_mode: str = "min",
        *,
        writing: bool = False,
    ):
        self.directory, self.best_metric = directory.absolute(), best_metric
        worst = math.inf if best_mode == "min" else -math.inf  # of checkpoints that were saved with another best_metric
        value = lambda metrics: metrics.get(best_metric, worst)
        best = checkpoint_managers.BestN(
            get_metric_fn=value, reverse=best_mode == "min", n=1, keep_checkpoints_without_metrics=False
        )
        policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep_last), best])
        self._manager = Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                step_name_format=Names(),
                best_fn=value,
                best_mode=best_mode,
                preservation_policy=policy,
                cleanup_tmp_directories=writing,
                todelete_subdir=DELETED if writing else None,
            ),
            item_handlers={"state": ocp.PyTreeCheckpointHandler(), "info": ocp.JsonCheckpointHandler()},
        )

    def steps(self) -> list[int]:
        """The steps that have a directory, oldest first; not all need be whole."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, info: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Saves in the background, if every number of `state` is finite.

        Args:
          step: optimisation steps done.
          state: the pytree of arrays.
          info: plain values that JSON can hold.
          metrics: the latest metrics, for the choice of the best.

        Returns:
          Whether the state was finite; if not, nothing was written.

        Raises:
          ValueError: there is a checkpoint of this step or a later one, which `set_aside` would move away.
          OSError: the disk is full or cannot be written, also of the save before, which went on in the background.
        """
        checksums, finite = digest(state)
        if not finite:
            return False
        value = float((metrics or {}).get(self.best_metric, math.nan))
        best = {self.best_metric: value} if math.isfinite(value) else None
        # The metrics stand here a second time, so that a change of either is seen.
        item: dict[str, Any] = {"info": dict(info), "metrics": best, "checksums": checksums}
        item["checksum"] = text_checksum(item)
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), info=ocp.args.JsonSave(item))
        saved = self._manager.save(step, args=args, metrics=best)
        if not saved:  # Orbax passes over it without a word
            raise ValueError(f"step {step} is not saved: {self.directory} has later steps or this one: {self.steps()}")
        return True

    def restore(self, abstract: Any, step: int | None = None) -> Restored | None:
        """The newest whole checkpoint, or that of `step`, as arrays with the shapes and shardings of `abstract`.

        Returns:
          None when there is none at all.

        Raises:
          ValueError: the checkpoint's arrays are not those of `abstract` (each is named with both shapes), `step`
            has no checkpoint, or every checkpoint is damaged.
        """

        def read(candidate: int) -> tuple[Restored, dict[str, int]]:
            check_shapes(self.directory / str(candidate), self._manager.arrays(candidate), abstract)
            return self._read(candidate, abstract, whole=True)

        return self._newest(read, step)

    def restore_subtree(
        self, subtree: str, shardings: Callable[[Any], Any], step: int | None = None
    ) -> Restored | None:
        """Only `subtree` (such as `params` or `ema/encoder`) of the newest whole checkpoint, or of that of `step`.

        Args:
          subtree: path of the subtree.
          shardings: `(abstract subtree) -> shardings` to put the arrays on.
          step: which checkpoint; None takes the newest whole one.

        Raises:
          ValueError: as `restore`, or there is no such subtree.
        """
        names = subtree.split("/")

        def read(candidate: int) -> tuple[Restored, dict[str, int]]:
            tree = self._manager.arrays(candidate)
            for name in names:
                if not isinstance(tree, Mapping) or name not in tree:
                    there = sorted(tree) if isinstance(tree, Mapping) else []
                    raise MismatchError(f"{self.directory / str(candidate)} has no {subtree}{closest(name, there)}")
                tree = tree[name]
            abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
            abstract = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                abstract,
                shardings(abstract),
            )
            for name in reversed(names):
                abstract = {name: abstract}
            return self._read(candidate, abstract, whole=False)

        if (found := self._newest(read, step)) is None:
            return None
        return found._replace(state=functools.reduce(lambda tree, name: tree[name], names, found.state))

    def _newest(self, read: Callable[[int], tuple[Restored, Any]], step: int | None) -> Restored | None:
        self.wait()
        steps = distributed.first(self.steps())  # a file system may show them late to some
        if step is not None and step not in steps:
            raise ValueError(f"no checkpoint of step {step} in {self.directory}; there are: {steps}")
        tried = [step] if step is not None else list(reversed(steps))
        for candidate in tried:
            try:
                # Each process reads the arrays of its own devices, and may be the only one to meet the damage.
                return self._checked(*distributed.together(functools.partial(read, candidate)))
            except (MismatchError, distributed.FailedElsewhere, MemoryError, jax.errors.JaxRuntimeError):
                raise  # says nothing about the files
            except Exception as error:  # noqa: BLE001 — whatever a damaged file makes Orbax raise
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    raise  # a disk or network that fails now may be back later
                message = str(error).partition("\n")[0][:200]
                warnings.warn(
                    f"checkpoint {self.directory / str(candidate)} is damaged: {type(error).__name__}: {message}",
                    stacklevel=3,
                )
        if tried:
            raise ValueError(
                f"no whole checkpoint in {self.directory}; tried: {tried}. Nothing was deleted: put a copy back, or "
                "start anew in another --workdir"
            )
        return None

    def _read(self, step: int, abstract: Any, whole: bool) -> tuple[Restored, dict[str, int]]:
        """What this process's devices hold of a checkpoint, and the checksums of all of it; waits for no process."""
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
        state_args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=not whole)
        state, item = self._manager.read(step, state_args)
        if item.pop("checksum", None) != text_checksum(item) and item.get("info_checksum") != text_checksum(
            item["info"]
        ):
            raise ValueError("checksum of the info differs")
        return Restored(step, state, item["info"]), item["checksums"]

    def _checked(self, found: Restored, checksums: Mapping[str, int]) -> Restored:
        own, _ = digest(found.state)
        if wrong := [path for path, value in own.items() if value != checksums.get(path)]:
            raise ValueError(f"checksum of {wrong[0]} differs ({len(wrong)} of {len(own)} arrays)")
        return found

    def discard(self, step: int) -> None:
        """Deletes the checkpoint of `step`, where there is one."""
        self.wait()
        if step in self.steps():
            self._manager.delete(step)

    def best_step(self) -> int | None:
        """The step that is best by the metric, or None when no checkpoint carries the metric."""
        self.wait()
        with_metric = [s for s in self.steps() if self.best_metric in (self._manager.metrics(s) or {})]
        return self._manager.best_step() if with_metric else None

    def set_aside(self, after: int) -> None:
        """Moves checkpoints behind step `after` away, to `../set_aside/`: the run will write those steps anew."""
        if not (steps := [s for s in self.steps() if s > after]):
            return
        distributed.together(lambda: self._move(steps) if distributed.is_first() else None)
        self._manager.reload()

    def _move(self, steps: list[int]) -> None:
        for step in steps:
            target = self.directory.parent / "set_aside" / str(step)
            target.parent.mkdir(exist_ok=True)
            number = 1
            while target.exists():
                target = target.with_name(f"{step}.{number}")
                number += 1
            (self.directory / str(step)).rename(target)

    def wait(self) -> None:
        """Blocks until a save under way is on disk; raises what it met there."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a save under way, and lets the directory go."""
        self._manager.close()


class MismatchError(ValueError):
    """A checkpoint holds other arrays than the ones asked for."""


def check_shapes(checkpoint: Path, tree: Any, abstract: Any) -> None:
    """Raises a MismatchError that lists the arrays that are missing, too many, or of another shape or dtype."""
    saved = by_path(tree)
    asked = by_path(abstract)
    lines = [f"{p}: not in the checkpoint" for p in asked if p not in saved]
    lines += [f"{p}: in the checkpoint only" for p in saved if p not in asked]
    for path in asked.keys() & saved.keys():
        old, new = saved[path], asked[path]
        if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
            new = jax.eval_shape(jax.random.key_data, new)
        if tuple(old.shape) != tuple(new.shape) or old.dtype != new.dtype:
            lines.append(
                f"{path}: {tuple(old.shape)} {old.dtype} in the checkpoint, {tuple(new.shape)} {new.dtype} asked for"
            )
    if lines:
        more = f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise MismatchError(f"checkpoint {checkpoint} does not fit:\n  " + "\n  ".join(sorted(lines)[:20]) + more)
