"""Orbax's checkpoint manager, with clear errors from the disk and a thicker skin."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxgen.report.atomic import naming

# Where checkpoints go to be deleted: one that a kill has left half deleted must not look like a step.
DELETED = "deleted"


class Step(ocp.path.step.Metadata):
    """A step whose time is its directory's: no policy here goes by times, and the file that has them may be damaged."""

    @property
    def commit_timestamp(self) -> datetime.datetime:
        """When the directory was last changed."""
        return datetime.datetime.fromtimestamp(self.path.stat().mtime, tz=datetime.UTC)


class Names(type(ocp.path.step.standard_name_format())):  # type: ignore[misc]
    """The directories of steps, as Orbax names them."""

    def find_all(self, base_path: Any) -> Iterator[Step]:
        """All steps below a directory."""
        for found in super().find_all(base_path):
            yield Step(found.step, found.path)


class Manager(ocp.CheckpointManager):
    """Differs in what it does where the disk fails, and where what stands beside its arrays is damaged.

    A full disk is an OSError that names the directory; TensorStore makes a ValueError of it. And Orbax's manager could
    not even be opened where the metrics or (see `Step`) the times of one checkpoint, however old, are damaged. What its
    options say is to be deleted lies in `DELETED` until the next wait for a save, with which a restore and every save
    begin.
    """

    def save(self, *args: Any, **kwargs: Any) -> bool:
        """As Orbax's; OSError also for the save before, which went on in the background."""
        with self._disk_errors():
            return super().save(*args, **kwargs)

    def wait_until_finished(self) -> None:
        """As Orbax's; OSError for the save in the background. Then clears away what it has put to be deleted."""
        with self._disk_errors():
            super().wait_until_finished()
        if self._options.cleanup_tmp_directories and jax.process_index() == 0:
            shutil.rmtree(self.directory / DELETED, ignore_errors=True)

    def close(self) -> None:
        """As Orbax's; OSError for the save in the background."""
        with self._disk_errors():
            super().close()

    def read(self, step: int, state: ocp.args.PyTreeRestore) -> tuple[Any, dict[str, Any]]:
        """The arrays and the plain values of a checkpoint; OSError where the disk fails."""
        # By the handlers themselves: the manager would wait for all processes, one of which may have met damage.
        place = self.directory / str(step)
        with self._disk_errors():
            arrays = ocp.PyTreeCheckpointHandler().restore(place / "state", args=state)
            return arrays, ocp.JsonCheckpointHandler().restore(place / "info", args=ocp.args.JsonRestore())

    def arrays(self, step: int) -> Any:
        """The tree of shapes and dtypes of the saved state."""
        # Not by `item_metadata`, which reads the metrics as well, and fails where only they are damaged.
        with self._disk_errors():
            return ocp.PyTreeCheckpointHandler().metadata(self.directory / str(step) / "state").tree

    def metrics(self, step: int) -> Any:
        """What the choice of the best goes by; None where there is nothing, or nothing that can be trusted."""
        checkpoint = self.directory / str(step)
        try:
            found = super().metrics(step)
            again = json.loads((checkpoint / "info" / "metadata").read_text())
            if found == again.get("metrics", found):  # checkpoints of earlier versions have them once
                return found
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError):
            pass
        warnings.warn(f"the metrics of checkpoint {checkpoint} are damaged: it is not taken for the best", stacklevel=2)
        return None

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            with naming(self.directory):
                yield
        except ValueError as error:
            if not (found := re.search(r"os_error_code='(\d+)'", str(error))):
                raise
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(self.directory)) from error
