"""Autoencoders: PCA as the linear one's optimum, the codes' Gaussian, reconstructions and what lies between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import harness
from jaxgen import cli
from jaxgen.autoencoders import ae, codes
from jaxgen.classical import components
from jaxgen.cli import condition_of
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.method import gradient_method
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder
from jaxgen.numerics import to_fraction
from jaxgen.optimizer import AdamWConfig, adamw
from jaxgen.trained import Run

OPTIMIZER = AdamWConfig(learning_rate=3e-3, warmup_steps=5)
TINY = Experiment(
    ae.Config(code=4, net=AutoencoderConfig(widths=(4, 8), hidden=16), optimizer=OPTIMIZER),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec
LINEAR = AutoencoderConfig("dense", widths=(), activation="identity")
K = 6
PICTURES = ("samples", "nearest", "known", "singular_values")


@pytest.fixture(scope="module")
def linear():
    """A linear autoencoder of the digits, all of them as one batch, and its state at PCA's solution."""
    method = ae.make(ae.Config(code=K, net=LINEAR, optimizer=OPTIMIZER), SPEC)
    x, _ = harness.digits()
    batch = {"image": jnp.asarray(np.round(16 * x).astype(np.uint8).reshape(-1, 8, 8, 1))}
    found = components.exact(jnp.asarray(x), K + 1)
    return method, batch, found


def at(method, batch, found, rows):
    """The state whose encoder projects on those directions, and whose decoder is its transpose."""
    state = jax.jit(method.init)(jax.random.key(0), batch)
    v = found.directions[jnp.asarray(rows)]
    encoder = {"out": {"kernel": v.T, "bias": -v @ found.mean}}
    return {**state, "params": {"params": {"encoder": encoder, "decoder": {"out": {"kernel": v, "bias": found.mean}}}}}


def test_pca_is_the_linear_autoencoders_optimum(linear):
    """Baldi & Hornik 1989: the loss is the variance that is left, the gradient zero; other directions make saddles."""
    method, batch, found = linear
    step = jax.jit(method.step)
    state = at(method, batch, found, range(K))
    _, metrics = step(state, batch, jax.random.key(1))
    unbiased = 1797 / 1796  # PCA divides by N − 1, the loss by N
    left = (found.total - found.variances[:K].sum()) / 64 / unbiased
    assert float(metrics["loss"]) == pytest.approx(float(left), rel=1e-4)
    assert metrics["grad_norm"] < 1e-5
    rng = np.random.default_rng(0)
    for _ in range(3):  # a minimum
        moved = jax.tree.map(lambda p: p + 0.02 * rng.standard_normal(p.shape, np.float32), state["params"])
        _, worse = step({**state, "params": moved}, batch, jax.random.key(1))
        assert worse["loss"] > metrics["loss"] * 1.001 and worse["grad_norm"] > 1e-3
    _, saddle = step(at(method, batch, found, [*range(K - 1), K]), batch, jax.random.key(1))
    gap = (found.variances[K - 1] - found.variances[K]) / 64 / unbiased
    assert saddle["grad_norm"] < 1e-5
    assert float(saddle["loss"] - metrics["loss"]) == pytest.approx(float(gap), rel=1e-2)


@pytest.mark.slow
def test_training_finds_the_principal_components(linear):
    _, batch, found = linear
    optimizer = AdamWConfig(learning_rate=3e-2, warmup_steps=5, decay_steps=3000)
    method = ae.make(ae.Config(code=K, net=LINEAR, optimizer=optimizer), SPEC)
    step, state = jax.jit(method.step), jax.jit(method.init)(jax.random.key(0), batch)
    for i in range(3000):
        state, metrics = step(state, batch, jax.random.key(i))
    left = float(found.total - found.variances[:K].sum()) / 64 * 1796 / 1797
    assert left * (1 - 1e-4) < float(metrics["loss"]) < left * 1.005
    kernel = np.asarray(state["params"]["params"]["decoder"]["out"]["kernel"])
    inside = kernel @ np.asarray(found.directions[:K]).T  # the decoder spans the components' space
    assert np.sum(inside**2) > 0.99 * np.sum(kernel**2)


def test_the_codes_moments_are_those_of_the_last_batches():
    """Against weights worked out by hand: keep = n/(n + 9), so that the guess of init is gone at once."""
    tx = adamw(OPTIMIZER)
    method = gradient_method(lambda key, batch, warm=None: jnp.zeros(()), lambda p, b, n: (p**2, {}), tx, reads=("x",))
    method = codes.with_moments(method, lambda params, batch: batch["x"], 2)
    batches = jax.random.normal(jax.random.key(0), (3, 5, 2)) + 2.0
    state, step = jax.jit(method.init)(jax.random.key(1), {"x": batches[0]}), jax.jit(method.step)
    for x in batches:
        state, _ = step(state, {"x": x}, jax.random.key(2))
    weights = np.array([1 / 10 * 2 / 11, 9 / 10 * 2 / 11, 9 / 11])
    np.testing.assert_allclose(state["codes"]["mean"], weights @ np.asarray(batches.mean(1)), rtol=1e-5)
    second = np.einsum("bni,bnj->bij", batches, batches) / 5
    np.testing.assert_allclose(state["codes"]["second"], np.einsum("b,bij->ij", weights, second), rtol=1e-5)


def test_codes_that_the_loss_hands_on_are_those_that_a_pass_of_their_own_gives():
    """A batch in parts gives none: there the batch is encoded anew."""
    batch = {"image": jax.random.randint(jax.random.key(0), (4, *SPEC.shape("image")), 0, 17).astype(jnp.uint8)}

    def stepped(accumulate):
        method = ae.make(ae.Config(code=K, net=LINEAR, optimizer=OPTIMIZER, accumulate=accumulate), SPEC)
        state = jax.jit(method.init)(jax.random.key(1), batch)
        new, metrics = jax.jit(method.step)(state, batch, jax.random.key(2))
        assert set(metrics) == {"loss", "grad_norm"}
        return new["codes"]

    whole, parts = stepped(1), stepped(2)
    assert float(jnp.abs(whole["mean"]).max()) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, parts)


def test_drawn_codes_have_the_moments_a_singular_one_too():
    mean, root = jnp.array([1.0, -2.0, 0.5]), jnp.array([[1.0, 0.0], [0.5, 2.0], [1.5, 2.0]])
    covariance = root @ root.T
    moments = {"mean": mean, "second": covariance + mean[:, None] * mean[None]}
    z = np.asarray(codes.draw_codes(moments, jax.random.key(0), 40_000))
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.25)
    across = z @ np.array([1.0, 1.0, -1.0])  # the direction in which there is nothing
    assert across.std() < 1e-2 and across.mean() == pytest.approx(-1.5, abs=1e-3)


@pytest.fixture(scope="module")
def drawn():
    """What three kinds of sampling make of the same pictures, and the plain reconstructions of them."""
    known = jnp.asarray(TINY.data.load().read("test", np.arange(3), ("image",))["image"])

    @jax.jit
    def draw(key):
        state = ae.make(TINY.method, SPEC).init(key, {"image": known})
        configs = [ae.SampleConfig(), ae.SampleConfig(interpolate=4), ae.SampleConfig(tangents=2)]
        methods = [ae.make(dataclasses.replace(TINY.method, sample=config), SPEC) for config in configs]
        return [method.sample(state, jax.random.key(1), 3, {"known": known}) for method in methods]

    return known, *draw(jax.random.key(0))


def test_known_pictures_are_reconstructed_beside_themselves(drawn):
    known, plain, _, _ = drawn
    assert plain["frames"].shape == (3, 2, 8, 8, 1) and plain["frames"].dtype == jnp.uint8
    np.testing.assert_array_equal(plain["frames"][:, 0], known)
    np.testing.assert_array_equal(plain["frames"][:, 1], plain["image"])


def test_rows_lead_from_each_reconstruction_to_the_next(drawn):
    _, plain, rows, _ = drawn
    assert rows["frames"].shape == (3, 4, 8, 8, 1)
    np.testing.assert_array_equal(rows["frames"][:, 0], plain["image"])
    np.testing.assert_array_equal(rows["frames"][:, -1], jnp.roll(plain["image"], -1, 0))


def test_tangents_stand_beside_their_picture(drawn):
    known, _, _, tangents = drawn
    frames = np.asarray(tangents["frames"]).astype(int)
    assert frames.shape == (3, 3, 8, 8, 1)
    np.testing.assert_array_equal(frames[:, 0], known)
    reach = np.abs(frames[:, 1:] - 8).max((2, 3, 4))  # grey is 8 of 16: each vector is stretched to black or white
    np.testing.assert_array_equal(reach, 8)


def test_the_spectrum_comes_with_the_pictures(drawn):
    """Of the encoder's Jacobian at each picture, as autodiff and NumPy find it."""
    known, plain, _, tangents = drawn
    method = ae.make(TINY.method, SPEC)
    state = jax.jit(method.init)(jax.random.key(0), {"image": known})
    encoder = Encoder(TINY.method.net, TINY.method.code)
    params = {"params": state["params"]["params"]["encoder"]}
    jacobian = jax.lax.map(jax.jacrev(lambda x: encoder.apply(params, x[None])[0]), to_fraction(known, 17))
    expected = np.linalg.svd(jacobian.reshape(3, 4, 64), compute_uv=False)
    for found in (plain, tangents):
        np.testing.assert_allclose(found["singular_values"], expected, rtol=1e-3)


def test_evaluate_shows_what_becomes_of_known_pictures(tmp_path):
    method = dataclasses.replace(TINY.method, net=AutoencoderConfig("dense", widths=(16,)))
    experiment = dataclasses.replace(TINY, method=method)
    harness.train(experiment, tmp_path / "ae", steps=2, eval_every=0, sample_every=0)
    assert cli.run_command(cli.evaluate, [str(tmp_path / "ae"), "--num", "8"]) == 0
    written = {path.name for path in (tmp_path / "ae" / "evaluation").iterdir()}
    assert written == {"000002.json", *(f"000002-{name}.png" for name in PICTURES)}
    with Image.open(tmp_path / "ae" / "evaluation" / "000002-known.png") as picture:
        assert picture.width == 8 * 9 * 12 + 12  # picture and reconstruction in turn, eight a row


def test_the_command_hands_over_whole_pictures(tmp_path):
    """`--known test` are the first ones; a mask, which DDPM takes, is refused."""
    run = Run(tmp_path, TINY, SPEC, ae.make(TINY.method, SPEC))
    cond = condition_of(run, [], "test", None, 3)
    assert list(cond) == ["known"]
    np.testing.assert_array_equal(cond["known"], TINY.data.load().read("test", np.arange(3), ("image",))["image"])
    with pytest.raises(ValueError, match="takes whole pictures: it takes no --mask"):
        condition_of(run, [], "test:1", "left", 3)


def test_pixels_survive_the_way_in_and_out():
    pixels = jnp.arange(17, dtype=jnp.uint8)
    np.testing.assert_allclose(to_fraction(pixels, 17), np.arange(17) / 16, atol=1e-6)
    np.testing.assert_array_equal(ae.write(to_fraction(pixels, 17), 17), pixels)
    np.testing.assert_array_equal(ae.write(jnp.array([-3.0, 1.7]), 17), [0, 16])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": 0}, "code=0 must be 1 or more"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"sample": ae.SampleConfig(interpolate=1)}, "2 or more, or 0"),
        ({"sample": ae.SampleConfig(tangents=5)}, "0…4"),
        ({"sample": ae.SampleConfig(interpolate=2, tangents=1)}, "exclude each other"),
        ({"net": AutoencoderConfig(widths=(4,) * 5)}, "take fewer levels"),
    ],
)
def test_what_cannot_be_done_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        ae.make(dataclasses.replace(TINY.method, **changes), SPEC)


def test_tangents_want_pictures():
    method = ae.make(dataclasses.replace(TINY.method, sample=ae.SampleConfig(tangents=1)), SPEC)
    with pytest.raises(ValueError, match="--known test"):
        method.sample({"params": None}, jax.random.key(0), 2)
