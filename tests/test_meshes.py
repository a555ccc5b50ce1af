"""Steps on 8 devices, diffusion's above all: the numbers of one, a state that is split, a program that says so.

The compiled programs are read (`hlo.py`). XLA's CPU backend is told to gather late, as in training
(`program.late`); what other backends schedule is theirs to say.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import harness
import hlo
from jaxgen import catalog, program
from jaxgen.config import MeshConfig
from jaxgen.data import Images, batch_at
from jaxgen.diffusion import ddpm
from jaxgen.flows import glow
from jaxgen.flows.multiscale import FlowConfig
from jaxgen.method import descend
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.program import abstract_state, keys_of, late, shardings_of
from jaxgen.sharding import BATCH, global_batch, lay_out, make_mesh

# The batch is the only dimension that 11 divides: an array whose size it divides holds examples.
SIZE, PRIME = 88, 11
NET = UNetConfig(width=16, multipliers=(1,), attention_resolutions=(8,), num_heads=2, num_groups=4)
CONFIG = ddpm.Config(net=NET, optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=0, grad_clip=1e9))
DATA = Images("digits").load()

FSDP, TENSOR, BOTH, ALL = (2, 4, 1), (4, 1, 2), (1, 2, 4), (2, 2, 2)
on_meshes = pytest.mark.parametrize("shape", [FSDP, TENSOR, BOTH, ALL], ids=lambda shape: "x".join(map(str, shape)))


def perturbed(params):
    """Parameters without the zeros that hide most of the network at initialisation."""
    leaves, layout = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return layout.unflatten([x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


@functools.cache
def first_state():
    """The state that every run starts from."""
    method = catalog.make(CONFIG, DATA.spec)
    batch = batch_at(DATA, seed=0, step=0, batch_size=SIZE, keys=("image",))
    state = jax.jit(method.init)(keys_of(0).init, batch)
    return jax.device_get({**state, "params": perturbed(state["params"])})


class Run:
    """A state on a mesh and the program of its step."""

    def __init__(self, config: ddpm.Config, shape: tuple[int, int, int], num: int = 1):
        self.num = num
        axes = MeshConfig(*shape, min_shard_size=64)
        mesh = self.mesh = make_mesh(axes, jax.devices()[: math.prod(shape)])
        method = catalog.make(config, DATA.spec)
        with jax.set_mesh(mesh):
            self.abstract = abstract_state(method, DATA.spec, SIZE, mesh, axes)
            batch = DATA.spec.batch(SIZE, method.reads)
            sharding = NamedSharding(mesh, BATCH)
            batch = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for k, x in batch.items()}
            self.program, self.bad = program.compile_step(method, self.abstract, batch, keys_of(0).step, mesh, num)
        self.text = self.program.as_text()
        self.state = jax.device_put(first_state(), shardings_of(self.abstract))

    def read(self, step: int):
        def rows(rows):
            at = [batch_at(DATA, seed=0, step=step + i, batch_size=SIZE, keys=("image",), rows=rows) for i in range(2)]
            return at[0] if self.num == 1 else jax.tree.map(lambda *xs: np.stack(xs, 1), *at)

        return global_batch(rows, SIZE, self.mesh)

    @functools.cached_property
    def metrics(self) -> dict[int, dict[str, float]]:
        """Loss and norm of the gradient of four steps, or of the last of each call's."""
        found, state, bad = {}, jax.tree.map(jnp.copy, self.state), self.bad
        for step in range(0, 4, self.num):
            state, bad, metrics = self.program(state, bad, self.read(step), np.int32(step), np.int32(0))
            found[step + self.num] = {name: float(value) for name, value in metrics.items()}
        return found


@functools.cache
def one() -> Run:
    return Run(CONFIG, (1, 1, 1))


@pytest.fixture(scope="module")
def run_on():
    """Each mesh's run, made once; of `BOTH` with accumulation and rematerialised blocks, of `ALL` two steps a call."""
    every = {"accumulate": 2, "net": dataclasses.replace(NET, remat=True)}

    def run(shape):
        config = dataclasses.replace(CONFIG, **(every if shape == BOTH else {}))
        return Run(config, shape, num=2 if shape == ALL else 1)

    return functools.cache(run)


@pytest.fixture
def printed(capfd):
    """What was printed since it was last called; compiling anew, since a program from the cache has no warnings."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield lambda: capfd.readouterr().err
    jax.config.update("jax_enable_compilation_cache", True)


@on_meshes
def test_no_involuntary_rematerialization(run_on, printed, shape):
    run_on(shape)
    assert "rematerialization" not in printed()


def test_involuntary_rematerialization_would_be_seen(printed):
    rearrange = jax.jit(lambda x: jax.lax.with_sharding_constraint(jnp.sin(x), P(("tensor", "data"))))
    mesh = make_mesh(MeshConfig(2, 2, 2))
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, P(None, ("data", "fsdp", "tensor"))))
    with jax.set_mesh(mesh):
        rearrange.lower(x).compile()
    assert "Involuntary full rematerialization" in printed()


@on_meshes
def test_the_losses_and_gradients_of_one_device(run_on, shape):
    """To 1e-5 over four steps of every parameter; on 1×2×4 the heads do not divide, and are not split."""
    found = run_on(shape).metrics
    assert list(found)[-1] == 4
    for step, metrics in found.items():
        assert metrics == pytest.approx(one().metrics[step], rel=1e-5)


def held(state, device) -> int:
    shards = [shard for x in jax.tree.leaves(state) for shard in x.addressable_shards if shard.device == device]
    return sum(shard.data.nbytes for shard in shards)


@pytest.mark.parametrize(("shape", "share"), [(FSDP, 0.27), (TENSOR, 0.53), (BOTH, 0.19), (ALL, 0.28)])
def test_each_device_holds_its_share_of_the_state(run_on, shape, share):
    """Parameters, both moments and the average; biases, and under `tensor` the layers without a rule, are whole."""
    state = run_on(shape).state
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    shares = {held(state, device) / whole for device in jax.devices()}
    assert len(shares) == 1 and shares.pop() < share


@on_meshes
def test_moments_and_average_lie_like_their_parameters(run_on, shape):
    state = run_on(shape).state
    layout = lambda tree: jax.tree.map(lambda x: x.sharding, tree)
    expected = layout(state["params"])
    assert layout(state["ema"]) == expected
    for name in ("mu", "nu"):
        assert layout(optax.tree_utils.tree_get(state["opt_state"], name)) == expected


@on_meshes
def test_no_example_leaves_its_device(run_on, shape):
    """Only sums do: under `tensor` those over the channels that a device holds, otherwise none with a batch in it."""
    text = run_on(shape).text
    assert len(hlo.crossing(text)) > 3  # parameters do, and gradients
    assert [(op, dims) for op, dims in hlo.crossing(text) if math.prod(dims) % PRIME == 0] == []
    sums = [dims for _, dims in hlo.crossing(text, ("all-reduce",)) if math.prod(dims) % PRIME == 0]
    assert bool(sums) == (shape != FSDP)


def block_bytes(params) -> int:
    """Bytes of the parameters of the largest block: its residual part and its attention."""
    blocks: dict[str, int] = {}
    for name, tree in params["params"]["unet"].items():
        block = name.removesuffix("_attention")
        blocks[block] = blocks.get(block, 0) + sum(x.nbytes for x in jax.tree.leaves(tree))
    return max(blocks.values())


@pytest.mark.parametrize("shape", [FSDP, BOTH, ALL], ids=lambda shape: "x".join(map(str, shape)))
def test_one_blocks_parameters_are_gathered_at_a_time(run_on, shape):
    """In the schedule of the CPU's program, copies in another layout included; of every block in turn, twice.

    On `BOTH` also in the loop that accumulates gradients, out of which XLA would move what does not change in it, and
    on `ALL` in the loop over the steps of a call. Half of a block at most where `tensor` splits it.
    """
    run = run_on(shape)
    params = run.state["params"]
    gathered = [dims for op, dims in hlo.crossing(run.text) if op == "all-gather"]
    split = [x for x in jax.tree.leaves(params) if "fsdp" in str(x.sharding.spec)]
    assert len(gathered) > 1.5 * len(split)  # in the forward and in the backward pass
    assert 0 < hlo.peak_of_gathered(run.text) <= block_bytes(params) / min(shape[2], 2)
    assert block_bytes(params) < sum(x.nbytes for x in jax.tree.leaves(params)) / 2


@pytest.mark.parametrize("regathering", [True, False])
def test_gathering_once_for_both_passes_keeps_every_layer(regathering):
    """Eight layers of 16 × 16: one or two of them are whole at a time, and all without `regathered` in `descend`."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    shape = lambda *dims, spec: jax.ShapeDtypeStruct(dims, jnp.float32, sharding=NamedSharding(mesh, spec))
    params, tx = [shape(16, 16, spec=P("fsdp"))] * 8, optax.sgd(0.1)

    def loss_fn(params, x):
        for w in params:
            x = jnp.tanh(x @ lay_out(w, P()))
        return x.mean(), {}

    def plain(params, x):
        grads = jax.grad(loss_fn, has_aux=True)(params, x)[0]
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    step = lambda params, x: descend(tx, loss_fn, params, tx.init(params), x)[0]
    with jax.set_mesh(mesh):
        jitted = jax.jit(
            step if regathering else plain,
            out_shardings=[NamedSharding(mesh, P("fsdp"))] * 8,
            compiler_options=late(mesh),
        )
        text = jitted.lower(params, shape(16, 16, spec=BATCH)).compile().as_text()
    layers = hlo.peak_of_gathered(text) / (16 * 16 * 4)
    assert layers <= 2 if regathering else layers >= 7


FLOW = glow.Config(net=FlowConfig(levels=1, steps=2, width=8), optimizer=AdamWConfig(3e-3, warmup_steps=0))


def flow_on(shape):
    """Glow born on a mesh as a run's state is: its first parameters, and loss and gradient of four steps."""
    axes = MeshConfig(*shape, min_shard_size=8)
    mesh = make_mesh(axes, jax.devices()[: math.prod(shape)])
    method = catalog.make(FLOW, DATA.spec)
    read = lambda step: global_batch(
        lambda rows: batch_at(DATA, seed=0, step=step, batch_size=SIZE, keys=("image",), rows=rows), SIZE, mesh
    )
    with jax.set_mesh(mesh):
        abstract = abstract_state(method, DATA.spec, SIZE, mesh, axes)
        init = jax.jit(method.init, out_shardings=shardings_of(abstract))
        state = init(keys_of(0).init, read(0))
        step, bad = program.compile_step(method, abstract, read(0), keys_of(0).step, mesh)
        params, split = jax.device_get(state["params"]), any(not x.is_fully_replicated for x in jax.tree.leaves(state))
        found = []
        for i in range(4):
            state, bad, metrics = step(state, bad, read(i), np.int32(i), np.int32(0))
            found.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return params, split, np.array(found)


def test_a_flow_starts_from_the_whole_batch_and_trains_as_on_one_device():
    """Actnorm's moments, each of what the steps before it make of the global batch; then losses to 2e-5."""
    params, split, metrics = flow_on(ALL)
    expected, whole, reference = flow_on((1, 1, 1))
    assert split and not whole
    for path, x in harness.leaves(expected).items():
        np.testing.assert_allclose(harness.leaves(params)[path], x, rtol=1e-4, atol=1e-4, err_msg=path)
    scale = expected["steps_0"]["actnorm"]["log_scale"]
    assert np.abs(scale).min() > 0.01  # a start from nothing would be zero
    np.testing.assert_allclose(metrics[:, 0], reference[:, 0], rtol=2e-5)
    np.testing.assert_allclose(metrics[:, 1], reference[:, 1], rtol=1e-3)
