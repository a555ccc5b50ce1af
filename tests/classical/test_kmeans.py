import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

import harness
from jaxgen.classical import kmeans, lloyd, seeding
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images, Spec, Toy
from jaxgen.sharding import BATCH, make_mesh

# 70 training examples: an epoch ends in the middle of the fifth batch.
TINY = Experiment(kmeans.Config(num_clusters=4), Images("digits", validation=1430), TrainConfig(batch_size=16))

run_lloyd = jax.jit(lloyd.lloyd)


def blobs(num, seed=0):
    """`num` points round five centres in the plane."""
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(5, 2))
    return (centers[rng.integers(5, size=num)] + rng.normal(size=(num, 2))).astype(np.float32)


def spec_of(count):
    return Spec(shapes={"x": (2,)}, dtypes={"x": "float32"}, counts={"train": count}, names={}, sizes={})


def test_ten_clusters_of_digits_are_as_tight_as_scikit_learns():
    """scikit-learn's best of ten starts: inertia 4551.5, NMI 0.742; from equal starts, the same clusters."""
    x, label = harness.digits()
    seeds = jax.jit(seeding.plus_plus, static_argnums=2)
    runs = [run_lloyd(x, seeds(key, x, 10), 300) for key in jax.random.split(jax.random.key(0), 10)]
    best = min(runs, key=lambda run: float(run[2]))
    assert float(best[2]) <= 4555
    assert normalized_mutual_info_score(label, best[1]) >= 0.74

    peer = KMeans(10, init=x[:10], n_init=1, tol=0).fit(x)
    centroids, found, inertia, num_iter = run_lloyd(x, x[:10], 300)
    np.testing.assert_array_equal(found, peer.labels_)
    np.testing.assert_allclose(centroids, peer.cluster_centers_, atol=1e-5)
    assert float(inertia) == pytest.approx(peer.inertia_, rel=1e-5) and int(num_iter) == peer.n_iter_


def test_no_iteration_raises_the_inertia():
    x = blobs(400)
    inertia = [float(run_lloyd(x, x[:5], n)[2]) for n in range(12)]
    assert inertia[0] > 1.2 * inertia[-1]
    assert all(b <= a * (1 + 1e-6) for a, b in zip(inertia, inertia[1:], strict=False))


def test_weights_count_like_repeated_rows():
    x, weight = blobs(60), np.arange(60) % 3
    repeated = np.repeat(x, weight, axis=0)
    a, b = run_lloyd(x, x[:4], 50, 0.0, weight.astype(np.float32)), run_lloyd(repeated, x[:4], 50)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-5)
    assert float(a[2]) == pytest.approx(float(b[2]), rel=1e-5)


def test_empty_clusters_move_to_the_farthest_rows_as_in_scikit_learn():
    x = blobs(300)
    start = np.concatenate([x[:3], np.full((3, 2), 1e3, np.float32)])
    peer = KMeans(6, init=start, n_init=1, tol=0).fit(x)
    centroids, found, inertia, _ = run_lloyd(x, start, 300)
    np.testing.assert_array_equal(found, peer.labels_)
    np.testing.assert_allclose(centroids, peer.cluster_centers_, atol=1e-4)
    assert set(np.asarray(found)) == set(range(6)) and float(inertia) == pytest.approx(peer.inertia_, rel=1e-5)


def test_more_clusters_than_different_rows_end_with_empty_ones():
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]], np.float32), 5, axis=0)
    centroids, _, inertia, num_iter = run_lloyd(x, x[[0, 5, 5]], 50)
    assert float(inertia) == 0 and int(num_iter) < 50 and np.isfinite(centroids).all()


def test_an_epoch_of_any_batches_is_one_exact_iteration():
    """64 examples in batches of 16, which fit, and of 24, which straddle the epochs' ends; against whole iterations."""
    x, method = blobs(64), kmeans.make(kmeans.Config(num_clusters=5, init="random"), spec_of(64))
    step = jax.jit(method.step)
    for size, steps in ((64, 3), (16, 12), (24, 8)):
        state = jax.jit(method.init)(jax.random.key(0), {"x": x})
        first, losses = state["centroids"], []
        for i in range(steps):
            state, metrics = step(state, {"x": x[np.arange(i * size, (i + 1) * size) % 64]}, jax.random.key(1))
            losses.append(float(metrics["loss"]))
        np.testing.assert_allclose(state["centroids"], run_lloyd(x, first, 3)[0], rtol=1e-5, atol=1e-5)
        assert int(state["seen"]) == 0
        if size == 64:
            whole = [float(run_lloyd(x, first, n)[2]) / 64 for n in range(3)]
            np.testing.assert_allclose(losses, whole, rtol=1e-5)
            moved = run_lloyd(x, first, 3)[0] - run_lloyd(x, first, 2)[0]
            assert float(metrics["shift"]) == pytest.approx(float(jnp.sum(moved**2)), rel=1e-4, abs=1e-9)


def test_eight_devices_find_what_one_finds():
    x = blobs(256)
    method = kmeans.make(kmeans.Config(num_clusters=5), spec_of(256))
    # A centroid without rows: the devices must agree on who is farthest.
    odd = jnp.concatenate([jnp.asarray(x[:4]), jnp.full((1, 2), 99.0)])
    states = []
    for devices in (1, 8):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        with jax.set_mesh(mesh):
            batch = jax.device_put({"x": x}, jax.NamedSharding(mesh, BATCH))
            state = jax.jit(method.init)(jax.random.key(0), batch) | {"centroids": odd}
            for _ in range(4):
                state, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
            states.append((state["centroids"], metrics["loss"]))
    np.testing.assert_allclose(states[0][0], states[1][0], rtol=1e-5, atol=1e-5)
    assert float(states[0][1]) == pytest.approx(float(states[1][1]), rel=1e-6)


def test_a_minibatch_centroid_is_the_mean_of_all_it_was_assigned():
    """By brute force over three batches."""
    x = blobs(96)
    method = kmeans.make(kmeans.Config(num_clusters=4, algorithm="minibatch", reassign=0.0), spec_of(96))
    state = jax.jit(method.init)(jax.random.key(2), {"x": x[:32]})
    members = [[] for _ in range(4)]
    for part in np.split(x, 3):
        centroids = np.asarray(state["centroids"])
        for row in part:
            members[int(((centroids - row) ** 2).sum(1).argmin())].append(row)
        state, _ = jax.jit(method.step)(state, {"x": part}, jax.random.key(0))
        for k, rows_of_k in enumerate(members):
            if rows_of_k:
                np.testing.assert_allclose(state["centroids"][k], np.mean(rows_of_k, 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(state["counts"], [len(rows_of_k) for rows_of_k in members])


@pytest.mark.parametrize("size", [100, 400])
def test_rows_far_from_zero_have_the_same_clusters(size):
    """A thousand away, where float32 has four digits of the rows left, and none of their squares'."""
    x = blobs(400) + np.float32(1000)
    method = kmeans.make(kmeans.Config(num_clusters=5), spec_of(400))
    state = jax.jit(method.init)(jax.random.key(0), {"x": x}) | {"centroids": jnp.asarray(x[:5])}
    for i in range(20 * 400 // size):
        state, metrics = jax.jit(method.step)(
            state, {"x": x[np.arange(i * size, (i + 1) * size) % 400]}, jax.random.key(1)
        )
    peer = KMeans(5, init=x[:5], n_init=1, tol=0, max_iter=20).fit(x.astype(np.float64))
    np.testing.assert_allclose(state["centroids"], peer.cluster_centers_, atol=1e-3)
    if size == 400:
        assert float(metrics["loss"]) == pytest.approx(peer.inertia_ / 400, rel=1e-4)


def test_a_lost_minibatch_centroid_starts_anew():
    x = blobs(64)
    method = kmeans.make(kmeans.Config(num_clusters=4, algorithm="minibatch", reassign=0.05), spec_of(64))
    state = jax.jit(method.init)(jax.random.key(2), {"x": x})
    state["centroids"] = state["centroids"].at[3].set(1e3)
    state, _ = jax.jit(method.step)(state, {"x": x}, jax.random.key(0))
    assert np.isclose(x, state["centroids"][3], rtol=0, atol=1e-5).all(1).any()
    assert float(state["counts"][3]) == float(state["counts"][:3].min()) > 0
    kept = kmeans.make(kmeans.Config(num_clusters=4, algorithm="minibatch", reassign=0.0), spec_of(64))
    state["centroids"] = state["centroids"].at[3].set(1e3)
    state, _ = jax.jit(kept.step)(state | {"counts": jnp.zeros(4)}, {"x": x}, jax.random.key(0))
    assert float(state["centroids"][3, 0]) == pytest.approx(1e3)


def test_samples_are_the_centroids_each_as_often_as_another():
    data = Images("digits").load()
    method = kmeans.make(kmeans.Config(num_clusters=3), data.spec)
    batch = data.read("train", np.arange(30), ("image",))
    state = jax.jit(method.init)(jax.random.key(0), batch)
    image = np.asarray(jax.jit(method.sample, static_argnums=2)(state, jax.random.key(1), 6)["image"])
    assert image.shape == (6, 8, 8, 1) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[:3], image[3:])
    assert {im.tobytes() for im in image} <= {im.tobytes() for im in batch["image"]}  # untrained: rows of the batch
    assert len({im.tobytes() for im in image}) == 3
    with pytest.raises(ValueError, match="cannot take the condition label; those it takes: none"):
        method.sample(state, jax.random.key(1), 6, {"label": jnp.zeros(6)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "loyd"}, r"unknown method.algorithm='loyd' \(did you mean lloyd\?\)"),
        ({"init": "kmeans++"}, r"unknown method.init='kmeans\+\+' \(did you mean k-means\+\+\?\)"),
        ({"num_clusters": 0}, "method.num_clusters=0 must be 1 or more"),
        ({"reassign": 1.0}, "method.reassign=1.0 must lie in"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        kmeans.make(dataclasses.replace(kmeans.Config(), **change), spec_of(10))


def test_a_first_batch_without_room_for_the_clusters_is_refused():
    method = kmeans.make(kmeans.Config(num_clusters=10), Toy(size=100).load().spec)
    with pytest.raises(ValueError, match="10 clusters need a first batch of 10 examples or more, not 8"):
        jax.eval_shape(method.init, jax.random.key(0), {"x": jnp.zeros((8, 2))})
