"""Checkpoints come back bit by bit on any mesh, damage is noticed, and a kill in mid-save costs that save alone."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from harness import assert_bitwise
from jaxgen import checkpoint
from jaxgen import checksum as checksums
from jaxgen.checkpoint import Checkpoints, MismatchError
from jaxgen.config import MeshConfig
from jaxgen.sharding import make_mesh, replicated, state_shardings


@contextmanager
def opened(directory, **options):
    checkpoints = Checkpoints(directory, **options)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def on(state, mesh):
    """What `restore` is asked for: the shapes of `state`, split over `mesh` where they can be."""
    shardings = state_shardings(state, mesh, min_shard_size=8)
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state, shardings)


ONE = MeshConfig(data=1)


def here(state):
    return on(state, make_mesh(ONE, jax.devices()[:1]))


def small(number=0.0):
    return {"params": {"w": jnp.arange(12.0).reshape(3, 4) + number, "b": jnp.zeros(4)}, "count": jnp.int32(number)}


def put(directory, steps, info=None, **options):
    """Saves `small(step)` at each step."""
    with opened(directory, **options) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, small(step), info or {"data_step": 1000 * step})


def kinds_of_arrays():
    """A state with every kind of array that methods keep, and values that a conversion would change."""
    params = {"w": jax.random.normal(jax.random.key(0), (16, 8)), "half": jnp.linspace(-3, 3, 16, dtype=jnp.bfloat16)}
    return {
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),  # NamedTuples in a tuple, an EmptyState among them
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4), 8),
        "other_key": jax.random.key(5, impl="rbg"),
        "mask": jnp.arange(16) % 3 == 0,
        "bytes": jnp.arange(-8, 8, dtype=jnp.int8),
        "count": jnp.int32(2**31 - 1),
        "tiny": jnp.array([-0.0, 0.0, 1e-45, -3.4e38], jnp.float32),
        "layers": [{"w": jnp.ones((2, 8))}, {"w": jnp.zeros((8, 3))}],
        "none": None,
        "empty": {},
    }


def test_every_kind_of_array_comes_back_bitwise_on_other_meshes(tmp_path):
    meshes = [make_mesh(MeshConfig(2, 2, 2)), make_mesh(ONE, jax.devices()[:1])]
    original = kinds_of_arrays()
    info = {"data_step": 2**40, "attempt": 0, "name": "ε", "list": [1.5, None]}
    state = jax.device_put(original, state_shardings(original, make_mesh(MeshConfig(1, 8)), min_shard_size=8))
    with opened(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.restore(on(original, meshes[0])) is None
        assert checkpoints.save(7, state, info)
        for mesh in meshes:
            found = checkpoints.restore(on(original, mesh))
            assert (found.step, found.info) == (7, info)
            assert jax.tree.structure(found.state) == jax.tree.structure(original)
            assert_bitwise(found.state, original)
            for leaf, asked in zip(jax.tree.leaves(found.state), jax.tree.leaves(on(original, mesh)), strict=True):
                assert leaf.dtype == asked.dtype and leaf.sharding.is_equivalent_to(asked.sharding, leaf.ndim)
            assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(found.state)) == (mesh.size > 1)


@pytest.mark.parametrize(
    ("mode", "values", "kept", "best"),
    [
        ("min", [3.0, 1.0, 2.0, 4.0, 5.0], [2, 4, 5], 2),
        ("max", [3.0, 1.0, 2.0, -4.0, -5.0], [1, 4, 5], 1),
        ("min", [3.0, 2.0, 1.0, 0.5, 0.25], [4, 5], 5),
        ("min", [3.0, 1.0, float("nan"), None, 5.0], [2, 4, 5], 2),  # what is no number is not the best
    ],
)
def test_the_last_and_the_best_are_kept(tmp_path, mode, values, kept, best):
    options = {"keep_last": 2, "best_metric": "eval/fd", "best_mode": mode}
    with opened(tmp_path, **options) as checkpoints:
        for step, value in enumerate(values, 1):
            metrics = {"eval/loss": -step} | ({} if value is None else {"eval/fd": value})
            assert checkpoints.save(step, small(step), {}, metrics)
        checkpoints.wait()
        assert checkpoints.steps() == kept and checkpoints.best_step() == best
    with opened(tmp_path, **options) as checkpoints:
        assert checkpoints.steps() == kept and checkpoints.best_step() == best
        assert_bitwise(checkpoints.restore(here(small()), best).state, small(best))


def test_without_the_metric_there_is_no_best(tmp_path):
    with opened(tmp_path, keep_last=3) as checkpoints:
        assert checkpoints.best_step() is None
        for step in (1, 2):
            checkpoints.save(step, small(step), {}, {"loss": float(step)})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2] and checkpoints.best_step() is None


@pytest.mark.parametrize(("mode", "best"), [("min", 4), ("max", 5)])
def test_checkpoints_with_another_metric_are_never_the_best(tmp_path, mode, best):
    """Not even next to values as bad as they get."""
    with opened(tmp_path, keep_last=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, small(step), {}, {"eval/loss": float(step)})
    with opened(tmp_path, keep_last=1, best_metric="eval/fd", best_mode=mode) as checkpoints:
        assert checkpoints.steps() == [1, 3] and checkpoints.best_step() is None
        for step, value in [(4, -1e30), (5, 1e30), (6, 0.0)]:
            checkpoints.save(step, small(step), {}, {"eval/fd": value})
        checkpoints.wait()
        assert checkpoints.best_step() == best and checkpoints.steps() == [best, 6]


def test_a_state_that_is_not_finite_is_refused_and_nothing_written(tmp_path):
    with opened(tmp_path) as checkpoints:
        for bad in (jnp.nan, jnp.inf, -jnp.inf):
            state = small()
            state["params"]["w"] = state["params"]["w"].at[2, 1].set(bad)
            assert not checkpoints.save(1, state, {})
        checkpoints.wait()
        assert checkpoints.steps() == [] and list(tmp_path.iterdir()) == []
        assert checkpoints.save(1, small(), {})


def test_a_step_that_is_there_is_never_passed_over_in_silence(tmp_path):
    put(tmp_path, [2])
    with opened(tmp_path) as checkpoints:
        for step in (1, 2):
            with pytest.raises(ValueError, match=rf"step {step} is not saved: .*\[2\]"):
                checkpoints.save(step, small(9), {})
        assert_bitwise(checkpoints.restore(here(small())).state, small(2))


def flipped(file, position):
    """The bytes of `file` with one bit turned."""
    damaged = bytearray(file.read_bytes())
    damaged[position] ^= 0x04
    return bytes(damaged)


def restored(directory, state):
    """What a new process finds, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught, opened(directory) as checkpoints:
        warnings.simplefilter("always")
        found = checkpoints.restore(here(state))
    return found, [str(w.message) for w in caught]


def test_a_flipped_byte_is_noticed_and_the_step_before_comes_back(tmp_path):
    """Orbax itself reads such a file without a word (flips that it does notice are damage all the same)."""
    key = jax.random.key(0)
    state = lambda step: {"w": jax.random.normal(jax.random.fold_in(key, step), (64, 64))}
    with opened(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), {})
    noticed = 0
    files = list((tmp_path / "2" / "state" / "ocdbt.process_0" / "d").iterdir())
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(flipped(file, len(whole) // 2))
        found, messages = restored(tmp_path, state(0))
        file.write_bytes(whole)
        if found.step == 2:  # not read at all
            assert messages == []
        else:
            (message,) = messages
            assert message.startswith(f"checkpoint {tmp_path}/2 is damaged: ValueError: checksum of w differs (1 of 1")
            noticed += 1
        assert_bitwise(found.state, state(found.step))
    assert noticed == 1
    assert restored(tmp_path, state(0))[0].step == 2


def test_a_changed_number_beside_the_arrays_is_noticed(tmp_path):
    """A digit of `data_step` turned to another: JSON as good as before."""
    put(tmp_path, [1, 2])
    file = tmp_path / "2" / "info" / "metadata"
    assert json.loads(file.read_text())["info"] == {"data_step": 2000}
    file.write_text(file.read_text().replace("2000", "2001"))
    found, (message,) = restored(tmp_path, small())
    assert "checksum of the info differs" in message
    assert (found.step, found.info) == (1, {"data_step": 1000})


def test_an_empty_step_directory_is_passed_over(tmp_path):
    put(tmp_path, [1, 2])
    (tmp_path / "5").mkdir()
    found, (message,) = restored(tmp_path, small())
    assert found.step == 2 and message.startswith(f"checkpoint {tmp_path}/5 is damaged")
    assert_bitwise(found.state, small(2))
    with opened(tmp_path, keep_last=2) as checkpoints:  # the best is found beside it, and the run goes on
        checkpoints.set_aside(after=2)
        assert checkpoints.best_step() is None
        checkpoints.save(5, small(5), {}, {"eval/loss": 1.0})
        assert checkpoints.best_step() == 5


def test_when_all_are_damaged_the_run_is_not_begun_anew(tmp_path):
    for step in ("1", "2"):
        (tmp_path / step).mkdir()
    with opened(tmp_path) as checkpoints:
        damaged = lambda: pytest.warns(UserWarning, match="is damaged")
        with damaged() as caught, pytest.raises(ValueError, match=r"no whole checkpoint in .*tried: \[2, 1\]"):
            checkpoints.restore(here(small()))
        assert len(caught) == 2
        with damaged(), pytest.raises(ValueError, match=r"tried: \[1\]"):
            checkpoints.restore(here(small()), step=1)


def test_what_a_kill_has_left_half_deleted_is_no_step_and_goes_away(tmp_path):
    put(tmp_path, [1, 2, 3])
    ruin = tmp_path / "deleted" / "1" / "state"
    ruin.mkdir(parents=True)
    (ruin / "_METADATA").write_text("{}")
    with opened(tmp_path) as checkpoints:  # who only reads leaves it alone: another process may be deleting it
        assert checkpoints.restore(here(small())).step == 3 and checkpoints.steps() == [2, 3]
        assert ruin.exists()
    with opened(tmp_path, writing=True) as checkpoints:
        assert checkpoints.restore(here(small())).step == 3
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
        checkpoints.save(4, small(4), {})
        checkpoints.wait()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_a_step_by_number(tmp_path):
    put(tmp_path, [1, 3])
    with opened(tmp_path) as checkpoints:
        found = checkpoints.restore(here(small()), step=1)
        assert (found.step, found.info) == (1, {"data_step": 1000})
        assert_bitwise(found.state, small(1))
        with pytest.raises(ValueError, match=r"no checkpoint of step 2 in .*; there are: \[1, 3\]"):
            checkpoints.restore(here(small()), step=2)


def test_a_mismatch_names_every_array_with_both_shapes(tmp_path):
    """It is no damage: the step before is not taken instead."""
    put(tmp_path, [1, 2])
    asked = small()
    asked["params"]["w"] = jnp.zeros((3, 5))
    asked["params"]["b"] = jnp.zeros(4, jnp.bfloat16)
    asked["scale"] = asked.pop("count")
    with opened(tmp_path) as checkpoints, pytest.raises(MismatchError) as error:
        checkpoints.restore(here(asked))
    assert str(error.value).splitlines() == [
        f"checkpoint {tmp_path}/2 does not fit:",
        "  count: in the checkpoint only",
        "  params/b: (4,) float32 in the checkpoint, (4,) bfloat16 asked for",
        "  params/w: (3, 4) float32 in the checkpoint, (3, 5) float32 asked for",
        "  scale: not in the checkpoint",
    ]


def test_a_long_list_of_mismatches_is_cut(tmp_path):
    put(tmp_path, [1])
    asked = {f"x{i:02}": jnp.zeros(2) for i in range(30)}
    with opened(tmp_path) as checkpoints, pytest.raises(MismatchError, match=r"… and 13 more") as error:
        checkpoints.restore(here(asked))
    assert len(str(error.value).splitlines()) == 22


def test_a_subtree_comes_back_alone_where_it_is_asked_to(tmp_path):
    state = kinds_of_arrays()
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    asked = []

    def shardings(tree):
        asked.append(jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree))
        return state_shardings(tree, mesh, min_shard_size=8)

    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore_subtree("params", shardings) is None
        checkpoints.save(3, state, {"data_step": 3})
        found = checkpoints.restore_subtree("params", shardings)
        assert (found.step, found.info) == (3, {"data_step": 3})
        assert_bitwise(found.state, state["params"])
        assert found.state["w"].sharding.spec == P("fsdp")
        assert asked == [{"w": ((16, 8), "float32"), "half": ((16,), "bfloat16")}]
        for name in ("layers", "params/half", "keys"):
            leaf = state
            for part in name.split("/"):
                leaf = leaf[part]
            assert_bitwise(checkpoints.restore_subtree(name, shardings).state, leaf)


def test_a_subtree_that_is_not_there_suggests_the_closest(tmp_path):
    put(tmp_path, [1, 2])
    with opened(tmp_path) as checkpoints:
        everywhere = lambda tree: jax.tree.map(lambda _: replicated(make_mesh(MeshConfig())), tree)
        with pytest.raises(MismatchError, match=r"2 has no parms \(did you mean params\?\)"):
            checkpoints.restore_subtree("parms", everywhere)
        with pytest.raises(MismatchError, match=r"has no params/q; there are: b, w"):
            checkpoints.restore_subtree("params/q", everywhere)
        with pytest.raises(ValueError, match=r"no checkpoint of step 9"):
            checkpoints.restore_subtree("params", everywhere, step=9)
        (tmp_path / "2" / "state" / "_METADATA").write_text("{}")
        with pytest.warns(UserWarning, match="2 is damaged"):
            assert_bitwise(checkpoints.restore_subtree("params", everywhere).state, small(1)["params"])


def test_steps_behind_are_set_aside_and_overwrite_nothing(tmp_path):
    directory, aside = tmp_path / "checkpoints", tmp_path / "set_aside"
    put(directory, [1, 2, 3], keep_last=3)
    with opened(directory, keep_last=3) as checkpoints:
        checkpoints.set_aside(after=3)
        assert not aside.exists()
        checkpoints.set_aside(after=1)
        assert checkpoints.steps() == [1] and sorted(p.name for p in aside.iterdir()) == ["2", "3"]
        before = {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()}
        for again in (".1", ".2"):
            assert checkpoints.save(2, small(20), {})
            checkpoints.wait()
            checkpoints.set_aside(after=1)
            assert (aside / f"2{again}").is_dir() and checkpoints.steps() == [1]
        after = {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()}
        assert before and before.items() <= after.items()
    with opened(aside) as checkpoints:  # still checkpoints
        assert_bitwise(checkpoints.restore(here(small()), step=2).state, small(2))


checksum = jax.jit(checksums.checksum)


def bits(*values):
    """float32s with these bits."""
    return jnp.asarray(np.array(values, np.uint32).view(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_the_checksum_is_the_same_under_every_sharding(dtype):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    x = (jax.random.normal(jax.random.key(1), (8, 16)) * 50).astype(dtype)
    expected = int(checksum(jax.device_put(x, jax.devices()[0])))
    for spec in (P(), P(("data", "fsdp"), "tensor"), P(None, "fsdp")):
        assert int(checksum(jax.device_put(x, NamedSharding(mesh, spec)))) == expected, spec


def test_every_flip_of_one_bit_changes_the_checksum():
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, 3)))
    flips = np.repeat(x.view(np.uint32)[None], 6 * 32, 0)  # [192, 2, 3]
    n = np.arange(192)
    flips.reshape(192, 6)[n, n // 32] ^= np.uint32(1) << (n % 32).astype(np.uint32)
    sums = np.asarray(jax.vmap(checksums.checksum)(jnp.asarray(flips.view(np.float32))))
    assert len({int(checksum(jnp.asarray(x))), *sums.tolist()}) == 193


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (bits(0x00000000), bits(0x80000000)),  # 0 and −0
        (bits(0x7FC00000), bits(0x7FC00001)),  # two NaNs
        (jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0])),
        (jnp.array([0.5, -0.5]), jnp.array([-0.5, 0.5])),
        (jnp.zeros(257).at[0].set(1.0), jnp.zeros(257).at[256].set(1.0)),
        (jnp.arange(512.0).reshape(2, 256), jnp.arange(512.0).reshape(2, 256)[::-1]),
        (jnp.zeros(64), -jnp.zeros(64)),
        (jnp.array([True, False]), jnp.array([False, True])),
        (jnp.array([1 + 2j], jnp.complex64), jnp.array([2 + 1j], jnp.complex64)),
        (jnp.array([1.0, 1.0078125], jnp.bfloat16), jnp.array([1.0078125, 1.0], jnp.bfloat16)),
    ],
    ids=["zero", "nan", "swap", "swap_signs", "far_swap", "rows", "all_signs", "bool", "complex", "bfloat16"],
)
def test_the_checksum_tells_apart_what_comparison_may_not(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype and checksum(a) != checksum(b)


def test_the_checksum_of_keys():
    a, b = checksum(jax.random.key(1)), checksum(jax.random.key(2))
    assert a != b and a == checksum(jax.random.key(1))


SAVE_FOREVER = """
import sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from jaxgen.checkpoint import Checkpoints
noise = np.random.default_rng(0).integers(2**30, size=(16, 2**20), dtype=np.int32)
checkpoints = Checkpoints(Path(sys.argv[1]))
first = int(sys.argv[2])
for step in range(first, first + 100):
    checkpoints.save(step, {"w": jnp.asarray(noise ^ step)}, {"data_step": step})
    checkpoints.wait()
"""


def kill_in_mid_save(directory, first):
    """Saves 64 MiB a step in another process, and kills it where one save is seen half done behind a whole one."""

    def caught():
        """The newest whole step, when it is of this process and some of the next lies beside it, but not all."""
        whole = max((int(p.name) for p in directory.glob("*") if p.name.isdigit()), default=0)
        half = [f for p in directory.glob(f"{whole + 1}.*tmp*") for f in p.rglob("*") if f.stat().st_size > 2**20]
        return whole if whole >= first and half else None

    path = str(Path(checkpoint.__file__).parents[1])
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": path}
    with subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(directory), str(first)], env=env) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if caught():
                        process.send_signal(signal.SIGSTOP)  # look again at what stands still
                        if step := caught():
                            return step
                except FileNotFoundError:  # renamed while it was looked at
                    pass
                process.send_signal(signal.SIGCONT)
                time.sleep(0.005)
            raise TimeoutError("no save was seen half done")
        finally:
            process.kill()


def test_kill_9_in_mid_save_leaves_the_step_before_whole(tmp_path):
    """Twice in one directory: the second process begins behind the ruins of the first, with the step that was lost."""
    directory, first = tmp_path / "checkpoints", 1
    one = make_mesh(ONE, jax.devices()[:1])
    asked = {"w": jax.ShapeDtypeStruct((16, 2**20), jnp.int32, sharding=replicated(one))}
    noise = np.random.default_rng(0).integers(2**30, size=(16, 2**20), dtype=np.int32)
    for _ in range(2):
        step = kill_in_mid_save(directory, first)
        with opened(directory) as checkpoints:  # a warning would be an error
            found = checkpoints.restore(asked)
        assert (found.step, found.info) == (step, {"data_step": step})
        np.testing.assert_array_equal(found.state["w"], noise ^ step)
        first = step + 1


DIGEST_MANY = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxgen.checksum import digest
from jaxgen.config import MeshConfig
from jaxgen.sharding import make_mesh

split = NamedSharding(make_mesh(MeshConfig(data=4, fsdp=2)), P("fsdp"))
state = {str(i): jax.device_put(jnp.arange(2.0**14) + i, split) for i in range(400)}
for _ in range(4):
    digest(state)
"""


def test_a_state_of_many_split_arrays_does_not_choke_its_devices():
    """Each array's checksum is a collective; too many at once starve XLA's threads, which then abort the process."""
    timeouts = (
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=10 --xla_cpu_collective_call_terminate_timeout_seconds=20"
    )
    env = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {timeouts}"}
    done = subprocess.run([sys.executable, "-c", DIGEST_MANY], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
