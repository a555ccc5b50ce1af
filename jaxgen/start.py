"""What a run starts from: the subtrees of other runs that `init_from` names."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

from jaxgen import runs
from jaxgen.checkpoint import Checkpoints
from jaxgen.checksum import by_path
from jaxgen.config import Experiment, closest
from jaxgen.data.dataset import Spec
from jaxgen.method import Method
from jaxgen.sharding import state_shardings


def restore_sources(config: Experiment, method: Method, spec: Spec, abstract: Any, mesh: Mesh) -> dict[str, Any]:
    """The subtrees by their names in `init_from`, restored onto `mesh`.

    Args:
      config: the experiment.
      method: the method that starts from them.
      spec: the data's description.
      abstract: the method's state without a warm start, whose layout the warm start keeps.
      mesh: where the arrays go.

    Raises:
      FileNotFoundError: a named directory holds no run.
      ValueError: the method takes no such name, the run's text has another tokenizer, the run has no checkpoint or no
        such subtree, or its arrays do not fit (each is named with both shapes and dtypes).
    """

    def shardings(tree: Any) -> Any:
        return state_shardings(tree, mesh, (), config.mesh.min_shard_size)

    warm = {}
    for name, text in config.init_from.items():
        if name not in method.starts_from:
            raise ValueError(f"this method starts from no {name!r}{closest(name, method.starts_from)}")
        run, subtree = runs.source(text)
        other = runs.read_config(run).get("spec", {}).get("tokenizer", "")
        if spec.tokenizer and other and other != spec.tokenizer:
            raise ValueError(f"{run} has another tokenizer than this data: give --data.tokenizer run:{run}")
        checkpoints = Checkpoints(run / runs.CHECKPOINTS)
        found = checkpoints.restore_subtree(subtree, shardings)
        checkpoints.close()
        if found is None:
            raise ValueError(f"{run} has no checkpoint to start from; train it first")
        warm[name] = found.state
    if warm:
        batch = spec.batch(config.train.batch_size, method.reads)
        try:
            given = by_path(jax.eval_shape(method.init, jax.random.key(0), batch, warm))
        except KeyError as missing:
            raise ValueError(
                f"what init_from names ({', '.join(warm)}) does not fit: it has no {missing}, so the run is of another "
                "method than the one this method starts from, or the subtree is another one"
            ) from missing
        asked = by_path(abstract)
        layout = lambda leaves, p: f"{tuple(leaves[p].shape)} {leaves[p].dtype}" if p in leaves else "nothing"
        wrong = [p for p in sorted(given | asked) if layout(given, p) != layout(asked, p)]
        if wrong:
            lines = [f"{p}: {layout(given, p)} from there, {layout(asked, p)} in this method" for p in wrong[:20]]
            raise ValueError(f"what init_from names ({', '.join(warm)}) does not fit:\n  " + "\n  ".join(lines))
    return warm
