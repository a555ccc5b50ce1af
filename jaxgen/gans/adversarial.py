"""The two turns that every GAN is made of: one descent of the critic, one of the generator, as pure functions.

Batch statistics: real and generated examples are normalised apart, each by its own global batch; running averages are
part of the player, `{"params", "batch_stats"}`, and so is the `spectral` state of a critic's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import optax

from jaxgen.gans import watching
from jaxgen.gans.augment import NUM_UNIFORMS, augment
from jaxgen.gans.losses import LOSSES
from jaxgen.gans.networks import Critic, Generator
from jaxgen.gans.penalties import clip_weights, penalty
from jaxgen.method import descend
from jaxgen.nets import spectral

if TYPE_CHECKING:
    from jaxgen.gans.gan import Config

Player = dict[str, Any]
"""A network's variables: `params`, `batch_stats` where it has any, `spectral` where a critic's kernels are divided."""


class Game(NamedTuple):
    """The turns of a GAN, and the functions that they are made of; y is a condition, int32 [B, A], or None.

    Attributes:
      draw: `(key, num) -> noise`: z [num, K], and uniform numbers for the penalty and the augmentation.
      generate: `(gen, z, y, train=True) -> (x, batch statistics)`.
      scores: `(critic, x, y, train=True) -> (scores [B], batch statistics)`.
      train_critic: `(critic, opt_state, real, fake, y, noise) -> (critic, opt_state, metrics)`.
      gen_loss: `(params, gen, critic, critic_opt, real, y, noise) -> (loss, batch statistics)`.
      train_gen: `(gen, opt_state, critic, critic_opt, real, y, noise) -> (gen, opt_state, metrics)`; `real` is what an
        unrolled critic goes on to learn from.
    """

    draw: Callable[..., dict[str, jax.Array]]
    generate: Callable[..., tuple[jax.Array, Any]]
    scores: Callable[..., tuple[jax.Array, Any]]
    train_critic: Callable[..., tuple[Player, Any, dict[str, Any]]]
    gen_loss: Callable[..., tuple[jax.Array, Any]]
    train_gen: Callable[..., tuple[Player, Any, dict[str, Any]]]


def make_game(
    cfg: Config,
    gen_net: Generator,
    critic_net: Critic,
    gen_tx: optax.GradientTransformation,
    critic_tx: optax.GradientTransformation,
    num_unrolled: int = 0,
) -> Game:
    """The game that `cfg` describes; with `num_unrolled` steps of the critic that the generator looks ahead."""
    loss = LOSSES[cfg.loss]

    def draw(key, num):
        key_z, key_mix, key_augment = jax.random.split(key, 3)
        return {
            "z": jax.random.normal(key_z, (num, cfg.code)),
            "mix": jax.random.uniform(key_mix, (num,)),
            "augment": jax.random.uniform(key_augment, (num, 2, NUM_UNIFORMS)),
        }

    def generate(gen, z, y, train=True):
        return gen_net.apply(gen, z, y, train, mutable=["batch_stats"] if train else [])

    def scores(critic, x, y, train=True):
        variables = {name: value for name, value in critic.items() if name != "spectral"}
        if cfg.critic.spectral:
            variables["params"] = spectral.normalised(critic["params"], critic["spectral"])
        return critic_net.apply(variables, x, y, train, mutable=["batch_stats"] if train else [])

    def with_stats(player, params, metrics):
        """The player with new parameters, and the batch statistics that its loss has handed on."""
        return {**player, "params": params} | (
            {"batch_stats": metrics.pop("batch_stats")} if "batch_stats" in player else {}
        )

    def train_critic(critic, opt_state, real, fake, y, noise):
        if cfg.critic.spectral:
            critic = {**critic, "spectral": spectral.power_iterate(critic["params"], critic["spectral"])}

        def loss_fn(params, real, fake, y, noise):
            real, fake = (augment(x, noise["augment"][:, i], cfg.augment) for i, x in enumerate((real, fake)))
            now = {**critic, "params": params}
            on_real, stats = scores(now, real, y)
            on_fake, stats = scores({**now, **stats}, fake, y)
            total = loss.critic(on_real, on_fake).mean()
            metrics = {"real": on_real.mean(), "fake": on_fake.mean(), "auc": watching.auc(on_real, on_fake), **stats}
            if cfg.loss == "wasserstein":
                metrics["wasserstein"] = -total
            if cfg.penalty != "none":
                omega = penalty(cfg.penalty, lambda x: scores(now, x, y)[0], real, fake, noise["mix"]).mean()
                total, metrics["penalty"] = total + cfg.penalty_weight * omega, omega
            return total, metrics

        params, opt_state, metrics = descend(
            critic_tx, loss_fn, critic["params"], opt_state, real, fake, y, noise, accumulate=cfg.accumulate
        )
        params = params if cfg.clip is None else clip_weights(params, cfg.clip)
        return with_stats(critic, params, metrics), opt_state, metrics

    def gen_loss(params, gen, critic, critic_opt, real, y, noise):
        fake, stats = generate({**gen, "params": params}, noise["z"], y)
        if num_unrolled:

            def ahead(carry, _):
                critic, opt_state = carry
                return train_critic(critic, opt_state, real, fake, y, noise)[:2], None

            critic = jax.lax.scan(ahead, (critic, critic_opt), length=num_unrolled)[0][0]
        on_fake = scores(critic, augment(fake, noise["augment"][:, 1], cfg.augment), y)[0]
        return loss.gen(on_fake).mean(), stats

    def train_gen(gen, opt_state, critic, critic_opt, real, y, noise):
        loss_fn = lambda params, *args: gen_loss(params, gen, critic, critic_opt, *args)
        params, opt_state, metrics = descend(
            gen_tx, loss_fn, gen["params"], opt_state, real, y, noise, accumulate=cfg.accumulate
        )
        return with_stats(gen, params, metrics), opt_state, metrics

    return Game(draw, generate, scores, train_critic, gen_loss, train_gen)
