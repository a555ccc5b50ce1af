import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images, Spec
from jaxgen.diffusion import ddpm
from jaxgen.nets.unet import UNetConfig

NET = UNetConfig(width=8, multipliers=(1, 2), attention_resolutions=(4,), num_heads=2, num_groups=4)
CONFIG = ddpm.Config(net=NET, warmup_steps=5, learning_rate=3e-3, sample=ddpm.SampleConfig(steps=4))
SPEC = Spec(shapes={"image": (8, 8, 1)}, dtypes={"image": "uint8"}, counts={"train": 8}, names={}, sizes={}, levels=17)

# The smallest run of this method, for the suites that go over the whole catalog.
TINY_NET = dataclasses.replace(NET, multipliers=(1,), attention_resolutions=(8,))
TINY = Experiment(
    method=dataclasses.replace(CONFIG, net=TINY_NET), data=Images("digits"), train=TrainConfig(batch_size=8)
)


def black_and_white(num):
    """Pixels of the lowest and the highest level, so that E x_0² = 1 in [-1, 1]."""
    return {"image": 16 * jax.random.bernoulli(jax.random.key(5), 0.5, (num, 8, 8, 1)).astype(jnp.uint8)}


@pytest.fixture(scope="module")
def trained():
    """A method, its state before training and after 60 steps on one image, and the losses on the way."""
    method = ddpm.make(CONFIG, SPEC)
    batch = {"image": jnp.tile(black_and_white(1)["image"], (64, 1, 1, 1))}
    first = state = jax.jit(method.init)(jax.random.key(0), batch)
    step, losses = jax.jit(method.step), []
    for key in jax.random.split(jax.random.key(1), 60):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"]))
    return method, first, state, losses


def test_one_image_is_learned(trained):
    _, _, _, losses = trained
    # E v² = ᾱ E x_0² + (1 − ᾱ) = 1 on these images, and the network starts at zero.
    assert losses[0] == pytest.approx(1.0, abs=0.1)
    assert np.mean(losses[-5:]) < 0.5


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_untrained_loss_is_the_targets_mean_square(trained, prediction):
    # 1 for ε; 1 for v too, on images with E x_0² = 1.
    method = ddpm.make(dataclasses.replace(CONFIG, prediction=prediction), SPEC)
    batch = black_and_white(64)
    total, weight = jax.jit(method.evaluate)(trained[1], batch, jax.random.key(1))["loss"]
    assert total.shape == weight.shape == (64,)
    assert float(total.sum() / weight.sum()) == pytest.approx(1.0, abs=0.03)  # of 4 · 64 · 64 squares: std .011


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_samples_are_images_and_a_function_of_the_key(trained, sampler):
    cfg = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, sampler=sampler))
    built = ddpm.make(cfg, SPEC)
    state = trained[2]
    sample = jax.jit(built.sample, static_argnums=2)
    a = sample(state, jax.random.key(1), 3)["image"]
    assert a.shape == (3, 8, 8, 1) and a.dtype == jnp.uint8 and int(a.max()) <= 16
    np.testing.assert_array_equal(a, sample(state, jax.random.key(1), 3)["image"])
    assert (a != sample(state, jax.random.key(2), 3)["image"]).any()
    with pytest.raises(ValueError, match="unconditional"):
        built.sample(state, jax.random.key(1), 3, {"label": jnp.zeros(3)})


def test_pixels_and_unit_range_are_inverse_to_each_other():
    levels = jnp.arange(256, dtype=jnp.uint8)
    x = ddpm.to_unit(levels, 256)
    assert float(x[0]) == -1.0 and float(x[-1]) == 1.0
    np.testing.assert_array_equal(ddpm.to_pixels(x, 256), levels)
    np.testing.assert_array_equal(ddpm.to_pixels(jnp.array([-3.0, 3.0]), 17), [0, 16])


def test_evaluation_covers_all_times_evenly():
    t = np.asarray(ddpm.strata(1000, 250, 4))
    assert t.shape == (4, 250)
    np.testing.assert_array_equal(np.sort(t.ravel()), np.arange(1, 1001))
    np.testing.assert_array_equal((t - 1) // 250, np.repeat(np.arange(4)[:, None], 250, 1))


def test_predictor_recovers_image_and_noise_from_a_perfect_network():
    schedule = ddpm.schedules.cosine_schedule(1000)
    x_0 = ddpm.to_unit(black_and_white(4)["image"], 17)
    eps = jax.random.normal(jax.random.key(0), x_0.shape)
    t = jnp.array([100, 300, 600, 800])
    x_t = ddpm.schedules.q_sample(schedule, x_0, t, eps)
    for prediction, target in (("eps", eps), ("v", ddpm.schedules.v_from_x0_eps(schedule, t, x_0, eps))):
        oracle = lambda params, x_t, t, target=target: target
        found = ddpm.predictor(oracle, None, schedule, prediction)(x_t, t, jnp.zeros_like(x_t))
        np.testing.assert_allclose(found[0], x_0, atol=1e-5)
        np.testing.assert_allclose(found[1], eps, atol=1e-5)
        loss = ddpm.squared_error(oracle, None, schedule, prediction, x_0, t, eps)
        np.testing.assert_allclose(loss, jnp.zeros(4), atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": "epsilon"}, r"unknown method.prediction='epsilon' \(did you mean eps\?\)$"),
        ({"prediction": "score"}, "there are: v, eps$"),
        ({"schedule": "cosin"}, r"'cosin' \(did you mean cosine\?\)"),
        ({"sample": ddpm.SampleConfig(sampler="dim")}, "did you mean ddim"),
        ({"sample": ddpm.SampleConfig(variance="bet")}, "did you mean beta"),
        ({"sample": ddpm.SampleConfig(eta=2.0)}, "eta"),
        ({"num_timesteps": 10}, "sample.steps=50"),
        ({"decay_steps": 50}, "must exceed warmup_steps"),
        ({"learning_rate": 0.0}, "method.learning_rate=0.0 must be above 0"),
        ({"learning_rate": -1e-3}, "method.learning_rate=-0.001"),
        ({"learning_rate": float("nan")}, "method.learning_rate=nan"),
        ({"grad_clip": 0.0}, "method.grad_clip=0.0 must be above 0"),
        ({"accumulate": 0}, "method.accumulate=0 must be 1 or more"),
        ({"warmup_steps": -1}, "method.warmup_steps=-1 must be 0"),
        ({"net": UNetConfig(dropout=1.0)}, "method.net.dropout=1.0 must"),
        ({"net": UNetConfig(dropout=-0.1)}, "method.net.dropout=-0.1 must"),
        ({"net": UNetConfig(multipliers=(1, 1, 1, 1, 1))}, "cannot be halved 4 times"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ddpm.make(dataclasses.replace(ddpm.Config(), **change), SPEC)


@pytest.mark.parametrize(
    ("warmup_steps", "decay_steps", "rates"),
    [
        (10, 30, {0: 0.0, 5: 0.5, 10: 1.0, 20: 0.05 + 0.95 / 2, 30: 0.05, 35: 0.05}),
        (0, 30, {0: 1.0, 15: 0.05 + 0.95 / 2, 30: 0.05, 35: 0.05}),
        (10, None, {0: 0.0, 5: 0.5, 10: 1.0, 35: 1.0}),
        (0, None, {0: 1.0, 1: 1.0, 35: 1.0}),
    ],
)
def test_learning_rate_warms_up_and_decays_to_a_twentieth(warmup_steps, decay_steps, rates):
    options = {"warmup_steps": warmup_steps, "decay_steps": decay_steps}
    tx = ddpm.optimizer(ddpm.Config(learning_rate=1.0, grad_clip=1e9, **options))
    params = jnp.zeros(1)
    update = jax.jit(tx.update)
    state, sizes = tx.init(params), []
    for _ in range(40):
        updates, state = update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))  # Adam's step on a constant gradient is the rate
    assert {step: sizes[step] for step in rates} == pytest.approx(rates, abs=1e-3)
