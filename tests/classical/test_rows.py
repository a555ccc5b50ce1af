"""Rows in chunks and on devices, images as rows, exact epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.classical import lloyd, rows
from jaxgen.config import MeshConfig
from jaxgen.data import Images, Toy
from jaxgen.sharding import make_mesh

X = jax.random.normal(jax.random.key(0), (48, 3))


def both(chunk, scale):
    x, index = chunk
    return {"gram": x.T @ x, "sum": index.sum()}, {"scaled": scale * x, "index": index}


@pytest.mark.parametrize("size", [1, 3 * 7, 3 * 48, 10**6])
@pytest.mark.parametrize("devices", [1, 8])
def test_chunks_on_any_devices_give_what_the_whole_table_gives(size, devices, monkeypatch):
    monkeypatch.setitem(rows.CHUNK, "cpu", size)  # one row, seven (which leave a rest), all, more than there are
    index = jnp.arange(48)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:devices])):
        sums, outs = jax.jit(lambda x, i: rows.over_rows(both, (x, i), jnp.float32(2.0)))(X, index)
    np.testing.assert_allclose(sums["gram"], X.T @ X, rtol=1e-5, atol=1e-5)
    assert int(sums["sum"]) == 48 * 47 // 2
    np.testing.assert_array_equal(outs["scaled"], 2 * X)
    np.testing.assert_array_equal(outs["index"], index)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_rows_are_summed_by_their_labels(device, monkeypatch):
    """Row after row, or by a product; against numpy's loop, with a label that no row has."""
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    label = np.arange(48) % 5 + (np.arange(48) % 5 > 2)
    whole = np.zeros((7, 3))
    np.add.at(whole, label, np.asarray(X))
    np.testing.assert_allclose(rows.sum_by_label(X, jnp.asarray(label), 7), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rows.sum_by_label(X[:, 0], jnp.asarray(label), 7), whole[:, 0], rtol=1e-5, atol=1e-5)


def test_memory_stays_flat_when_rows_are_cut():
    """A table of N × N distances is never there: the compiled program's scratch space does not grow with N²."""

    def scratch(num):
        far = lambda x, c: ((), jnp.max(jnp.sum((x[:, None] - c[None]) ** 2, -1), 1))
        fn = jax.jit(lambda x, c: rows.over_rows(far, x, c)[1])
        x = jax.ShapeDtypeStruct((num, 64), jnp.float32)
        c = jax.ShapeDtypeStruct((128, 64), jnp.float32)
        return fn.lower(x, c).compile().memory_analysis().temp_size_in_bytes

    assert scratch(2**18) < 1.5 * scratch(2**15)


def test_memory_stays_flat_whatever_the_number_of_centroids():
    """A chunk's distances to 1024 centroids take as much room as those to 8192; both times the rows are 8192."""

    def scratch(num):
        fn = jax.jit(lambda x, c: rows.over_rows(lloyd.sums, lloyd.Rows(x, x[:, 0]), c))
        x, c = (jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (2**13, num))
        return fn.lower(x, c).compile().memory_analysis().temp_size_in_bytes

    assert scratch(2**13) < 2 * scratch(2**10)


def test_images_become_rows_in_the_unit_interval_and_come_back():
    spec = Images("digits").load().spec
    vec = rows.vectors(spec)
    image = jax.random.randint(jax.random.key(1), (5, 8, 8, 1), 0, 17).astype(jnp.uint8)
    x = vec.read(image)
    assert vec.key == "image" and vec.dim == 64 and x.shape == (5, 64)
    np.testing.assert_allclose(x, np.asarray(image).reshape(5, 64) / 16, rtol=1e-6)
    np.testing.assert_array_equal(vec.write(x)["image"], image)
    assert int(vec.write(x + 2)["image"].max()) == 16 and int(vec.write(x - 2)["image"].max()) == 0


def test_plain_vectors_stay_what_they_are():
    vec = rows.vectors(Toy(size=10).load().spec)
    assert vec.key == "x" and vec.dim == 2
    np.testing.assert_array_equal(vec.write(vec.read(X[:, :2]))["x"], X[:, :2])


@pytest.mark.parametrize("count", [6, 7, 11, 16])
def test_an_epoch_acts_once_when_each_example_was_added_once(count):
    """Counted by hand, with batches of 6 that straddle the epochs' ends: the examples 0…count-1 again and again."""

    def step(state, examples):
        def add(carry, weight):
            return {**carry, "sum": carry["sum"] + jnp.sum(weight * 2.0**examples)}

        def finish(carry, weight):
            return {"done": carry["done"] + 1, "whole": carry["whole"] + carry["sum"], "sum": jnp.zeros(())}

        carry, seen = rows.in_epochs(state[0], state[1], 6, count, add, finish)
        return (carry, seen), carry

    steps = 3 * count
    stream = (np.arange(6 * steps) % count).reshape(steps, 6)
    start = ({"done": jnp.zeros(()), "whole": jnp.zeros(()), "sum": jnp.zeros(())}, jnp.int32(0))
    (last, seen), each = jax.lax.scan(step, start, jnp.asarray(stream, jnp.float32))
    np.testing.assert_array_equal(each["done"], 6 * (np.arange(steps) + 1) // count)
    assert float(last["whole"]) == 18 * (2.0**count - 1) and int(seen) == 0 and float(last["sum"]) == 0


def test_a_batch_beyond_the_epoch_is_refused():
    with pytest.raises(ValueError, match="train.batch_size=8 exceeds the 7 training examples"):
        rows.in_epochs((), jnp.int32(0), 8, 7, lambda c, w: c, lambda c, w: c)
