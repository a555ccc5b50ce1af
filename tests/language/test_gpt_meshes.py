"""A language model's step on 8 devices: the numbers of one, a layer gathered at a time, no example on another device.

See `tests/test_meshes.py` for how the programs are read.
"""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

import hlo
from jaxgen import program
from jaxgen.config import MeshConfig
from jaxgen.data import Spec
from jaxgen.language import gpt
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.program import abstract_state, keys_of, late, shardings_of
from jaxgen.sharding import BATCH, global_batch, make_mesh

SIZE, PRIME, LENGTH = 88, 11, 8  # the batch is the only dimension that 11 divides
NET = TransformerConfig(
    num_layers=12, width=16, num_heads=4, num_kv_heads=2, hidden=32, context=LENGTH, vocab_multiple=16
)
CONFIG = gpt.Config(NET, optimizer=AdamWConfig(3e-3, 0, grad_clip=1e9))
KEYS = ("tokens", "segment")
SPEC = Spec(dict.fromkeys(KEYS, (LENGTH,)), dict.fromkeys(KEYS, "int32"), {}, {}, {"tokens": (257,)}, tokenizer="bytes")
ALL = (2, 2, 2)
SHAPES = [ALL, *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((2, 4, 1), (4, 1, 2), (1, 2, 4)))]
on_meshes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def read(rows):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 256, (SIZE, LENGTH)).astype(np.int32)
    segment = np.sort(rng.integers(1, 3, (SIZE, LENGTH)), 1).astype(np.int32)
    return {"tokens": tokens[rows], "segment": segment[rows]}


@functools.cache
def first_state():
    state = jax.jit(gpt.make(CONFIG, SPEC).init)(keys_of(0).init, read(slice(None)))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape, np.float32), state["params"])
    return jax.device_get({**state, "params": params})


class Run:
    """A state on a mesh, the program of its step, and the metrics of two steps."""

    def __init__(self, shape):
        axes = MeshConfig(*shape, min_shard_size=64)
        mesh = make_mesh(axes, jax.devices()[: math.prod(shape)])
        method = gpt.make(CONFIG, SPEC)
        quick = lambda mesh: late(mesh) | {"xla_backend_optimization_level": "0"}
        with jax.set_mesh(mesh), pytest.MonkeyPatch.context() as patch:
            patch.setattr(program, "late", quick)
            abstract = abstract_state(method, SPEC, SIZE, mesh, axes)
            batch = SPEC.batch(SIZE, method.reads)
            sharding = NamedSharding(mesh, BATCH)
            batch = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for k, x in batch.items()}
            step, bad = program.compile_step(method, abstract, batch, keys_of(0).step, mesh)
        self.text = step.as_text()
        self.state = jax.device_put(first_state(), shardings_of(abstract))
        state, data = jax.tree.map(lambda x: x.copy(), self.state), global_batch(read, SIZE, mesh)
        self.metrics = []
        for number in range(2):
            state, bad, metrics = step(state, bad, data, np.int32(number), np.int32(0))
            self.metrics.append({name: float(value) for name, value in metrics.items()})


run_on = functools.cache(Run)


@on_meshes
def test_losses_and_gradients_are_those_of_one_device(shape):
    for ours, theirs in zip(run_on(shape).metrics, run_on((1, 1, 1)).metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@on_meshes
def test_no_example_leaves_its_device(shape):
    """Only sums over what `tensor` splits do."""
    text = run_on(shape).text
    assert len(hlo.crossing(text)) > 3
    assert [(op, dims) for op, dims in hlo.crossing(text) if math.prod(dims) % PRIME == 0] == []
    sums = [dims for _, dims in hlo.crossing(text, ("all-reduce",)) if math.prod(dims) % PRIME == 0]
    assert bool(sums) == (shape[2] > 1)


@on_meshes
def test_one_layers_parameters_are_gathered_at_a_time(shape):
    """And the embedding, with a copy that is turned round for the logits; never the stack of all layers."""
    run = run_on(shape)
    params = run.state["params"]
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    layer = size(params["blocks"]) / NET.num_layers
    most = 2 * size(params["embed"]) + layer
    peak = hlo.peak_of_gathered(run.text)
    assert shape[1] == 1 or 0 < peak <= most / min(shape[2], 2)
    assert most < size(params) / 2
    kept = {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(params["blocks"]) if x.ndim == 3}
    assert all(math.prod(s) <= NET.num_layers * 16 * 32 / (shape[1] * min(shape[2], 2)) for s in kept)
