"""Codes: averages and regression beside NumPy's, moves, the search on pictures that the generator can draw."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import codes, gan, inversion
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder
from jaxgen.numerics import to_unit
from jaxgen.optimizer import AdamWConfig

GEN = GeneratorConfig("mlp", (16,), norm="none", activation="tanh")
TINY = Experiment(
    inversion.Config(
        code=4,
        gen=GEN,
        encoder=AutoencoderConfig("dense", widths=(16,)),
        optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=5),
        sample=inversion.SampleConfig(steps=60, restarts=3, learning_rate=0.1, prior_weight=0.0),
    ),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec


def test_weights_are_a_regression_on_all_values_and_means_are_means():
    """Two attributes that go together: the mean of one moves with the other, its weight does not."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 4000)
    second = np.where(rng.random(4000) < 0.9, first, 1 - first)
    hot = np.concatenate([np.eye(2)[first], np.eye(2)[second]], 1)
    effects = rng.normal(size=(4, 3))
    z = hot @ effects + 0.1 * rng.normal(size=(4000, 3))
    moments = {"hh": hot.T @ hot / 4000, "hz": hot.T @ z / 4000}
    means, weights = codes.mean_codes(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), moments))
    np.testing.assert_allclose(means[1], z[first == 1].mean(0), atol=1e-4)
    want = np.linalg.lstsq(hot, z, rcond=None)[0]
    np.testing.assert_allclose(weights[1] - weights[0], want[1] - want[0], atol=5e-3)
    np.testing.assert_allclose(weights[1] - weights[0], effects[1] - effects[0], atol=0.03)
    assert np.abs((means[1] - means[0]) - (effects[1] - effects[0])).max() > 0.3


def test_a_move_ends_where_the_target_lies_and_keeps_the_rest():
    z, direction, target = (jax.random.normal(key, (5, 4)) for key in jax.random.split(jax.random.key(0), 3))
    end = codes.moved(z, direction, target)
    along = lambda x: np.asarray((x * direction).sum(1))
    np.testing.assert_allclose(along(end), np.maximum(along(target), along(z)), rtol=1e-4, atol=1e-5)
    assert 0 < (along(target) > along(z)).sum() < 5
    across = lambda x: x - along(x)[:, None] * direction / jnp.square(direction).sum(1, keepdims=True)
    np.testing.assert_allclose(across(end), across(z), atol=1e-5)
    np.testing.assert_array_equal(codes.moved(z, 0 * direction, target), z)


def test_the_error_is_of_what_is_seen():
    x, known = jnp.zeros((2, 4, 4, 3)), jnp.ones((2, 4, 4, 3)).at[:, 2:].set(5.0)
    seen = jnp.zeros((2, 4, 4, 1)).at[0, :2].set(1.0).at[1].set(1.0)
    np.testing.assert_allclose(codes.seen_error(x, known, seen), [1, 13])


@pytest.fixture(scope="module")
def trained():
    """The method, its data, and a state whose encoder has learnt for a while."""
    method, data = inversion.make(TINY.method, SPEC), TINY.data.load()
    batch = jax.tree.map(jnp.asarray, data.read("train", np.arange(128), ("image", "label")))
    state = jax.jit(method.init)(jax.random.key(0), batch)
    # A generator of random weights hardly moves: with larger ones its pictures differ.
    state["gen"] = jax.tree.map(lambda w: 2.0 * w, state["gen"])

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda s, key: method.step(s, batch, key), state, jax.random.split(jax.random.key(1), 400))

    return method, batch, *train(state)


def test_the_encoder_learns_codes_while_the_generator_stays(trained):
    method, batch, state, metrics = trained
    first = jax.jit(method.init)(jax.random.key(0), batch)
    harness.assert_bitwise(jax.tree.map(lambda w: 2.0 * w, first["gen"]), state["gen"])
    assert metrics["code"][-20:].mean() < 0.3 < 0.9 < metrics["code"][0]
    assert metrics["reconstruction"][-20:].mean() < metrics["reconstruction"][:20].mean()


@pytest.fixture(scope="module")
def drawn(trained):
    """Pictures that the generator can draw."""
    method, _, state, _ = trained
    return jax.jit(method.sample, static_argnums=2)(state, jax.random.key(5), 6)["image"]


@pytest.mark.parametrize(("start", "restarts"), [("encoder", 3), ("random", 10)])
def test_a_hidden_half_is_completed(trained, drawn, start, restarts):
    """From the encoder's code few starts will do; of three random ones, one in six pictures was left at a bad code."""
    _, _, state, _ = trained
    options = dataclasses.replace(TINY.method.sample, start=start, restarts=restarts)
    method = inversion.make(dataclasses.replace(TINY.method, sample=options), SPEC)
    mask = jnp.zeros((6, 8, 8, 1)).at[:, :, 4:].set(1.0)
    found = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(6), 6, {"known": drawn, "mask": mask})
    assert (np.asarray(found["seen_error"]) < 0.01).all()
    np.testing.assert_array_equal(found["image"][:, :, :4], drawn[:, :, :4])  # what was seen is kept
    hidden = lambda image: np.asarray(image, float)[:, :, 4:] / 8  # of 17 levels, in units of [-1, 1]
    error = np.square(hidden(found["image"]) - hidden(drawn)).mean()
    assert error < 0.3 * np.square(hidden(drawn) - hidden(drawn)[::-1]).mean()  # the right picture, not just one
    assert found["frames"].shape == (6, 3, 8, 8, 1)
    np.testing.assert_array_equal(found["frames"][:, 1, :, 4:], found["image"][:, :, 4:])


def test_what_is_not_asked_for_is_not_changed_and_what_is_moves_the_code(trained, drawn):
    method, _, state, _ = trained
    sample = jax.jit(method.sample, static_argnums=2)
    ask = lambda value: sample(state, jax.random.key(5), 6, {"label": jnp.full(6, value, jnp.int32)})
    np.testing.assert_array_equal(ask(-1)["image"], drawn)
    three = ask(3)
    np.testing.assert_array_equal(three["frames"][:, 0], drawn)
    np.testing.assert_array_equal(three["frames"][:, 1], three["image"])
    assert (np.asarray(three["image"]) != drawn).any((1, 2, 3)).sum() >= 3  # of those that are no 3
    encoder = Encoder(TINY.method.encoder, 4 + 10)
    read = lambda image: jax.nn.softmax(encoder.apply(state["params"], to_unit(image, 17))[:, 4:])[:, 3]
    before, after = read(drawn), read(three["image"])
    assert ((after > before) | (before > 0.9)).all() and after.mean() > before.mean() + 0.1


def test_it_starts_from_the_average_of_a_gans_run(tmp_path, monkeypatch):
    base = Experiment(
        gan.Config(code=4, gen=dataclasses.replace(GEN, norm="batch"), critic=CriticConfig("mlp", (8,)), ema_decay=0.9),
        TINY.data,
        TINY.train,
    )
    harness.train(harness.with_train(base, eval_every=0, sample_every=0), tmp_path / "gan", steps=2)
    method = dataclasses.replace(TINY.method, gen=base.method.gen)
    experiment = dataclasses.replace(TINY, method=method, init_from={"gan": f"{tmp_path}/gan:ema"})
    harness.train(harness.with_train(experiment, eval_every=0, sample_every=0), tmp_path / "codes", steps=1)
    source = harness.saved_state(base, tmp_path / "gan")["ema"]
    harness.assert_bitwise(harness.saved_state(experiment, tmp_path / "codes")["gen"], source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "encodr"}, "encoder"),
        ({"seen": "unmaskd"}, "unmasked"),
        ({"restarts": 0}, "restarts"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        options = dataclasses.replace(TINY.method.sample, **change)
        inversion.make(dataclasses.replace(TINY.method, sample=options), SPEC)
