"""Input pipeline.

Shuffled batches of images that are in memory: ours as the trainer reads them (`batch_at`, a thread that reads ahead,
arrays on the device), and PyTorch's `DataLoader` as most programs use it, image by image, and indexed by whole batches.
A unit is a batch.
"""

from functools import partial
from itertools import count

from benchmarks.program import Program

COUNT = 12_000  # images


def images(side: int, channels: int):
    """Random bytes."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (COUNT, side, side, channels), np.uint8)


def jaxgen(side: int, channels: int, batch: int) -> Program:
    """The trainer's batches."""
    import jax

    from jaxgen.config import MeshConfig
    from jaxgen.data.dataset import batch_at, in_memory
    from jaxgen.data.prefetch import Prefetch
    from jaxgen.sharding import global_batch, make_mesh

    data, mesh = in_memory({"train": {"image": images(side, channels)}}), make_mesh(MeshConfig())

    def fetch(step: int):
        read = lambda rows: batch_at(data, seed=0, step=step, batch_size=batch, keys=("image",), rows=rows)
        return global_batch(read, batch, mesh)

    prefetch = Prefetch(fetch, zip(count(), strict=False))
    return Program(lambda: jax.block_until_ready(prefetch.get()))


def torch_program(side: int, channels: int, batch: int, whole: bool) -> Program:
    """PyTorch's loader in the same process, which on one core is its fastest."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    data = TensorDataset(torch.from_numpy(images(side, channels)))
    if whole:
        sampler = BatchSampler(RandomSampler(data), batch, drop_last=True)
        loader = DataLoader(data, sampler=sampler, batch_size=None)
    else:
        loader = DataLoader(data, batch_size=batch, shuffle=True, drop_last=True)
    batches = (found for _ in count() for found in loader)
    return Program(lambda: next(batches))


SHAPES = ((28, 1, 64), (32, 3, 16), (64, 3, 64))
ROWS = {
    f"{side}×{side}×{channels}, batch {batch}": {"side": side, "channels": channels, "batch": batch}
    for side, channels, batch in SHAPES
}
WORK = {row: (options["batch"], "images") for row, options in ROWS.items()}
PROGRAMS = {
    "jaxgen": jaxgen,
    "torch": partial(torch_program, whole=False),
    "torch, whole batches": partial(torch_program, whole=True),
}
