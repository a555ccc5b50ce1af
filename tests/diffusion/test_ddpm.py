"""The diffusion method: what it learns, what it can be asked for, and what it refuses."""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images, Spec
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.diffusion.network import Denoiser, drop, predictor, read, target
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

NET = UNetConfig(width=8, multipliers=(1, 2), attention_resolutions=(4,), num_heads=2, num_groups=4)
OPTIMIZER = AdamWConfig(learning_rate=3e-3, warmup_steps=5)
CONFIG = ddpm.Config(net=NET, optimizer=OPTIMIZER, sample=SampleConfig(steps=4))
SPEC = Spec(
    shapes={"image": (8, 8, 1), "label": ()},
    dtypes={"image": "uint8", "label": "int32"},
    counts={"train": 8},
    names={},
    sizes={"label": (2,)},
    levels=17,
)

# The smallest run of this method, for the suites that go over the whole catalog.
TINY_NET = dataclasses.replace(NET, multipliers=(1,), attention_resolutions=(8,))
TINY = Experiment(
    method=dataclasses.replace(CONFIG, net=TINY_NET), data=Images("digits"), train=TrainConfig(batch_size=8)
)
SMALL = dataclasses.replace(CONFIG, net=TINY_NET)
EVERYTHING = dataclasses.replace(
    CONFIG,
    net=TINY_NET,
    min_snr=5.0,
    learn_variance=True,
    self_condition=True,
    condition=("label",),
    optimizer=AdamWConfig(learning_rate=1e-2, warmup_steps=5),
    ema_decay=0.9,
    sample=SampleConfig(sampler="ancestral", variance="learned", steps=8, guidance=2.0),
)


def black_and_white(num):
    """Pixels of the lowest and the highest level, so that E x_0² = 1 in [-1, 1]."""
    return {"image": 16 * jax.random.bernoulli(jax.random.key(5), 0.5, (num, 8, 8, 1)).astype(jnp.uint8)}


@pytest.fixture(scope="module")
def trained():
    """A method, its state before training and after 60 steps on one image, and the losses on the way."""
    method = ddpm.make(SMALL, SPEC)
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


@pytest.mark.parametrize("prediction", ["v", "eps", "x_0"])
def test_untrained_loss_is_the_targets_mean_square(trained, prediction):
    # 1 for ε; 1 for x_0 and v too, on images with E x_0² = 1.
    method = ddpm.make(dataclasses.replace(SMALL, prediction=prediction), SPEC)
    batch = black_and_white(64)
    total, weight = jax.jit(lambda *args: method.evaluate(*args)["loss"])(trained[1], batch, jax.random.key(1))
    assert total.shape == weight.shape == (64,)
    assert float(total.sum() / weight.sum()) == pytest.approx(1.0, abs=0.03)  # of 4 · 64 · 64 squares: std .011


@functools.cache
def sampler_of(**options):
    """The compiled `sample` of the unconditional model with these options, made once."""
    return jax.jit(
        ddpm.make(dataclasses.replace(SMALL, sample=SampleConfig(steps=4, **options)), SPEC).sample, static_argnums=2
    )


def drawn(trained, key, num, cond=None, sampler="ddim", **options):
    return sampler_of(sampler=sampler, **options)(trained[2], jax.random.key(key), num, cond)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_samples_are_images_and_a_function_of_the_key(trained, sampler):
    draw = lambda key: drawn(trained, key, 2, sampler=sampler)["image"]
    a = draw(1)
    assert a.shape == (2, 8, 8, 1) and a.dtype == jnp.uint8 and int(a.max()) <= 16
    np.testing.assert_array_equal(a, draw(1))
    assert (a != draw(2)).any()
    with pytest.raises(ValueError, match="cannot take the condition label; those it takes: known, mask"):
        drawn(trained, 1, 2, {"label": jnp.zeros(2)}, sampler=sampler)


def test_the_predictor_recovers_image_and_noise_from_a_perfect_network():
    schedule = ddpm.schedules.cosine_schedule(1000)
    x_0 = ddpm.to_unit(black_and_white(4)["image"], 17)
    eps = jax.random.normal(jax.random.key(0), x_0.shape)
    t = jnp.array([100, 300, 600, 800])
    x_t = ddpm.schedules.q_sample(schedule, x_0, t, eps)
    for prediction in ("eps", "v", "x_0"):
        oracle = lambda *args, prediction=prediction: (target(prediction, schedule, x_0, t, eps), None)  # noqa: E731
        found = jax.jit(predictor(oracle, prediction, schedule, {}, {}))(x_t, t, jnp.zeros_like(x_t))
        np.testing.assert_allclose(found.x_0, x_0, atol=1e-5)
        np.testing.assert_allclose(found.eps, eps, atol=1e-5)


def test_guidance_goes_from_the_open_prediction_through_the_asked_one():
    schedule, x = ddpm.schedules.cosine_schedule(10), jnp.zeros((2, 1, 1, 1))
    cond, free = {"label": jnp.array([3, 5])}, {"label": jnp.array([-1, -1])}
    run = lambda x_t, t, cond, before: (cond["label"][:, None, None, None].astype(jnp.float32), None)  # noqa: E731
    for scale, expected in ((0.0, [-1, -1]), (1.0, [3, 5]), (2.5, [9, 14])):
        guess = predictor(run, "eps", schedule, cond, free, scale)(x, jnp.array([4, 4]), x)
        np.testing.assert_allclose(guess.eps.ravel(), expected, rtol=1e-6)


def test_conditions_are_dropped_whole_and_in_part():
    num = 20_000
    keys = jax.random.split(jax.random.key(0), 2)
    uniform, share = jax.random.uniform(keys[0], (num, 3)), jax.random.uniform(keys[1], (num, 4))
    expected = 0.25 * np.eye(4)[0] + 0.75 / 4  # dropped whole, or a uniform share of three: 0, 1, 2 and 3 equally often
    for key in ("attribute", "tokens"):
        asked = jnp.broadcast_to(jnp.arange(1, 4), (num, 3))
        shown = np.asarray(drop({key: asked}, uniform, {key: share}, 0.25)[key])
        np.testing.assert_allclose(np.bincount((shown > 0).sum(1), minlength=4) / num, expected, atol=0.015)
        if key == "tokens":  # words keep their order and leave no gaps
            text = {tuple(row) for row in shown}
            assert text == {(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 2, 0), (1, 3, 0), (2, 3, 0), (1, 2, 3)}
    cond = {"label": jnp.ones(num, jnp.int32), "user": jnp.ones(num, jnp.int32)}
    shown = drop(cond, uniform, {}, 0.25)
    label, user = np.asarray(shown["label"]) > 0, np.asarray(shown["user"]) > 0
    for seen, probability in ((label & user, 0.75**3), (label & ~user, 0.75**2 * 0.25), (user, 0.75**2)):
        assert seen.mean() == pytest.approx(probability, abs=0.015)


SIZES = {"label": (3,), "attribute": (2, 4), "tokens": (7,)}


@pytest.fixture(scope="module")
def denoiser():
    """A network that takes every condition, with noise on its parameters, which start with an output of zero."""
    net = Denoiser(dataclasses.replace(NET, multipliers=(1,), attention_resolutions=(8,)), 1, SIZES, text_width=6)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.2, 0.7])
    cond = {
        "label": jnp.array([1, 1]),
        "attribute": jnp.array([[1, 3], [1, 3]]),
        "tokens": jnp.array([[3, 4, 0, 0], [3, 4, 0, 0]]),
    }
    params = jax.jit(net.init)(jax.random.key(1), x, t, cond)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)
    apply = jax.jit(net.apply)
    return lambda **change: np.asarray(apply(params, x, t, cond | change)[0]), params


@pytest.mark.parametrize(
    "change",
    [
        {"label": jnp.array([1, 2])},
        {"label": jnp.array([1, -1])},
        {"attribute": jnp.array([[1, 3], [1, 0]])},
        {"attribute": jnp.array([[1, 3], [-1, 3]])},
        {"tokens": jnp.array([[3, 4, 0, 0], [4, 3, 0, 0]])},
        {"tokens": jnp.array([[3, 4, 0, 0], [3, 4, 5, 0]])},
        {"tokens": jnp.array([[3, 4, 0, 0], [0, 0, 0, 0]])},
    ],
)
def test_a_condition_changes_the_output_of_its_own_example(denoiser, change):
    run, _ = denoiser
    before, after = run(), run(**change)
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    assert np.isfinite(after).all() and np.abs(after[1] - before[1]).max() > 1e-3


def test_the_length_that_captions_are_padded_to_changes_nothing(denoiser):
    run, params = denoiser
    shorter = jax.tree.map(lambda p: p, params)
    shorter["params"]["place"] = params["params"]["place"][:3]
    net = Denoiser(dataclasses.replace(NET, multipliers=(1,), attention_resolutions=(8,)), 1, SIZES, text_width=6)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.2, 0.7])
    cond = {
        "label": jnp.array([1, 1]),
        "attribute": jnp.array([[1, 3], [1, 3]]),
        "tokens": jnp.array([[3, 4, 0], [3, 4, 0]]),
    }
    np.testing.assert_allclose(jax.jit(net.apply)(shorter, x, t, cond)[0], run(), atol=1e-5)


@pytest.fixture(scope="module")
def conditional():
    """A model with every option on, after 300 steps on images that are black in class 0 and white in class 1."""
    method, label = ddpm.make(EVERYTHING, SPEC), jnp.arange(32) % 2
    batch = {
        "image": jnp.broadcast_to(16 * label[:, None, None, None], (32, 8, 8, 1)).astype(jnp.uint8),
        "label": label,
    }
    state, step = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.step)
    for key in jax.random.split(jax.random.key(1), 300):
        state, metrics = step(state, batch, key)
    return method, state, batch, metrics


def test_a_class_can_be_asked_for(conditional):
    method, state, _, _ = conditional
    label = jnp.array([0] * 6 + [1] * 6)
    image = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(0), 12, {"label": label})["image"]
    brightness = np.asarray(image, np.float32).mean((1, 2, 3)) / 16
    assert brightness[:6].mean() < 0.25 and brightness[6:].mean() > 0.75  # 1/2 each where the class is not heard
    with pytest.raises(ValueError, match="cannot take the condition attribute; those it takes: label, known, mask"):
        method.sample(state, jax.random.key(1), 3, {"attribute": jnp.zeros((3, 2))})


def test_metrics_of_the_hybrid_loss_and_the_bound(conditional):
    method, state, batch, metrics = conditional
    assert float(metrics["loss"]) == pytest.approx(float(metrics["error"] + 1e-3 * metrics["vlb"]), rel=1e-5)
    found = jax.jit(method.evaluate)(state, batch, jax.random.key(0))
    parts = sum(found[f"bits_per_dim/{name}"][0] for name in ("prior", "diffusion", "reconstruction"))
    np.testing.assert_allclose(found["bits_per_dim/bound"][0], parts, rtol=1e-6)
    # Two images, half of the pixels' mass each: a perfect model needs 1/64 of a bit a pixel; log2 17 is no model.
    assert 1 / 64 < float(parts.mean()) < np.log2(17)


def test_the_bound_is_its_sum_over_every_step():
    """T = 4 and a network that says nothing: each step's term of the bound by its expectation over the noise."""
    net = dataclasses.replace(TINY_NET, attention_resolutions=())
    sample = SampleConfig("ancestral", steps=4, variance="beta", clip=False)  # none of which changes the bounds
    cfg = dataclasses.replace(CONFIG, net=net, num_timesteps=4, sample=sample)
    method, batch = ddpm.make(cfg, SPEC), black_and_white(32)
    state = jax.jit(method.init)(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 200)
    found = harness.optimised(lambda keys: jax.lax.map(lambda key: method.evaluate(state, batch, key), keys))(keys)
    schedule, x_0 = ddpm.schedules.cosine_schedule(4), ddpm.to_unit(batch["image"], 17)
    total, beta, error = {}, 0.0, 0.0

    @jax.jit
    def at(t):
        times = jnp.full((32 * 200,), t)
        x = jnp.tile(x_0, (200, 1, 1, 1))
        eps = jax.random.normal(jax.random.key(2), x.shape)
        x_t = ddpm.schedules.q_sample(schedule, x, times, eps)
        x_0_hat, eps_hat = read("v", schedule, x_t, times, jnp.zeros_like(x_t))
        guess = ddpm.Denoised(jnp.clip(x_0_hat, -1, 1), eps_hat)
        terms = [ddpm.bound.step_terms(schedule, x, x_t, times, guess, name, 17) for name in ("posterior", "beta")]
        return *(each.mean() for each in terms), jnp.square(target("v", schedule, x, times, eps)).mean()

    for t in range(1, 5):
        term, beta_term, square = map(float, at(t))
        beta += beta_term
        total["reconstruction" if t == 1 else "diffusion"] = total.get("diffusion", 0.0) + term
        error += square / 4
    total["prior"] = float(ddpm.bound.prior_term(schedule, x_0).mean())
    bounds = {"bound": sum(total.values()), "bound/variance=beta": beta + total["prior"]}
    assert abs(bounds["bound"] - bounds["bound/variance=beta"]) > 0.1 * bounds["bound"]
    for name, expected in (total | bounds).items():
        assert float(found[f"bits_per_dim/{name}"][0].mean()) == pytest.approx(expected, rel=0.01), name
    assert float(found["loss"][0].mean()) == pytest.approx(error, rel=0.01)


def test_self_conditioning_shows_the_guess_before(conditional):
    """The guess of the first step is zero, that of later ones an image: a path of several steps needs them."""
    _, state, _, _ = conditional
    label = jnp.array([0, 1])
    plain = dataclasses.replace(EVERYTHING, self_condition=False)
    with pytest.raises(flax.errors.ScopeParamShapeError):  # the network that sees no guess has a smaller input
        jax.eval_shape(lambda: ddpm.make(plain, SPEC).sample(state, jax.random.key(0), 2, {"label": label}))
    kernel = state["ema"]["params"]["unet"]["conv_in"]["kernel"]
    assert kernel.shape[2] == 2 and np.abs(kernel[:, :, 1]).max() > 0.01
    deaf = jax.tree.map(lambda x: x, state)
    deaf["ema"]["params"]["unet"]["conv_in"]["kernel"] = kernel.at[:, :, 1].set(0)
    cfg = dataclasses.replace(EVERYTHING, sample=SampleConfig(sampler="ddim", steps=4, clip=False))
    sample = jax.jit(ddpm.make(cfg, SPEC).sample, static_argnums=2)
    hearing, not_hearing = (sample(s, jax.random.key(0), 2, {"label": label})["image"] for s in (state, deaf))
    assert (hearing != not_hearing).any()


def test_the_bound_teaches_the_variance_alone():
    """However large its weight, the gradient of what predicts the target stays the same."""
    label = jnp.arange(4) % 2
    batch = {"image": jnp.broadcast_to(8 * label[:, None, None, None], (4, 8, 8, 1)).astype(jnp.uint8), "label": label}
    kernels = []
    plain = dataclasses.replace(OPTIMIZER, warmup_steps=0, learning_rate=1.0, grad_clip=1e9, b1=0.0, b2=0.0)
    net = dataclasses.replace(TINY_NET, attention_resolutions=())
    config = dataclasses.replace(EVERYTHING, optimizer=plain, net=net)
    first = jax.jit(ddpm.make(config, SPEC).init)(jax.random.key(0), batch)
    for weight in (0.0, 100.0):
        method = ddpm.make(dataclasses.replace(config, bound_weight=weight), SPEC)
        state, _ = jax.jit(method.step)(first, batch, jax.random.key(1))
        moments = [
            s for s in jax.tree.leaves(state["opt_state"], is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
        ]
        kernels.append(np.asarray(moments[0].mu["params"]["unet"]["conv_out"]["kernel"]))  # the gradient: b1 = 0
    np.testing.assert_allclose(kernels[1][..., 0], kernels[0][..., 0], rtol=1e-4, atol=1e-6)
    assert not kernels[0][..., 1].any() and np.abs(kernels[1][..., 1]).max() > 1e-3


def test_frames_go_from_noise_to_the_image(trained):
    plain, frames = drawn(trained, 3, 2), drawn(trained, 3, 2, frames=3)
    assert frames["frames"].shape == (2, 3, 8, 8, 1)
    np.testing.assert_array_equal(frames["image"], plain["image"])
    np.testing.assert_array_equal(frames["frames"][:, -1], plain["image"])
    noise = np.asarray(frames["frames"][:, 0], np.float32) / 8 - 1
    assert 0.5 < noise.std() < 1  # N(0, 1), clipped


def test_an_interpolation_begins_at_the_sample_and_changes_all_the_way(trained):
    plain, rows = drawn(trained, 3, 2)["image"], drawn(trained, 3, 2, interpolate=5)["frames"]
    assert rows.shape == (2, 5, 8, 8, 1)
    assert np.abs(np.asarray(rows[:, 0], int) - plain).max() <= 1  # the same noise, up to rounding
    steps = np.abs(np.diff(np.asarray(rows, np.float32), axis=1)).mean((2, 3, 4))
    assert np.all(steps > 0)


@pytest.mark.parametrize("options", [{"sampler": "ancestral"}, {"sampler": "dpm_solver"}, {"sampler": "heun"}, {}])
def test_a_known_part_is_kept_exactly(trained, options):
    known = jax.random.randint(jax.random.key(0), (2, 8, 8, 1), 0, 17).astype(jnp.uint8)
    mask = jnp.zeros((2, 8, 8, 1)).at[:, :, 4:].set(1)
    image = drawn(trained, 3, 2, {"known": known, "mask": mask}, **options)["image"]
    np.testing.assert_array_equal(image[:, :, :4], known[:, :, :4])
    assert (image[:, :, 4:] != known[:, :, 4:]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": "epsilon"}, r"unknown method.prediction='epsilon' \(did you mean eps\?\)$"),
        ({"prediction": "score"}, "there are: v, eps, x_0$"),
        ({"schedule": "cosin"}, r"'cosin' \(did you mean cosine\?\)"),
        ({"condition": ("lable",)}, r"did you mean label\?"),
        ({"condition": ("tokens",)}, "the data has no 'tokens' to condition on; there are: label"),
        ({"sample": SampleConfig(sampler="dim")}, "did you mean ddim"),
        ({"sample": SampleConfig(variance="bet")}, "did you mean beta"),
        ({"sample": SampleConfig(variance="learned")}, "needs a model with learn_variance"),
        ({"sample": SampleConfig(eta=2.0)}, "eta"),
        ({"sample": SampleConfig("ancestral", eta=0.5)}, "eta=0.5 needs sampler=ddim"),
        ({"sample": SampleConfig("dpm_solver", eta=0.5)}, "eta=0.5 needs sampler=ddim"),
        ({"sample": SampleConfig(frames=1)}, "frames=1 must be 2 or more"),
        ({"sample": SampleConfig(steps=3, frames=5)}, "frames=5 must be 4 or fewer"),
        ({"sample": SampleConfig(frames=4, interpolate=4)}, "exclude each other"),
        ({"sample": SampleConfig(interpolate=4, sampler="ancestral")}, "a sampler without noise"),
        ({"sample": SampleConfig(noise_scale=-0.1)}, "noise_scale=-0.1 must be 0 or more"),
        ({"sample": SampleConfig(resample=4)}, "resample needs sampler=ancestral"),
        ({"sample": SampleConfig(guidance=2.0)}, "needs a model with a condition"),
        ({"sample": SampleConfig(guidance=2.0), "condition": ("label",), "condition_dropout": 0.0}, "dropout above 0"),
        ({"num_timesteps": 10}, "steps=50 must lie in 1…10"),
        ({"num_timesteps": 1}, "num_timesteps=1 must be 2 or more"),
        ({"min_snr": 0.0}, "min_snr=0.0 must be above 0"),
        ({"accumulate": 0}, "method.accumulate=0 must be 1 or more"),
        ({"accumulate": 2, "net": UNetConfig(dropout=0.1)}, "not exact with net.dropout"),
        ({"net": UNetConfig(dropout=1.0)}, "method.net.dropout=1.0 must"),
        ({"net": UNetConfig(dropout=-0.1)}, "method.net.dropout=-0.1 must"),
        ({"net": UNetConfig(multipliers=(1, 1, 1, 1, 1))}, "cannot be halved 4 times"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ddpm.make(dataclasses.replace(ddpm.Config(), **change), SPEC)
