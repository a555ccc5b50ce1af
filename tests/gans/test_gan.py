"""The adversarial core: who moves when, batch statistics, accumulation, devices, conditions, refusals."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import harness
from jaxgen.config import Experiment, Rule, TrainConfig
from jaxgen.data import Images, Toy, batch_at
from jaxgen.gans import gan
from jaxgen.gans.adversarial import make_game
from jaxgen.gans.augment import augment
from jaxgen.gans.networks import Critic, CriticConfig, Generator, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig, optimizer
from jaxgen.report.log import read_metrics

TINY = Experiment(
    gan.Config(
        code=4,
        gen=GeneratorConfig(widths=(8, 4)),
        critic=CriticConfig(widths=(4, 8), norm="batch"),
        augment=("color", "translation", "cutout"),
        condition="label",
        ema_decay=0.9,
    ),
    Images("digits"),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec
SGD = PlayerConfig("sgd", learning_rate=0.05)
MLPS = {"gen": GeneratorConfig("mlp", (16,), norm="none"), "critic": CriticConfig("mlp", (16,))}
RING = Experiment(
    gan.Config(code=4, **MLPS, gen_optimizer=SGD, critic_optimizer=SGD, ema_decay=0.0),
    Toy("ring", size=512),
    TrainConfig(batch_size=32),
)


def batch_of(experiment, method, step=0):
    data, size = experiment.data.load(), experiment.train.batch_size
    return jax.tree.map(jnp.asarray, batch_at(data, seed=0, step=step, batch_size=size, keys=method.reads))


def ring(num_steps=1, **changes):
    """First state, state after `num_steps`, and the last metrics, of a GAN on the ring."""
    experiment = dataclasses.replace(RING, method=dataclasses.replace(RING.method, **changes))
    method = gan.make(experiment.method, experiment.data.load().spec)
    first = state = jax.jit(method.init)(jax.random.key(0), batch_of(experiment, method))
    step = jax.jit(method.step)
    for i in range(num_steps):
        state, metrics = step(state, batch_of(experiment, method, i), jax.random.key(i))
    return first, state, metrics


@pytest.mark.parametrize("kind", ["none", "two_sided", "one_sided", "r1"])
def test_a_step_with_plain_descent_is_written_out_by_hand(kind):
    """Twice the critic, each on its half and on examples of the generator as it was; then the generator, against it.

    Each has its own rate; the penalty, of weight 3, is of every example's own gradient.
    """
    rates = {"gen_optimizer": PlayerConfig("sgd", 0.02), "critic_optimizer": PlayerConfig("sgd", 0.05)}
    first, state, metrics = ring(num_critic=2, penalty=kind, penalty_weight=3.0, **rates)
    x = batch_of(RING, gan.make(RING.method, RING.data.load().spec))["x"]
    key_critic, key_gen = jax.random.split(jax.random.key(0))
    codes = jax.random.normal(jax.random.split(key_gen, 3)[0], (16, 4))

    def play(params, h, act):
        net, out = params["net"]["hidden_0"], params["out"]
        return act(h @ net["kernel"] + net["bias"][None]) @ out["kernel"] + out["bias"][None]

    score = lambda critic, x: play(critic, x, lambda h: jax.nn.leaky_relu(h, 0.2))[:, 0]
    draw = lambda gen, z: play(gen, z, jax.nn.relu)
    descend = lambda params, grads, rate: jax.tree.map(lambda p, g: p - rate * g, params, grads)

    def penalty(critic, real, fake, mix):
        at = real if kind == "r1" else mix[:, None] * real + (1 - mix[:, None]) * fake
        norm = jnp.linalg.norm(jax.vmap(jax.grad(lambda x: score(critic, x[None])[0]))(at), axis=1)
        each = {"none": 0 * norm, "two_sided": (norm - 1) ** 2, "one_sided": jnp.maximum(norm - 1, 0)}
        return (each | {"r1": norm**2 / 2})[kind].mean()

    @jax.jit
    def by_hand(gen, critic):
        for i, key in enumerate(jax.random.split(key_critic, 2)):
            key_z, key_mix, _ = jax.random.split(key, 3)
            mix = jax.random.uniform(key_mix, (16,))
            fake, real = draw(gen, jax.random.normal(key_z, (16, 4))), x[i::2]  # part i: the examples i, i + 2, …
            game = lambda c: (jax.nn.softplus(-score(c, real)) + jax.nn.softplus(score(c, fake))).mean()  # noqa: B023
            loss = lambda c: game(c) + 3.0 * penalty(c, real, fake, mix)  # noqa: B023
            value, grads = jax.value_and_grad(loss)(critic)
            critic = descend(critic, grads, 0.05)
        gen_loss = lambda g: jax.nn.softplus(-score(critic, draw(g, codes))).mean()
        gen_value, grads = jax.value_and_grad(gen_loss)(gen)
        return descend(gen, grads, 0.02), critic, value, gen_value

    want_gen, want_critic, critic_loss, gen_loss = by_hand(first["gen"]["params"], first["critic"]["params"])
    chex.assert_trees_all_close(state["critic"]["params"], want_critic, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(state["gen"]["params"], want_gen, rtol=1e-5, atol=1e-6)
    assert metrics["critic/loss"] == pytest.approx(float(critic_loss), rel=1e-5)  # of the last descent
    assert metrics["loss"] == pytest.approx(float(gen_loss), rel=1e-5)


def test_both_players_see_augmented_images_and_the_condition():
    """Scores of images changed by hand, given their labels; without either they are others."""
    cfg = dataclasses.replace(TINY.method, critic=CriticConfig(widths=(4, 8)), augment=("translation",))
    nets = Generator(cfg.gen, (8, 8, 1), (10,)), Critic(cfg.critic, (10,))
    game = make_game(cfg, *nets, *(optax.sgd(0.1),) * 2)
    y = jnp.arange(6)[:, None]

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 4)
        gen = dict(nets[0].init(keys[0], jnp.zeros((1, 4)), y[:1]))
        critic = dict(nets[1].init(keys[1], jnp.zeros((1, 8, 8, 1)), y[:1]))
        noise, real = game.draw(keys[2], 6), jax.random.normal(keys[3], (6, 8, 8, 1))
        fake = game.generate(gen, noise["z"], y)[0]
        metrics = game.train_critic(critic, optax.sgd(0.1).init(critic["params"]), real, fake, y, noise)[2]
        ahead = game.gen_loss(gen["params"], gen, critic, None, real, y, noise)[0]
        change = lambda x, side: augment(x, noise["augment"][:, side], cfg.augment)
        score = lambda x, y: nets[1].apply(critic, x, y)
        seen = score(change(real, 0), y), score(change(fake, 1), y)
        others = score(real, y), score(change(real, 0), (y + 1) % 10)
        return metrics, ahead, seen, others

    metrics, ahead, (on_real, on_fake), others = run(jax.random.key(0))
    assert metrics["real"] == pytest.approx(float(on_real.mean()), rel=1e-5)
    assert metrics["fake"] == pytest.approx(float(on_fake.mean()), rel=1e-5)
    assert ahead == pytest.approx(float(jax.nn.softplus(-on_fake).mean()), rel=1e-5)
    assert all(abs(float(x.mean() - on_real.mean())) > 1e-3 for x in others)


def test_two_time_scales_and_schedules():
    """Each player follows its own rate; a critic's schedule counts training steps, not its descents."""
    for num, count, rate in ((1, 5, 0.1 * (1 - 0.95 / 2)), (2, 10, 0.1 * (1 - 0.95 / 2)), (2, 50, 0.005)):
        tx = optimizer(PlayerConfig("sgd", learning_rate=0.1, decay_steps=10), num)
        state = tx.init(jnp.float32(0))
        for _ in range(count + 1):
            update, state = tx.update(jnp.float32(1), state)
        assert float(update) == pytest.approx(-rate, rel=1e-5)


@pytest.mark.parametrize("kind", ["two_sided", "r1"])
def test_accumulation_changes_nothing(kind):
    whole, parts = (ring(2, penalty=kind, accumulate=k)[1] for k in (1, 4))
    for player in ("gen", "critic"):
        chex.assert_trees_all_close(whole[player], parts[player], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def conditional():
    """The tiny DCGAN with batch normalisation after three steps, and its batch."""
    method = gan.make(TINY.method, SPEC)
    batch = batch_of(TINY, method)
    first = state = jax.jit(method.init)(jax.random.key(0), batch)
    step = jax.jit(method.step)
    for i in range(3):
        state, _ = step(state, batch, jax.random.key(i))
    return method, batch, first, state


def test_running_statistics_move_and_the_average_has_its_own(conditional):
    _, _, first, state = conditional
    for player in ("gen", "critic"):
        before, after = (jax.tree.leaves(s[player]["batch_stats"]) for s in (first, state))
        assert before and all((a != b).any() for a, b in zip(before, after, strict=True))
    assert jax.tree.structure(state["ema"]) == jax.tree.structure(state["gen"])
    stats = zip(jax.tree.leaves(state["ema"]["batch_stats"]), jax.tree.leaves(state["gen"]["batch_stats"]), strict=True)
    assert all((a != b).any() for a, b in stats)


def test_a_sample_depends_on_its_own_code_alone(conditional):
    method, _, _, state = conditional
    sample = jax.jit(method.sample, static_argnums=2)
    label = jnp.arange(8, dtype=jnp.int32)
    many = sample(state, jax.random.key(0), 8, {"label": label})["image"]
    few = sample(state, jax.random.key(0), 3, {"label": label[:3]})["image"]
    np.testing.assert_array_equal(many[:3], few)
    other = sample(state, jax.random.key(0), 8, {"label": label[::-1]})["image"]
    assert (np.asarray(many) != other).any((1, 2, 3)).sum() >= 6  # the class is seen


def test_what_is_left_open_is_that_of_a_training_example(conditional):
    method, batch, _, state = conditional
    np.testing.assert_array_equal(state["shown"][:, 0], batch["label"])
    open_ = jnp.full((8,), -1, jnp.int32)
    sample = jax.jit(method.sample, static_argnums=2)
    np.testing.assert_array_equal(
        sample(state, jax.random.key(0), 8)["image"], sample(state, jax.random.key(0), 8, {"label": open_})["image"]
    )
    with pytest.raises(ValueError, match="cannot take the condition attribute"):
        method.sample(state, jax.random.key(0), 8, {"attribute": open_})


def test_batch_statistics_and_groups_are_the_same_on_many_devices(tmp_path):
    """Those of the global batch, and groups of 16 on devices that hold 8; plain descent: Adam blows up rounding."""
    nets = {player: dataclasses.replace(net, norm="batch") for player, net in MLPS.items()}
    nets["critic"] = dataclasses.replace(nets["critic"], batch_features="discrimination", num_kernels=3)
    experiment = dataclasses.replace(RING, method=dataclasses.replace(RING.method, **nets))
    experiment = harness.with_train(experiment, log_every=1, eval_every=0, sample_every=0)
    lines = []
    for run, axes, devices in (("one", (1, 1, 1), 1), ("many", (2, 2, 2), 8)):
        harness.train(harness.on_mesh(experiment, *axes), tmp_path / run, devices=devices, steps=3)
        lines.append(read_metrics(tmp_path / run / "metrics.jsonl"))
    assert len(lines[0]) == 3
    for a, b in zip(*lines, strict=True):
        for name in ("loss", "gen/grad_norm", "critic/loss", "critic/grad_norm", "critic/real"):
            assert b[name] == pytest.approx(a[name], rel=1e-5), name


def test_a_collapsed_run_stops_headless_and_says_why(tmp_path):
    """A generator that is far too fast for its critic leaves classes out: evaluation tells, and the rule acts."""
    fast = dataclasses.replace(
        RING.method, gen_optimizer=PlayerConfig(learning_rate=0.05), critic_optimizer=PlayerConfig()
    )
    experiment = harness.with_train(
        dataclasses.replace(RING, method=fast),
        steps=400, eval_every=20, log_every=20, sample_every=0, save_every=100,
        rules=(Rule("eval/class_coverage", below=0.5, patience=3),),
    )  # fmt: skip
    outcome = harness.train(experiment, tmp_path)
    assert outcome.step < 400
    assert "eval/class_coverage" in outcome.reason and "below 0.5 for 3 log lines" in outcome.reason
    last = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "eval/class_coverage" in line][-1]
    assert last["eval/class_coverage"] < 0.5 and last["step"] == outcome.step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "non_saturatin"}, "non_saturating"),
        ({"penalty": "two_side"}, "two_sided"),
        ({"loss": "wasserstein"}, "keeps the critic smooth"),
        ({"penalty": "r1"}, "take layer"),
        ({"accumulate": 2}, "accumulate=1"),
        ({"augment": ("colour",)}, "color"),
        ({"condition": "attribute"}, "no 'attribute' to condition on"),
        ({"clip": 0.0}, "clip"),
        ({"num_critic": 0}, "num_critic"),
        ({"penalty_weight": -1.0}, "penalty_weight"),
        ({"gen_optimizer": PlayerConfig("adma")}, "adam"),
        ({"critic_optimizer": PlayerConfig(learning_rate=0.0)}, "critic_optimizer.learning_rate"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gan.make(dataclasses.replace(TINY.method, **change), SPEC)
