"""Meshes, where a state's arrays go, and that the devices hold what one device would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import toy_methods
from harness import assert_bitwise
from jaxgen import catalog
from jaxgen.config import MeshConfig
from jaxgen.program import abstract_state, shardings_of
from jaxgen.sharding import check_batch, constrain, global_batch, make_mesh, replicated, state_shardings

SHAPES = [(8, 1, 1), (4, 2, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4)]
on_meshes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


@functools.cache
def mesh_of(data, fsdp, tensor):
    return make_mesh(MeshConfig(data, fsdp, tensor))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1), (2, 4, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), (2, 2, 2)),
        (MeshConfig(data=1, fsdp=1, tensor=-1), (1, 1, 8)),
        (MeshConfig(data=-1, fsdp=8), (1, 8, 1)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(config, expected):
    mesh = make_mesh(config)
    assert mesh.axis_names == ("data", "fsdp", "tensor") and mesh.devices.shape == expected
    assert {device.id for device in mesh.devices.flat} == set(range(8))


def test_a_mesh_over_some_of_the_devices():
    mesh = make_mesh(MeshConfig(), jax.devices()[2:5])
    assert [device.id for device in mesh.devices.flat] == [2, 3, 4]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), r"mesh\.data=3, mesh\.fsdp=1, mesh\.tensor=1 does not fit 8 device\(s\)"),
        (MeshConfig(data=4), r"does not fit 8 device\(s\)"),
        (MeshConfig(data=-1, fsdp=3), r"mesh\.data=-1, mesh\.fsdp=3.* does not fit 8"),
        (MeshConfig(data=-1, fsdp=16), r"does not fit 8"),
        (MeshConfig(data=-1, fsdp=-1), r"one of them may be -1"),
        (MeshConfig(data=8, fsdp=0), r"sizes are positive"),
        (MeshConfig(data=-2, fsdp=-1), r"sizes are positive"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(config)


def specs(state, mesh, rules=(), min_shard_size=1):
    """Path → PartitionSpec, trailing Nones dropped."""
    shardings = state_shardings(state, mesh, rules, min_shard_size)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): P(*strip(sharding.spec))
        for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)
    }


def strip(spec):
    spec = list(spec)
    while spec and spec[-1] is None:
        spec.pop()
    return spec


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_the_first_rule_that_matches_wins():
    state = {"block": {"kernel": array(8, 8), "other": array(8, 8)}, "kernel_scale": array(8, 8)}
    rules = ((r"block/kernel$", P("tensor", "fsdp")), (r"kernel", P(None, "tensor")), (r"block", P()))
    assert specs(state, mesh_of(2, 2, 2), rules) == {
        "block/kernel": P("tensor", "fsdp"),
        "block/other": P(),
        "kernel_scale": P(None, "tensor"),
    }


def test_an_axis_that_does_not_divide_is_dropped_and_the_others_stay():
    rules = (
        (r"kernel", P("fsdp", "tensor")),
        (
            r"both",
            P(
                ("fsdp", "tensor"),
            ),
        ),
    )
    state = {"kernel": array(6, 8), "kernel_odd": array(7, 8), "both": array(6, 8), "both_8": array(6, 12)}
    assert specs(state, mesh_of(1, 2, 4), rules) == {
        "kernel": P("fsdp", "tensor"),
        "kernel_odd": P(None, "tensor"),
        "both": P(None, ("fsdp", "tensor")),
        "both_8": P(None, "fsdp"),  # 12 does not divide by 2 · 4
    }


def test_no_unit_is_cut_by_tensor():
    """Of 8 channels in 2 heads, 4 devices take none, 2 take one head each."""
    rules, state = ((r"kernel", P("fsdp", "tensor"), 2),), {"kernel": array(8, 8)}
    assert specs(state, mesh_of(1, 2, 4), rules) == {"kernel": P("fsdp")}
    assert specs(state, mesh_of(2, 2, 2), rules) == {"kernel": P("fsdp", "tensor")}


def test_a_rule_for_one_layer_fits_the_stacked_layers_of_a_scan():
    rules = ((r"kernel", P("fsdp", "tensor")),)
    state = {"kernel": array(8, 8), "layers": {"kernel": array(4, 8, 8)}, "experts": {"kernel": array(4, 4, 8, 8)}}
    assert specs(state, mesh_of(2, 2, 2), rules) == {
        "kernel": P("fsdp", "tensor"),
        "layers/kernel": P(None, "fsdp", "tensor"),
        "experts/kernel": P(None, None, "fsdp", "tensor"),
    }


def test_moments_lie_like_their_parameters_and_counts_on_every_device():
    params = {"kernel": array(8, 8), "bias": array(8)}
    state = {"params": params, "opt_state": jax.eval_shape(optax.adam(1e-3).init, params)}
    rules = ((r"kernel$", P("tensor", "fsdp")), (r"count$", P("data")))
    found = specs(state, mesh_of(2, 2, 2), rules, min_shard_size=64)
    assert found.pop("opt_state/0/count") == P()  # a rule for something larger does not hurt it
    assert {path for path, spec in found.items() if spec == P("tensor", "fsdp")} == {
        "params/kernel", "opt_state/0/mu/kernel", "opt_state/0/nu/kernel"
    }  # fmt: skip
    assert {spec for path, spec in found.items() if path.endswith("bias")} == {P()}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((16, 64), P(None, "fsdp")),
        ((64, 16), P("fsdp")),
        ((16, 63), P("fsdp")),  # the largest axis does not divide by 4
        ((3, 3, 8, 16), P(None, None, None, "fsdp")),
        ((31, 33), P()),
        ((8, 16), P()),  # 128 elements are few
        ((16, 16), P("fsdp")),  # 256 are enough; the first of two equal axes
        ((), P()),
        ((0, 64), P()),
    ],
)
def test_large_arrays_without_a_rule_are_split_on_their_largest_divisible_axis(shape, expected):
    assert specs({"x": array(*shape)}, mesh_of(2, 4, 1), min_shard_size=256)["x"] == expected
    assert specs({"x": array(*shape)}, mesh_of(8, 1, 1), min_shard_size=256)["x"] == P()


def test_a_split_array_takes_its_share_of_a_devices_memory():
    x = {"w": jnp.zeros((64, 128)), "b": jnp.zeros(128)}
    for shape, ways in (((8, 1, 1), 1), ((2, 4, 1), 4), ((1, 8, 1), 8)):
        placed = jax.device_put(x, state_shardings(x, mesh_of(*shape), min_shard_size=1024))
        assert [shard.data.nbytes for shard in placed["w"].addressable_shards] == [64 * 128 * 4 // ways] * 8
        assert {shard.data.nbytes for shard in placed["b"].addressable_shards} == {128 * 4}


@on_meshes
def test_a_state_born_on_a_mesh_has_the_bits_of_one_device(shape):
    """Random initial values and optimizer state; with rules over `tensor` and every array split that can be."""
    experiment = toy_methods.EXPERIMENTS["toy_lm"]
    toy_methods.register()
    data = experiment.data.load()
    method = catalog.make(experiment.method, data.spec)
    batch = {name: jnp.zeros(s.shape, s.dtype) for name, s in data.spec.batch(16, method.reads).items()}

    def born(mesh):
        abstract = abstract_state(method, data.spec, 16, mesh, MeshConfig(min_shard_size=8))
        return jax.jit(method.init, out_shardings=shardings_of(abstract))(jax.random.key(3), batch)

    state, one = born(mesh_of(*shape)), born(make_mesh(MeshConfig(), jax.devices()[:1]))
    assert_bitwise(state, one)
    split = [x for x in jax.tree.leaves(state) if not x.sharding.is_fully_replicated]
    assert bool(split) == (shape != (8, 1, 1))
    if shape[2] > 1:
        assert state["params"]["embed"].sharding.spec == P(None, "tensor")


@on_meshes
def test_a_global_batch_is_the_rows_that_were_read_each_once(shape):
    mesh, calls = mesh_of(*shape), []

    def read(rows):
        calls.append(np.array(rows))
        return {"x": np.stack([rows * 10.0, rows + 0.5], -1).astype(np.float32), "label": rows.astype(np.int32)}

    batch = global_batch(read, 16, mesh)
    (rows,) = calls
    np.testing.assert_array_equal(rows, np.arange(16))
    np.testing.assert_array_equal(batch["label"], np.arange(16))
    np.testing.assert_array_equal(batch["x"], np.stack([np.arange(16) * 10, np.arange(16) + 0.5], -1))
    ways = shape[0] * shape[1]
    for x in batch.values():
        assert x.sharding.spec == P(("data", "fsdp"))
        assert {shard.data.shape[0] for shard in x.addressable_shards} == {16 // ways}
    for i, group in enumerate(mesh.devices.reshape(ways, shape[2])):  # consecutive rows; the same over `tensor`
        held = {s.device: np.asarray(s.data).tolist() for s in batch["label"].addressable_shards}
        assert all(held[device] == list(range(i * 16 // ways, (i + 1) * 16 // ways)) for device in group)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    check_batch(16, mesh_of(4, 2, 1))
    check_batch(12, mesh_of(2, 2, 2))  # `tensor` does not split the batch
    message = r"train\.batch_size=10 does not divide over mesh\.data × mesh\.fsdp = 8 devices; take 16, or a smaller"
    with pytest.raises(ValueError, match=message):
        check_batch(10, mesh_of(4, 2, 1))


def test_constrain_does_nothing_without_a_mesh_of_ours():
    x = jnp.ones((8, 4))
    assert constrain(x) is x
    with jax.set_mesh(jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))):
        assert constrain(x) is x


@pytest.mark.parametrize(
    ("shape", "spec", "expected"),
    [
        ((16, 6), None, P(("data", "fsdp"))),
        ((6, 16), None, P("data")),  # 6 rows do not divide by 4
        ((5, 16), None, P()),
        ((16, 6, 8), P(("data", "fsdp"), None, "tensor"), P(("data", "fsdp"), None, "tensor")),
        ((16, 6, 7), P(("data", "fsdp"), None, "tensor"), P(("data", "fsdp"))),
        ((16,), P(("data", "fsdp"), None, "tensor"), P(("data", "fsdp"))),
    ],
)
def test_constrain_splits_an_activation_where_it_divides(shape, spec, expected):
    """The input lies whole on every device, so that the result's layout is the constraint's."""
    mesh = mesh_of(2, 2, 2)
    x = jax.device_put(jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape), replicated(mesh))
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x) if spec is None else constrain(x, spec))(x)
    assert P(*strip(y.sharding.spec)) == expected
    np.testing.assert_array_equal(x, y)
