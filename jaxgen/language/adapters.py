"""Adapters of several runs of `lora` on one base, each row of a batch drawn with its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.checksum import by_path
from jaxgen.data import condition
from jaxgen.language import lora
from jaxgen.trained import Run, layout, open_run, restore


def rows(run: Run, others: Sequence[Path], num_prompts: int, num: int) -> dict[str, np.ndarray]:
    """Which of the adapters each of `num` rows takes, as a condition: spread as prompts are.

    Raises:
      ValueError: the run's method cannot hold several, or there are not as many as prompts.
    """
    if "adapter" not in run.method.conditions:
        raise ValueError(f"{run.workdir} takes no --adapter: it is no run of lora that adapts dense layers alone")
    if num_prompts not in (0, len(others)):
        raise ValueError(f"{len(others)} --adapter for {num_prompts} --prompt: each prompt needs one")
    return condition.spread([{"adapter": np.asarray(i, np.int32)} for i in range(len(others))], num)


def with_sets(run: Run, mesh: Mesh, state: Any, others: Sequence[Path]) -> Any:
    """The run's state with the adapters of `others` in it, see `lora.with_sets`; of an abstract state, its shapes.

    Raises:
      FileNotFoundError: there is no such run.
      ValueError: a run adapts other parameters, or another base.
    """
    if isinstance(jax.tree.leaves(state)[0], jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda state: lora.with_sets(state, [state["params"]] * len(others)), state)
    return lora.with_sets(state, [_params(run, mesh, state, folder) for folder in others])


def _params(run: Run, mesh: Mesh, state: Any, folder: Path) -> Any:
    other, own = open_run(folder), run.config.method
    if not isinstance(other.config.method, lora.Config) or any(
        getattr(own, name) != getattr(other.config.method, name) for name in ("rank", "alpha")
    ):
        raise ValueError(f"{folder} has no adapters like those of {run.workdir}: the same rank and alpha")
    # The base's own options (its optimizer, say) may differ, the arrays may not.
    found = restore(other, layout(other, mesh), "last").state
    theirs, ours = by_path(found["base"]), by_path(state["base"])
    if theirs.keys() != ours.keys() or not all(bool(jnp.array_equal(x, ours[path])) for path, x in theirs.items()):
        raise ValueError(f"{folder} adapts another base than {run.workdir}")
    shapes = lambda tree: {path: x.shape for path, x in by_path(tree).items()}
    if wrong := sorted(shapes(found["params"]).items() ^ shapes(state["params"]).items()):
        raise ValueError(f"{folder} trains other parameters than {run.workdir}: {', '.join(dict(wrong))}")
    return found["params"]
