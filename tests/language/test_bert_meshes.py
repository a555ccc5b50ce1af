"""BERT's step on 8 devices: the numbers of one, and no example on another device; see `test_gpt_meshes.py`."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

import hlo
from jaxgen import program
from jaxgen.config import MeshConfig
from jaxgen.data import Spec, tokenizer
from jaxgen.language import bert
from jaxgen.nets.bert import BERT
from jaxgen.optimizer import AdamWConfig
from jaxgen.program import abstract_state, keys_of, late, shardings_of
from jaxgen.sharding import BATCH, global_batch, make_mesh

SIZE, PRIME, LENGTH = 88, 11, 16  # the batch is the only dimension that 11 divides
NET = dataclasses.replace(BERT, num_layers=2, width=16, hidden=32, context=LENGTH, vocab_multiple=16)
CONFIG = bert.Config(NET, optimizer=AdamWConfig(3e-3, 0, grad_clip=1e9))
KEYS = ("tokens", "segment", "types")
SPEC = Spec(
    {**dict.fromkeys(KEYS, (LENGTH,)), "label": ()},
    dict.fromkeys((*KEYS, "label"), "int32"),
    {},
    {},
    {},
    tokenizer=tokenizer.train("wordpiece", 100, ["the quick brown fox jumps over the lazy dog"] * 4).saved,
)


def read(rows):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, (SIZE, LENGTH)).astype(np.int32)
    segment = (np.arange(LENGTH) < rng.integers(8, LENGTH + 1, (SIZE, 1))).astype(np.int32)
    batch = {"tokens": tokens, "segment": segment, "types": (tokens > 25) * segment, "label": segment[:, -1]}
    return {key: x[rows] for key, x in batch.items()}


def run(shape):
    """The program of a step on a mesh, and the metrics of two."""
    axes = MeshConfig(*shape, min_shard_size=64)
    mesh, method = make_mesh(axes, jax.devices()[: math.prod(shape)]), bert.make(CONFIG, SPEC)
    quick = lambda mesh: late(mesh) | {"xla_backend_optimization_level": "0"}
    with jax.set_mesh(mesh), pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "late", quick)
        abstract = abstract_state(method, SPEC, SIZE, mesh, axes)
        sharding = NamedSharding(mesh, BATCH)
        batch = SPEC.batch(SIZE, method.reads)
        batch = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for k, x in batch.items()}
        step, bad = program.compile_step(method, abstract, batch, keys_of(0).step, mesh)
        state = jax.device_put(jax.jit(method.init)(keys_of(0).init, read(slice(None))), shardings_of(abstract))
        data, lines = global_batch(read, SIZE, mesh), []
        for number in range(2):
            state, bad, metrics = step(state, bad, data, np.int32(number), np.int32(0))
            lines.append({name: float(value) for name, value in metrics.items()})
    return step.as_text(), lines


@pytest.mark.slow
def test_a_step_on_eight_devices_is_that_of_one():
    (text, many), (_, one) = run((2, 2, 2)), run((1, 1, 1))
    for ours, theirs in zip(many, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert len(hlo.crossing(text)) > 3
    # But for the likeliest token of each half of the vocabulary, at the places of a device's own rows.
    halves = (SIZE // 4, int(CONFIG.mask_rate * LENGTH) + 1, 2)
    assert {dims for _, dims in hlo.crossing(text) if math.prod(dims) % PRIME == 0} <= {halves}
