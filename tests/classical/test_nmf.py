import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.decomposition import NMF

import harness
from jaxgen.classical import factors, nmf, nndsvd, rows
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images, Spec
from jaxgen.sharding import BATCH, make_mesh

TINY = Experiment(nmf.Config(num_parts=4), Images("digits"), TrainConfig(batch_size=16))

RULES = [("frobenius", "hals"), ("frobenius", "mu"), ("kl", "mu")]
iterate = jax.jit(factors.iterate, static_argnames=("loss", "solver"))
encode = jax.jit(factors.encode, static_argnames=("loss", "solver"))
fit = jax.jit(factors.fit, static_argnames=("loss", "solver"))


def table(num, dim, rank, seed=0):
    """A non-negative table [num, dim] of this rank, and first factors."""
    rng = np.random.default_rng(seed)
    shapes = ((num, rank), (rank, dim), (num, rank), (rank, dim))
    w, h, first_w, first_h = (rng.uniform(0.1, 1, shape).astype(np.float32) for shape in shapes)
    return w @ h, first_w, first_h


def spec_of(dim, count):
    return Spec(shapes={"x": (dim,)}, dtypes={"x": "float32"}, counts={"train": count}, names={}, sizes={})


@pytest.mark.parametrize(("loss", "solver"), RULES)
@pytest.mark.parametrize("masked", [False, True])
def test_no_update_raises_the_objective_and_nothing_turns_negative(loss, solver, masked, monkeypatch):
    monkeypatch.setitem(rows.CHUNK, "cpu", 12 * 9)
    x, w, h = table(40, 12, 5)
    x = x + np.random.default_rng(1).uniform(0, 0.5, x.shape).astype(np.float32)
    mask = (np.random.default_rng(2).uniform(size=x.shape) < 0.7).astype(np.float32) if masked else None
    objective = lambda w, h: float(factors.errors(x, w, h, mask, loss).sum())
    values = [objective(w, h)]
    for _ in range(30):
        w, h = iterate(x, w, h, mask, loss, solver)
        values.append(objective(w, h))
        assert float(w.min()) >= 0 and float(h.min()) >= 0
    assert all(b <= a * (1 + 1e-6) for a, b in zip(values, values[1:], strict=False))
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize(("loss", "solver"), RULES)
def test_from_equal_starts_the_factors_are_scikit_learns(loss, solver):
    x, w, h = table(40, 12, 5)
    options = {"solver": "cd" if solver == "hals" else "mu", "beta_loss": {"kl": "kullback-leibler"}.get(loss, loss)}
    peer = NMF(5, init="custom", max_iter=20, tol=0, **options)
    peer_w = peer.fit_transform(x, W=w.copy(), H=h.copy())
    found_w, found_h, value, num_iter = fit(x, w, h, 20, loss=loss, solver=solver)
    np.testing.assert_allclose(found_w, peer_w, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found_h, peer.components_, rtol=2e-3, atol=2e-3)
    scale = 1 if loss == "frobenius" else 2  # scikit-learn's error is √(2 · divergence)
    assert float(value) == pytest.approx(peer.reconstruction_err_**2 / scale, rel=1e-3) and int(num_iter) == 20


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_sixteen_parts_of_digits(solver):
    """Relative error ≤ .27 (scikit-learn's multiplicative updates reach .269)."""
    x, _ = harness.digits()
    w, h = jax.jit(nndsvd.start, static_argnums=(2, 3))(jax.random.key(0), x, 16, "random")
    w, h, value, _ = fit(jnp.asarray(x), w, h, 200 if solver == "hals" else 600, loss="frobenius", solver=solver)
    assert np.sqrt(float(value)) / np.linalg.norm(x) <= 0.27
    assert float(w.min()) >= 0 and float(h.min()) >= 0


def test_iterations_stop_when_they_gain_nothing():
    x, w, h = table(30, 8, 2)
    *_, num_iter = fit(x, w, h, 1000, 1e-4)
    assert int(num_iter) < 200
    assert int(fit(x, w, h, 7, 0.0)[3]) == 7


def test_missing_entries_are_no_zeros():
    """A table of rank 3, 60 % observed: the mask recovers what is hidden; zeros in its place do not."""
    x, w, h = table(60, 30, 3)
    mask = (np.random.default_rng(3).uniform(size=x.shape) < 0.6).astype(np.float32)
    hidden = mask == 0
    rms = lambda w, h: float(np.sqrt(np.mean((x - w @ h)[hidden] ** 2)))
    masked = fit(np.where(hidden, 123.0, x), w, h, 2000, mask=mask)  # what stands in the gaps is never read
    zeros = fit(x * mask, w, h, 2000)
    assert rms(*masked[:2]) < 0.02
    assert rms(*zeros[:2]) > 0.3


def test_codes_are_the_best_non_negative_ones():
    """Against Lawson and Hanson's exact solution, for both solvers."""
    x, _, h = table(10, 12, 4)
    x = np.random.default_rng(1).permuted(x, axis=1)  # parts that no longer fit
    exact = np.stack([nnls(h.T.astype(float), row.astype(float))[0] for row in x])
    assert (exact == 0).any(), "too easy: least squares alone would do"
    np.testing.assert_allclose(encode(x, h, 300), exact, atol=2e-3)
    np.testing.assert_allclose(encode(x, h, 20_000, solver="mu"), exact, atol=2e-2)


def test_codes_by_the_divergence_have_its_gradient_zero_or_push_outwards():
    x, _, h = table(10, 12, 4)
    x = x + np.random.default_rng(1).uniform(0, 1, x.shape).astype(np.float32)
    w = encode(x, h, 5000, loss="kl", solver="mu")
    slope = np.asarray(jax.grad(lambda w: factors.errors(x, w, h, None, "kl").sum())(w))
    assert np.abs(slope[np.asarray(w) > 1e-3]).max() < 2e-2
    assert slope.min() > -2e-2


def test_the_divergence_of_zeros_is_finite():
    x, w, h = jnp.zeros((1, 2)), jnp.ones((1, 1)), jnp.array([[2.0, 0.0]])
    np.testing.assert_allclose(factors.errors(x, w, h, None, "kl"), [2.0])


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda"])
def test_singular_starts_follow_boutsidis_and_gallopoulos(init):
    """Pair by pair with numpy's singular values."""
    x = np.random.default_rng(0).uniform(0, 1, (9, 7)).astype(np.float32)
    w, h = nndsvd.start(jax.random.key(0), jnp.asarray(x), 3, init)
    u, s, vt = np.linalg.svd(x)
    for k in range(3):
        sides = []
        for sign in (1, -1):
            a, b = np.maximum(sign * u[:, k], 0), np.maximum(sign * vt[k], 0)
            sides.append((np.linalg.norm(a) * np.linalg.norm(b), a, b))
        size, a, b = max(sides, key=lambda side: side[0])
        a, b = (np.sqrt(s[k] * size) * v / np.linalg.norm(v) for v in (a, b))
        fill = x.mean() if init == "nndsvda" else 0
        np.testing.assert_allclose(w[:, k], np.where(a > 1e-6, a, fill), atol=1e-4)
        np.testing.assert_allclose(h[k], np.where(b > 1e-6, b, fill), atol=1e-4)


def test_random_starts_have_the_datas_scale():
    x, _, _ = table(200, 100, 3)
    w, h = nndsvd.start(jax.random.key(0), jnp.asarray(x), 50, "random")
    # E |n|² = 2/π: half-normal factors predict that share of the mean.
    assert float(jnp.mean(w @ h)) == pytest.approx(float(x.mean()) * 2 / np.pi, rel=0.05)


@pytest.mark.parametrize(("loss", "solver"), RULES)
def test_a_method_fed_whole_tables_learns_them(loss, solver):
    x, _, _ = table(64, 12, 3)
    cfg = nmf.Config(num_parts=3, loss=loss, solver=solver, num_inner=60)
    method = nmf.make(cfg, spec_of(12, 64))
    step, losses = jax.jit(method.step), []
    state = jax.jit(method.init)(jax.random.key(0), {"x": x})
    for _ in range(60):
        state, metrics = step(state, {"x": x}, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert all(b <= a * 1.001 + 1e-7 for a, b in zip(losses, losses[1:], strict=False))
    found = jax.jit(method.evaluate)(state, {"x": x}, jax.random.key(1))
    lost, whole = found["unexplained"]
    np.testing.assert_allclose(whole, np.sum(x**2, 1), rtol=1e-5)
    assert float(lost.sum() / whole.sum()) < 1e-3
    assert losses[-1] == pytest.approx(float(found["loss"][0].sum() / found["loss"][1].sum()), rel=0.2, abs=1e-6)


@pytest.mark.parametrize(("loss", "share"), [("frobenius", 0.01), ("kl", 0.2)])
def test_a_method_fed_batches_comes_near(loss, share):
    """Thirty epochs of eight batches; measured: from 0.0153 to 4.4e-5, and to 1.9e-3, one update a batch, by kl."""
    x, _, _ = table(256, 12, 3)
    method = nmf.make(nmf.Config(num_parts=3, loss=loss, solver="mu", num_inner=30), spec_of(12, 256))
    step, evaluate = jax.jit(method.step), jax.jit(method.evaluate)
    state, unexplained = jax.jit(method.init)(jax.random.key(0), {"x": x[:32]}), []
    for i in range(241):
        if i % 240 == 0:
            lost, whole = evaluate(state, {"x": x}, jax.random.key(1))["unexplained"]
            unexplained.append(float(lost.sum() / whole.sum()))
        state, _ = step(state, {"x": x[i % 8 * 32 : i % 8 * 32 + 32]}, jax.random.key(1))
    assert unexplained[1] < share * unexplained[0]


def test_eight_devices_find_what_one_finds():
    x, _, _ = table(64, 12, 3)
    method = nmf.make(nmf.Config(num_parts=3), spec_of(12, 64))
    parts = []
    for devices in (1, 8):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        with jax.set_mesh(mesh):
            batch = jax.device_put({"x": x}, jax.NamedSharding(mesh, BATCH))
            state = jax.jit(method.init)(jax.random.key(0), batch)
            for _ in range(3):
                state, _ = jax.jit(method.step)(state, batch, jax.random.key(1))
            parts.append(state["parts"])
    np.testing.assert_allclose(parts[0], parts[1], rtol=1e-3, atol=1e-4)


def test_samples_are_the_parts_as_bright_as_can_be():
    data = Images("digits").load()
    method = nmf.make(nmf.Config(num_parts=3), data.spec)
    batch = data.read("train", np.arange(30), ("image",))
    state = jax.jit(method.init)(jax.random.key(0), batch)
    image = np.asarray(jax.jit(method.sample, static_argnums=2)(state, jax.random.key(1), 6)["image"])
    np.testing.assert_array_equal(image[:3], image[3:])
    np.testing.assert_array_equal(image.reshape(6, -1).max(1), np.full(6, 16))
    assert len({im.tobytes() for im in image}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "frobenious"}, r"unknown method.loss='frobenious' \(did you mean frobenius\?\)"),
        ({"solver": "cd"}, "unknown method.solver='cd'; there are: hals, mu"),
        ({"init": "nndsvdar"}, "did you mean nndsvda"),
        ({"loss": "kl"}, "set method.solver='mu'"),
        ({"num_parts": 0}, "method.num_parts=0 must be 1 or more"),
        ({"num_inner": 0}, "method.num_inner=0"),
        ({"forget": 1.5}, "method.forget=1.5 must lie in"),
        ({"l2": -1.0}, "method.l2=-1.0"),
        ({"sample": nmf.SampleConfig(top_n=0)}, "method.sample.top_n=0"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        nmf.make(dataclasses.replace(nmf.Config(), **change), spec_of(4, 10))
