"""Looking ahead: the gradient through the critic's steps, against differences, by hand, and none for U = 0."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from jaxgen.config import Experiment, TrainConfig, load_config
from jaxgen.data import Toy, batch_at
from jaxgen.gans import gan, unrolled
from jaxgen.gans.adversarial import make_game
from jaxgen.gans.networks import Critic, CriticConfig, Generator, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig, optimizer

CONFIG = Path(__file__).parent.parent.parent / "configs" / "unrolled_ring.py"
TINY = Experiment(
    unrolled.Config(
        code=4,
        num_unrolled=2,
        gen=GeneratorConfig("mlp", (8, 8), norm="none", activation="tanh"),
        critic=CriticConfig("mlp", (8, 8), activation="tanh"),
        critic_optimizer=PlayerConfig(learning_rate=1e-3, eps_root=1e-8),
        ema_decay=0.9,
    ),
    Toy("ring", size=512),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec


def test_the_gradient_through_three_steps_is_the_difference_quotient():
    """In double precision, with large steps of the critic, whose share in the gradient is then large."""
    cfg = dataclasses.replace(TINY.method, critic_optimizer=PlayerConfig(learning_rate=0.05, eps_root=1e-8))
    gen_net, critic_net = Generator(cfg.gen, (2,)), Critic(cfg.critic)
    tx = optimizer(cfg.critic_optimizer)
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)
        rng = np.random.default_rng(0)
        gen = double(jax.jit(gen_net.init)(jax.random.key(0), jnp.zeros((1, 4))))
        critic = double(jax.jit(critic_net.init)(jax.random.key(1), jnp.zeros((1, 2))))
        noise = {
            name: jnp.asarray(rng.normal(size=s))
            for name, s in {"z": (16, 4), "mix": (16,), "augment": (16, 2, 7)}.items()
        }
        real = jnp.asarray(rng.normal(size=(16, 2)))

        def loss(params, num):
            game = make_game(cfg, gen_net, critic_net, optimizer(cfg.gen_optimizer), tx, num)
            return game.gen_loss(params, gen, critic, tx.init(critic["params"]), real, None, noise)[0]

        ahead = jax.jit(jax.value_and_grad(lambda params: loss(params, 3)))
        grads, plain = ahead(gen["params"])[1], jax.jit(jax.grad(lambda params: loss(params, 0)))(gen["params"])
        norm = lambda tree: np.sqrt(sum(float(jnp.square(x).sum()) for x in jax.tree.leaves(tree)))
        assert norm(jax.tree.map(jnp.subtract, grads, plain)) > 0.05 * norm(plain)
        for seed in range(3):
            rng = np.random.default_rng(seed + 1)
            way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), gen["params"])  # noqa: B023
            shifted = lambda eps: ahead(jax.tree.map(lambda p, d: p + eps * d, gen["params"], way))[0]  # noqa: B023
            quotient = float(shifted(1e-5) - shifted(-1e-5)) / 2e-5
            product = sum(
                float((g * d).sum()) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True)
            )
            assert product == pytest.approx(quotient, rel=1e-3, abs=1e-9)


def modes(x, centres, sigma):
    """How many of the centres have 1 % of the points x [N, 2] or more within 3 σ."""
    distance = np.linalg.norm(x[:, None] - centres[None], axis=2)
    near = distance.argmin(1)[distance.min(1) < 3 * sigma]
    return int((np.bincount(near, minlength=len(centres)) >= 0.01 * len(x)).sum())


@pytest.mark.slow
def test_looking_ahead_finds_three_modes_more():
    """The config's experiment with five seeds: the mean number of modes found at its last step, with and without."""
    config = load_config(CONFIG)
    data = config.data.load()
    x = jnp.asarray(data.read("train", np.arange(data.spec.counts["train"]), ("x",))["x"])
    angle = np.arange(8) * np.pi / 4
    centres = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)

    def drawn(num_unrolled):
        method = unrolled.make(dataclasses.replace(config.method, num_unrolled=num_unrolled), data.spec)
        size, steps = config.train.batch_size, config.train.steps

        def run(key):
            key_init, key_steps, key_sample = jax.random.split(key, 3)

            def step(state, key):
                key_rows, key_step = jax.random.split(key)
                rows = x[jax.random.randint(key_rows, (size,), 0, len(x))]
                return method.step(state, {"x": rows}, key_step)[0], None

            state = method.init(key_init, {"x": x[:size]})
            state = jax.lax.scan(step, state, jax.random.split(key_steps, steps))[0]
            return method.sample(state, key_sample, 2000)["x"]

        return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 5)))

    found = {num: [modes(sample, centres, 0.02) for sample in drawn(num)] for num in (0, 5)}
    assert np.mean(found[5]) - np.mean(found[0]) >= 3, found


def test_no_step_ahead_is_the_plain_gan_bit_for_bit():
    shared = {field.name: getattr(TINY.method, field.name) for field in dataclasses.fields(gan.Config)}
    states = []
    for method in (
        gan.make(gan.Config(**shared), SPEC),
        unrolled.make(dataclasses.replace(TINY.method, num_unrolled=0), SPEC),
    ):
        batch = batch_at(TINY.data.load(), seed=0, step=0, batch_size=16, keys=method.reads)
        state, step = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.step)
        for i in range(2):
            state, metrics = step(state, batch, jax.random.key(i))
            assert np.isfinite(list(metrics.values())).all()
        states.append(state)
    harness.assert_bitwise(states[0], states[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_unrolled": -1}, "num_unrolled"),
        ({"critic_optimizer": PlayerConfig()}, "eps_root above 0"),
        ({"critic_optimizer": PlayerConfig("rmsprop", eps_root=1e-8)}, "kind=sgd"),
        ({"accumulate": 2}, "accumulate=1"),
        ({"critic": CriticConfig("mlp", (8,), spectral=True)}, "set spectral=False"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        unrolled.make(dataclasses.replace(TINY.method, **change), SPEC)
