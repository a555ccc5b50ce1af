"""Checkpoints.

The state of the U-Net of `unet_train` at width 64: parameters, Adam's moments and the weights' average, all random, in
float32. Ours saves in the background, with a checksum of each array; `torch.save` is done when it returns. Wall time.
The bytes are those of the checkpoint.
"""

from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from benchmarks import unets
from benchmarks.program import Program

SHAPE, COPIES = unets.Shape(64), 4  # the parameters, two moments, the average


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def jaxgen(what: str) -> Program:
    """Ours: the manager that the trainer uses."""
    import jax
    import numpy as np

    from jaxgen.checkpoint import Checkpoints
    from jaxgen.config import MeshConfig
    from jaxgen.program import abstract_state
    from jaxgen.sharding import make_mesh

    method, spec = unets.jaxgen_method(SHAPE)
    abstract = abstract_state(method, spec, SHAPE.batch, make_mesh(MeshConfig()), MeshConfig())
    rng = np.random.default_rng(0)

    def fill(leaf):
        value = rng.normal(size=leaf.shape).astype(np.float32) if leaf.dtype == np.float32 else np.zeros(leaf.shape)
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    state, folder = jax.tree.map(fill, abstract), Path(mkdtemp(dir="."))
    checkpoints, saved = Checkpoints(folder, keep_last=1, writing=True), {"step": 0}

    def save() -> None:
        saved["step"] += 1
        checkpoints.save(saved["step"], state, {})

    def save_whole() -> None:
        save()
        checkpoints.wait()

    save_whole()
    runs = {
        "blocked": Program(save, after=checkpoints.wait),
        "save": Program(save_whole),
        "restore": Program(lambda: jax.block_until_ready(checkpoints.restore(abstract).state)),
    }
    return Program(runs[what].run, lambda: {"bytes": size(folder / str(saved["step"]))}, runs[what].after)


def torch_program(what: str) -> Program:
    """PyTorch's files."""
    import torch

    folder = Path(mkdtemp(dir="."))
    params = unets.diffusers_model(SHAPE).state_dict()
    state = [{name: torch.randn_like(x) for name, x in params.items()} for _ in range(COPIES)]
    save, load = partial(torch.save, state, folder / "state.pt"), partial(torch.load, folder / "state.pt")
    save()
    return Program(load if what == "restore" else save, lambda: {"bytes": size(folder)})


ROWS = {
    "save, time blocked": {"what": "blocked"},
    "save, until it is written": {"what": "save"},
    "restore": {"what": "restore"},
}
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program}
CLOCK = "wall"
