import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

import harness
from jaxgen.classical import components, pca, rows, subspace
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images, Spec
from jaxgen.sharding import BATCH, make_mesh

TINY = Experiment(pca.Config(num_components=4, oversampling=4), Images("digits"), TrainConfig(batch_size=16))

SOLVERS = {
    "exact": components.exact,
    "from_covariance": components.from_covariance,
    "randomized": lambda x, num: components.randomized(jax.random.key(0), x, num, num_iters=6),
}


def spec_of(dim, count=1000):
    return Spec(shapes={"x": (dim,)}, dtypes={"x": "float32"}, counts={"train": count}, names={}, sizes={})


@pytest.mark.parametrize("name", SOLVERS)
def test_digits_have_the_known_explained_variance(name, monkeypatch):
    """.285, .849 and .966 at 2, 16 and 32 directions, which are scikit-learn's; orthonormal to 1e-5."""
    monkeypatch.setitem(rows.CHUNK, "cpu", 64 * 500)
    x, _ = harness.digits()
    found = jax.jit(SOLVERS[name], static_argnums=1)(jnp.asarray(x), 32)
    share = np.cumsum(found.variances) / float(found.total)
    np.testing.assert_allclose(np.asarray(share)[[1, 15, 31]], [0.285, 0.849, 0.966], atol=1e-3)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(32), atol=1e-5)
    peer = PCA(32, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(found.mean, peer.mean_, atol=1e-6)
    np.testing.assert_allclose(found.directions[:16], peer.components_[:16], atol=1e-4 if name == "exact" else 5e-3)
    np.testing.assert_allclose(found.variances, peer.explained_variance_, rtol=1e-4 if name != "randomized" else 2e-3)


def test_codes_whiten_and_invert():
    x, _ = harness.digits()
    found = jax.jit(components.exact, static_argnums=1)(jnp.asarray(x), 61)  # three pixels are always 0
    for whiten in (False, True):
        z = components.transform(found, x, whiten)
        np.testing.assert_allclose(components.inverse(found, z, whiten), x, atol=1e-4)
        spread = np.cov(np.asarray(z, np.float64).T)
        np.testing.assert_allclose(spread, np.eye(61) if whiten else np.diag(found.variances), atol=2e-3)


@pytest.mark.parametrize("dim", [5, 301])  # one block; no multiple of the number of blocks
def test_sums_of_products_by_blocks_are_the_sums(dim, monkeypatch):
    monkeypatch.setitem(rows.CHUNK, "cpu", 7 * dim)
    x, shift = jax.random.normal(jax.random.key(0), (40, dim)), jnp.arange(float(dim)) / dim
    first, second = jax.jit(components.moments)(x, shift)
    far = np.asarray(x - shift[None], np.float64)
    np.testing.assert_allclose(first, far.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second, far.T @ far, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(second, second.T)


def test_a_mean_far_from_zero_does_not_drown_the_variance():
    x = 1000 + jax.random.normal(jax.random.key(0), (5000, 3)) * jnp.array([[3.0, 2.0, 1.0]])
    found = components.from_covariance(x, 3)
    np.testing.assert_allclose(found.variances, [9, 4, 1], rtol=0.05)  # the data's own; in float32 x² spoils the units
    np.testing.assert_allclose(
        found.variances, np.linalg.eigvalsh(np.cov(np.asarray(x, np.float64).T))[::-1], rtol=1e-4
    )


def test_subspace_iteration_finds_what_a_small_matrix_has():
    values = jnp.array([9.0, 4.0, 1.0, 0.25, 0.0])
    vectors = subspace.random_directions(jax.random.key(1), 5, 5)
    matrix = vectors.T @ jnp.diag(values) @ vectors
    start = subspace.random_directions(jax.random.key(2), 3, 5)
    directions, found = subspace.subspace(lambda rows: rows @ matrix, start, 40)
    np.testing.assert_allclose(found, values[:3], rtol=1e-4)
    np.testing.assert_allclose(jnp.abs(directions @ vectors[:3].T), np.eye(3), atol=1e-3)
    assert (np.take_along_axis(np.asarray(directions), np.abs(directions).argmax(1)[:, None], 1) > 0).all()


def test_rows_become_orthonormal_and_keep_their_span():
    """Of nearly dependent ones as well, row 3 differs from row 2 by 1e-3, and of wholly dependent ones."""
    x = np.array(jax.random.normal(jax.random.key(0), (4, 9)))
    x[3] = x[2] + 1e-3 * x[3]
    found = subspace.orthonormal(jnp.asarray(x))
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-6)
    q, r = np.linalg.qr(x.T)
    np.testing.assert_allclose(found, (q * np.sign(np.diag(r))).T, atol=1e-3)
    square = jax.random.normal(jax.random.key(1), (12, 3)) @ jax.random.normal(jax.random.key(2), (3, 12))
    found = subspace.orthonormal(square)
    np.testing.assert_allclose(found @ found.T, np.eye(12), atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_streamed_batches_give_the_components_of_all_data(devices):
    """Twelve batches of random size, against numpy's covariance; on eight devices as on one."""
    x = np.random.default_rng(0).normal(size=(480, 6)) @ np.diag([5, 4, 3, 2, 1, 0.5]) + 7
    x = x.astype(np.float32)
    method = pca.make(pca.Config(num_components=3, oversampling=1), spec_of(6))
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    step = jax.jit(method.step)
    with jax.set_mesh(mesh):
        batches = [jax.device_put({"x": part}, jax.NamedSharding(mesh, BATCH)) for part in np.split(x, 12)]
        state = jax.jit(method.init)(jax.random.key(0), batches[0])
        for batch in batches:
            state, metrics = step(state, batch, jax.random.key(1))
        lost = jax.jit(method.evaluate)(state, batches[0], jax.random.key(1))
    values, vectors = np.linalg.eigh(np.cov(x.astype(np.float64).T, bias=True))
    np.testing.assert_allclose(state["variances"][:3], values[::-1][:3], rtol=1e-4)
    np.testing.assert_allclose(np.abs(state["directions"][:3] @ vectors[:, ::-1][:, :3]), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(state["shift"] + state["first"], x.mean(0), rtol=1e-5)
    assert float(metrics["explained"]) == pytest.approx(values[3:].sum() / values.sum(), rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(values[:3].sum() / 6, rel=1e-3)
    # What the batch loses is what lies outside the three directions.
    inside = vectors[:, ::-1][:, :3]
    centered = x[:40] - x.mean(0)
    outside = np.sum((centered - centered @ inside @ inside.T) ** 2, 1)
    np.testing.assert_allclose(lost["loss"][0], outside, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(lost["loss"][1], np.full(40, 6.0))
    np.testing.assert_allclose(lost["unexplained"][1], np.sum(centered**2, 1), rtol=1e-4)


def test_draws_have_the_datas_mean_and_covariance():
    x = jax.random.normal(jax.random.key(0), (4000, 2)) @ jnp.array([[2.0, 1.0], [0.0, 0.5]]) + 3
    method = pca.make(pca.Config(num_components=2), spec_of(2))
    state = jax.jit(method.init)(jax.random.key(0), {"x": x})
    state, _ = jax.jit(method.step)(state, {"x": x}, jax.random.key(1))
    drawn = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(2), 20_000)["x"]
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.15)


def test_components_are_shown_around_grey():
    data = Images("digits").load()
    cfg = pca.Config(num_components=3, sample=pca.SampleConfig(what="components"))
    method = pca.make(cfg, data.spec)
    state = jax.jit(method.init)(jax.random.key(0), data.read("train", np.arange(16), ("image",)))
    image = np.asarray(jax.jit(method.sample, static_argnums=2)(state, jax.random.key(2), 4)["image"])
    np.testing.assert_array_equal(image[0], image[3])
    shown = image.reshape(4, 64)[:3] / 16 - 0.5
    expected = np.asarray(state["directions"][:3])
    np.testing.assert_allclose(shown, expected / np.abs(expected).max(1, keepdims=True) / 2, atol=0.5 / 16 + 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_components": 65}, r"method.num_components=65 must lie in 1…64, the dimension of the data"),
        ({"num_components": 0}, "method.num_components=0"),
        ({"num_iters": 0}, "method.num_iters=0 must be 1 or more"),
        ({"oversampling": -1}, "method.oversampling=-1 must be 0 or more"),
        ({"sample": pca.SampleConfig(what="component")}, r"what='component' \(did you mean components\?\)"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pca.make(dataclasses.replace(pca.Config(), **change), spec_of(64))
