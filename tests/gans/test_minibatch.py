"""A critic that sees its batch tells a generator that repeats itself."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Toy
from jaxgen.data.toy import points
from jaxgen.gans import minibatch
from jaxgen.gans.losses import LOSSES
from jaxgen.gans.networks import Critic, CriticConfig, GeneratorConfig
from jaxgen.gans.watching import auc
from jaxgen.method import descend

TINY = Experiment(
    minibatch.Config(
        code=4,
        gen=GeneratorConfig("mlp", (16,), norm="none"),
        critic=CriticConfig("mlp", (16,), batch_features="discrimination", group_size=4, num_kernels=3, kernel_dim=2),
        ema_decay=0.9,
    ),
    Toy("ring", size=512),
    TrainConfig(batch_size=16),
)
SPEC = TINY.data.load().spec


@pytest.mark.parametrize(
    ("features", "low", "high"), [("none", 0.3, 0.7), ("discrimination", 0.99, 1), ("deviation", 0.99, 1)]
)
def test_copies_of_real_examples_are_told_by_their_batch_alone(features, low, high):
    """Every generated example is a real one; only that a group has one example eight times gives it away."""
    critic = Critic(CriticConfig("mlp", (32,), batch_features=features, group_size=8, num_kernels=8, kernel_dim=3))
    ring, tx = jnp.asarray(points("ring", 4096, 0.02, seed=0)[0]), optax.adam(1e-2)

    def draw(key):
        key_real, key_fake = jax.random.split(key)
        repeated = jnp.repeat(ring[jax.random.randint(key_fake, (16,), 0, 4096)], 8, axis=0)
        return ring[jax.random.randint(key_real, (128,), 0, 4096)], repeated

    def step(carry, key):
        loss = lambda params, real, fake: (
            LOSSES["hinge"].critic(critic.apply(params, real), critic.apply(params, fake)).mean(),
            {},
        )
        return descend(tx, loss, *carry, *draw(key))[:2], None

    @jax.jit
    def run():
        params = critic.init(jax.random.key(0), ring[:8])
        params = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), 300))[0][0]
        return auc(*(critic.apply(params, x) for x in draw(jax.random.key(2))))

    assert low <= float(run()) <= high


def test_critics_without_batch_features_and_groups_that_do_not_fit_are_refused():
    change = lambda **fields: dataclasses.replace(TINY.method, critic=dataclasses.replace(TINY.method.critic, **fields))
    with pytest.raises(ValueError, match="plain GAN"):
        minibatch.make(change(batch_features="none"), SPEC)
    method = minibatch.make(change(group_size=5), SPEC)
    batch = {"x": jnp.zeros((16, 2)), "label": jnp.zeros(16, jnp.int32)}
    with pytest.raises(ValueError, match="group_size"):
        jax.eval_shape(method.step, jax.eval_shape(method.init, jax.random.key(0), batch), batch, jax.random.key(0))
