"""Generative adversarial networks (Goodfellow et al. 2014, arXiv 1406.2661), the one adversarial core of the family.

A generator g turns codes z ~ N(0, I) into examples, a critic f scores them:

  min_g E_z [G(f(g(z)))]   against   min_f E_{x, z} [C(f(x), f(g(z))) + λ Ω(f)],

with the pairs C, G of `losses` and the penalties Ω of `penalties`. A step is a scan of `num_critic` descents of the
critic, each on its own part of the batch, and then one of the generator, of as many codes as such a part has. Losses,
penalties, normalisations and networks combine freely: DCGAN (Radford et al. 2016, arXiv 1511.06434), LSGAN, SNGAN and
others are configs, and `wgan`, `minibatch` and `unrolled` are this method with an addition each.

Batch statistics: in training real and generated examples are normalised apart, each by its own global batch; the
generator's running averages belong to its subtree of the state, so that the average of its weights, with which samples
are drawn, comes with theirs. They forbid gradient accumulation.

Deviations: codes are Gaussian (uniform in the papers before 2017); samples come from an average of the generator's
weights. Lecture errata E16 and E17: see `losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.config import check_choice, closest
from jaxgen.data.condition import check_keys
from jaxgen.gans import losses, watching
from jaxgen.gans.adversarial import make_game
from jaxgen.gans.augment import Policy
from jaxgen.gans.networks import Critic, CriticConfig, Generator, GeneratorConfig, check_networks
from jaxgen.gans.optimizers import PlayerConfig, check_player, optimizer
from jaxgen.gans.penalties import Penalty, between, slopes
from jaxgen.method import Method, split_batch, with_ema
from jaxgen.nets import spectral
from jaxgen.numerics import to_pixels, to_unit

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn."""

    temperature: float = 1.0
    """Factor of the codes: below 1 samples are more typical and less diverse."""


@dataclass(frozen=True)
class Config:
    """A GAN."""

    loss: losses.Name = "non_saturating"
    """`saturating`, `non_saturating`, `least_squares`, `hinge`, `wasserstein` or `margin`."""
    code: int = 64
    """K, the numbers of z."""
    num_critic: int = 1
    """Descents of the critic for each one of the generator; the batch is cut into so many parts."""
    gen: GeneratorConfig = GeneratorConfig()
    """The generator."""
    critic: CriticConfig = CriticConfig()
    """The critic."""
    gen_optimizer: PlayerConfig = PlayerConfig()
    """How the generator descends."""
    critic_optimizer: PlayerConfig = PlayerConfig()
    """How the critic descends."""
    penalty: Penalty = "none"
    """On the critic's gradient: `two_sided` (WGAN-GP), `one_sided` (the lecture's), `r1` or `none`."""
    penalty_weight: float = 10.0
    """λ, the weight of the penalty."""
    clip: float | None = None
    """Bound c of the critic's weights, clipped after each of its steps; None for none."""
    augment: tuple[Policy, ...] = ()
    """What the critic sees changed at random (DiffAugment): `color`, `translation`, `cutout`."""
    condition: Literal["none", "label", "attribute"] = "none"
    """What samples can be asked for, where the data has it."""
    ema_decay: float = 0.999
    """Decay of the generator's average, with which samples are drawn; 0 for none."""
    accumulate: int = 1
    """Parts that a descent's examples are cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """How samples are drawn."""


def check(cfg: Config, spec: Spec, num_unrolled: int = 0) -> None:
    """Raises a ValueError for options that are unknown or out of range, or contradict one another or the data."""
    check_choice("method.loss", cfg.loss, losses.LOSSES)
    check_choice("method.penalty", cfg.penalty, get_args(Penalty))
    check_choice("method.condition", cfg.condition, ("none", "label", "attribute"))
    for policy in cfg.augment:
        check_choice("method.augment", policy, get_args(Policy))
    images = "image" in spec.shapes
    check_networks(cfg.gen, cfg.critic, spec.shape("image" if images else "x"))
    check_player(cfg.gen_optimizer, "gen_optimizer")
    check_player(cfg.critic_optimizer, "critic_optimizer")
    if cfg.condition not in ("none", *spec.sizes):
        raise ValueError(f"the data has no {cfg.condition!r} to condition on{closest(cfg.condition, spec.sizes)}")
    plain = (cfg.critic.norm, cfg.critic.batch_features) == ("none", "none") and cfg.critic.kind != "capsule"
    batched = "batch" in (cfg.gen.norm, cfg.critic.norm) or cfg.critic.batch_features != "none"
    for fine, message in (
        (min(cfg.code, cfg.num_critic, cfg.accumulate) >= 1, "code, num_critic and accumulate must be 1 or more"),
        (cfg.penalty_weight >= 0, f"penalty_weight={cfg.penalty_weight} must be 0 or more"),
        (cfg.clip is None or cfg.clip > 0, f"clip={cfg.clip} must be above 0, or None"),
        (cfg.sample.temperature >= 0, f"sample.temperature={cfg.sample.temperature} must be 0 or more"),
        (
            cfg.penalty == "none" or cfg.critic.norm != "batch",
            f"penalty={cfg.penalty} is of each example's own gradient, which critic.norm=batch has none of: take layer",
        ),
        (
            cfg.accumulate == 1 or not (batched or num_unrolled),
            "accumulate above 1 is not exact with batch statistics, batch features or unrolling: set accumulate=1",
        ),
        (
            cfg.loss != "wasserstein" or cfg.penalty != "none" or cfg.clip is not None or cfg.critic.spectral,
            "loss=wasserstein needs something that keeps the critic smooth: penalty, clip or critic.spectral",
        ),
        (
            cfg.loss != "wasserstein" or not cfg.critic.spectral or plain,
            "critic.spectral keeps a critic smooth that has kernels alone: take critic.norm=none, "
            "critic.batch_features=none and another critic.kind than capsule",
        ),
        (images or not cfg.augment, "augment changes images, and the data has vectors"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")


def make(cfg: Config, spec: Spec) -> Method:
    """A GAN of the images of `spec`, or of its vectors where it has no images: reads `image` [B,H,W,C] or `x` [B,D].

    It reads its condition as well, and `label` where the data has it, for the coverage of classes. `sample` takes the
    condition; what is left open of it is that of an example of the last batch. `evaluate` gives `loss`, the critic's
    on held-out examples against the averaged generator, `duplicates`, `coverage` and `class_coverage` of `watching`,
    and without batch features `js`, a lower bound of the Jensen-Shannon divergence in nats, where the critic's loss is
    logistic, or `wasserstein`, an estimate of the distance by a critic scaled to a mean slope of 1.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or contradicts another one or the data.
    """
    return build(cfg, spec)


def build(cfg: Config, spec: Spec, num_unrolled: int = 0) -> Method:
    """The core, see `make`; with `num_unrolled` steps of the critic through which the generator's gradient goes."""
    check(cfg, spec, num_unrolled)
    name = "image" if "image" in spec.shapes else "x"
    shape, condition, loss = spec.shape(name), cfg.condition, losses.LOSSES[cfg.loss]
    sizes = () if condition == "none" else tuple(spec.sizes[condition])
    gen_net, critic_net = Generator(cfg.gen, shape, sizes), Critic(cfg.critic, sizes)
    gen_tx, critic_tx = optimizer(cfg.gen_optimizer), optimizer(cfg.critic_optimizer, cfg.num_critic)
    game = make_game(cfg, gen_net, critic_net, gen_tx, critic_tx, num_unrolled)

    def read(batch):
        """Examples as the networks see them, and their conditions [B, A], or None."""
        x = to_unit(batch[name], spec.levels) if name == "image" else batch[name]
        return x, batch[condition].reshape(len(x), -1) if sizes else None

    def shown(y):
        """The conditions of samples that ask for nothing; not the batch's own buffer."""
        return y + 0

    def init(key, batch, warm=None):
        key_gen, key_critic = jax.random.split(key)
        x, y = read(batch)
        few = cfg.critic.group_size if cfg.critic.batch_features != "none" else 1
        alike = lambda num: y if y is None else jnp.zeros((num, y.shape[1]), y.dtype)
        gen = dict(gen_net.init(key_gen, jnp.zeros((1, cfg.code)), alike(1)))
        critic = dict(critic_net.init(key_critic, jnp.zeros((few, *shape)), alike(few)))
        if cfg.critic.spectral:
            critic["spectral"] = spectral.init_vectors(critic["params"])
        state = {"gen": gen, "critic": critic}
        state |= {"gen_opt": gen_tx.init(gen["params"]), "critic_opt": critic_tx.init(critic["params"])}
        if sizes:
            state["shown"] = shown(y)
        return state | ({"trend": watching.init_trend()} if cfg.loss == "wasserstein" else {})

    def step(state, batch, key):
        key_critic, key_gen = jax.random.split(key)
        x, y = read(batch)
        gen, parts = state["gen"], split_batch((x, y), cfg.num_critic)
        num = parts[0].shape[1]

        def turn(carry, inputs):
            (real, y), key = inputs
            noise = game.draw(key, num)
            fake = jax.lax.stop_gradient(game.generate(gen, noise["z"], y)[0])
            critic, opt_state, metrics = game.train_critic(*carry, real, fake, y, noise)
            return (critic, opt_state), metrics

        start = state["critic"], state["critic_opt"]
        (critic, critic_opt), found = jax.lax.scan(turn, start, (parts, jax.random.split(key_critic, cfg.num_critic)))
        real, y = jax.tree.map(lambda x: x[-1], parts)
        gen, gen_opt, gen_found = game.train_gen(
            gen, state["gen_opt"], critic, critic_opt, real, y, game.draw(key_gen, num)
        )
        metrics = {"loss": gen_found.pop("loss"), **{f"gen/{k}": value for k, value in gen_found.items()}}
        metrics |= {f"critic/{k}": value[-1] for k, value in found.items()}
        new = {**state, "gen": gen, "critic": critic, "gen_opt": gen_opt, "critic_opt": critic_opt}
        if sizes:
            new["shown"] = shown(y)
        if cfg.loss == "wasserstein":
            new["trend"], metrics["critic/falling"] = watching.follow(state["trend"], metrics["critic/wasserstein"])
        return new, metrics

    def sample(state, key, num, cond=None):
        check_keys(cond, *conditions)
        key_z, key_y = jax.random.split(key)
        y = None
        if sizes:
            y = state["shown"][jax.random.randint(key_y, (num,), 0, len(state["shown"]))]
            asked = cond[condition].reshape(num, -1) if cond else jnp.full_like(y, -1)
            y = jnp.where(asked < 0, y, asked)
        z = cfg.sample.temperature * jax.random.normal(key_z, (num, cfg.code))
        x = game.generate(state["gen"], z, y, train=False)[0]
        return {"image": to_pixels(x, spec.levels)} if name == "image" else {"x": x}

    def evaluate(state, batch, key):
        (x, y), noise = read(batch), game.draw(key, len(batch[name]))
        fake = game.generate(state["gen"], noise["z"], y, train=False)[0]
        score = lambda x: game.scores(state["critic"], x, y, train=False)[0]
        real_score, fake_score = score(x), score(fake)
        each, ones = loss.critic(real_score, fake_score), jnp.ones(len(x))
        near = watching.covered(x, fake)
        found = {"loss": (each, ones), "coverage": (near, ones), "duplicates": (watching.duplicates(x, fake), ones)}
        if "label" in reads:
            found["class_coverage"] = watching.class_covered(near, batch["label"], spec.sizes["label"][0]), ones
        if cfg.critic.batch_features != "none":
            return found  # a critic of groups tells groups apart, which says less of single examples
        if cfg.loss in ("saturating", "non_saturating"):
            found["js"] = losses.js_bound(each), ones
        elif cfg.loss == "wasserstein":
            found["wasserstein"] = real_score - fake_score, slopes(score, between(x, fake, noise["mix"]))
        return found

    conditions = (condition,) if sizes else ()
    reads = tuple(dict.fromkeys((name, *conditions, *(("label",) if "label" in spec.sizes else ()))))
    method: Any = Method(init, step, sample, evaluate, reads=reads, conditions=conditions)
    return with_ema(method, "gen", cfg.ema_decay)
