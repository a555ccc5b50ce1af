"""The code space of a trained GAN: arithmetic with codes, and the codes of given pictures.

Arithmetic (Radford et al. 2016, arXiv 1511.06434, section 6.3.2): averages m_v of the codes whose picture shows the
value v of an attribute. A code gets the value j in place of i by moving along d = w_j − w_i to where the average
lies on it that has been moved s times by the difference of the two,

  z' = z + max(0, d·(m_i + s (m_j − m_i)) − d·z) d / ‖d‖²,   s = 0, 1, 1½, 2, 3, 4, 6,

where w regresses codes on all attributes at once (`codes`). The least s is taken whose picture the encoder below is
sure of, or the one it is surest of; the lecture's s is 1, which often ends short of what it takes.

Search (Yeh et al. 2017, arXiv 1607.07539; Zhu et al. 2016, arXiv 1609.03552): the code of a picture x, of which a part
is hidden, from several starts, the best of which is kept:

  z* = argmin_z ‖seen(g(z)) − seen(x)‖² / |seen| + λ ‖z‖² / K.

Lecture erratum E22: the constraint is the same part of the picture, not the whole one. Starts come from an encoder,
E(x) = (code, logits of the attributes), that this method trains while the generator stays as it is:

  L = ‖E_z(g(z)) − z‖² / K + μ ‖g(E_z(x)) − x‖² / D − log P_E(attributes | x),   z ~ N(0, I), x real.

It also reads the attributes of generated pictures, of whose codes the averages are: no labels of them are needed, and
the judge that measures edits has no part in them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from jaxgen.config import check_choice
from jaxgen.data.condition import check_keys
from jaxgen.gans.codes import mean_codes, moved_until, seen_error
from jaxgen.gans.networks import CriticConfig, Generator, GeneratorConfig, check_networks, one_hots
from jaxgen.method import Method, descend
from jaxgen.nets.autoencoder import AutoencoderConfig, Encoder, check_autoencoder
from jaxgen.numerics import to_pixels, to_unit
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec

MEMORY = 0.999  # decay of the averages of codes: the encoder that reads the pictures changes
Start = Literal["encoder", "random"]
Seen = Literal["unmasked", "whole"]


@dataclass(frozen=True)
class SampleConfig:
    """How codes are searched for and changed."""

    steps: int = 200
    """Steps of the search for a known picture's code."""
    restarts: int = 4
    """Starts of each search."""
    start: Start = "encoder"
    """`encoder`: its code, and in further starts that code with noise; `random`: codes of random pictures."""
    seen: Seen = "unmasked"
    """What of a known picture is searched for: what the mask leaves, or the `whole` picture, to be edited,
    whatever the mask."""
    learning_rate: float = 0.05
    """Of the search, by Adam."""
    prior_weight: float = 1e-3
    """λ, which keeps codes typical."""
    certainty: float = 0.97
    """The probability that the encoder must give to a value asked for; codes move on till it does."""


@dataclass(frozen=True)
class Config:
    """Codes of a trained GAN."""

    code: int = 64
    """K, the numbers of the GAN's z."""
    gen: GeneratorConfig = GeneratorConfig()
    """The generator, as that run's config has it in `method.gen`."""
    encoder: AutoencoderConfig = AutoencoderConfig("conv", widths=(32, 64, 128))
    """The encoder."""
    reconstruction_weight: float = 1.0
    """μ, the weight of reconstructed real pictures."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    sample: SampleConfig = SampleConfig()
    """How codes are searched for and changed."""


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `make` cannot follow."""
    if not {"attribute", "label"} & spec.sizes.keys():
        raise ValueError("codes are averaged by attribute or label, and the data has neither")
    check_networks(cfg.gen, CriticConfig("mlp"), spec.shape("image"))
    check_autoencoder("method.encoder", cfg.encoder, *spec.shape("image")[:2])
    check_choice("method.sample.start", cfg.sample.start, get_args(Start))
    check_choice("method.sample.seen", cfg.sample.seen, get_args(Seen))
    for fine, message in (
        (cfg.code >= 1, f"code={cfg.code} must be 1 or more"),
        (cfg.reconstruction_weight >= 0, f"reconstruction_weight={cfg.reconstruction_weight} must be 0 or more"),
        (min(cfg.sample.steps, cfg.sample.restarts) >= 1, "sample.steps and sample.restarts must be 1 or more"),
        (cfg.sample.learning_rate > 0, f"sample.learning_rate={cfg.sample.learning_rate} must be above 0"),
        (0 < cfg.sample.certainty <= 1, f"sample.certainty={cfg.sample.certainty} must lie in (0, 1]"),
        (cfg.sample.prior_weight >= 0, f"sample.prior_weight={cfg.sample.prior_weight} must be 0 or more"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")


def make(cfg: Config, spec: Spec) -> Method:
    """The codes of a GAN of the images of `spec`; reads `image` and `attribute`, or `label` where it has none.

    It starts from `gan`, the `ema` (or `gen`) of an unconditional GAN's run: without it the generator is a random one.
    `sample` draws pictures, or takes `known` uint8 [num, H, W, C] with `mask` [num, H, W, 1], 1 where it is hidden, and
    fills it in; `seen_error` [num] is then the mean squared error of what was seen, of pixels in [-1, 1]. Attributes or
    a label that are asked for are put in. `frames` has the known picture, the generator's, and the changed one.

    Raises:
      ValueError: the data has no attributes or labels, or an option that is unknown or out of range.
    """
    check(cfg, spec)
    key_of_values = "attribute" if "attribute" in spec.sizes else "label"
    shape, sizes, options = spec.shape("image"), tuple(spec.sizes[key_of_values]), cfg.sample
    ends = list(itertools.accumulate(sizes))
    gen_net, encoder, tx = Generator(cfg.gen, shape), Encoder(cfg.encoder, cfg.code + ends[-1]), adamw(cfg.optimizer)

    def draw(gen, z):
        return gen_net.apply(gen, z)

    def encode(params, x):
        """Codes [B, K], and logits of each attribute."""
        found = encoder.apply(params, x)
        return found[:, : cfg.code], jnp.split(found[:, cfg.code :], ends[:-1], 1)

    def read(logits):
        return jnp.stack([each.argmax(1) for each in logits], 1)  # [B, A]

    def terms(params, gen, x, y, z):
        """The three parts of the loss, [B] each, and the values read off the generated pictures."""
        fake = jax.lax.stop_gradient(draw(gen, z))
        code, fake_logits = encode(params, fake)
        real_code, logits = encode(params, x)
        entropy = [
            optax.softmax_cross_entropy_with_integer_labels(each, y[:, i]).reshape(len(x), 1)
            for i, each in enumerate(logits)
        ]
        parts = {
            "code": jnp.square(code - z).mean(1),
            "reconstruction": jnp.square(draw(gen, real_code) - x).mean((1, 2, 3)),
            "values": jnp.concatenate(entropy, 1).mean(1),
        }
        return parts, read(fake_logits)

    def total(parts):
        return parts["code"] + cfg.reconstruction_weight * parts["reconstruction"] + parts["values"]

    def inputs(batch):
        x = to_unit(batch["image"], spec.levels)
        return x, batch[key_of_values].reshape(len(x), -1)

    def init(key, batch, warm=None):
        key_encoder, key_gen = jax.random.split(key)
        params = encoder.init(key_encoder, jnp.zeros((1, *shape)))
        gen = warm["gan"] if warm else dict(gen_net.init(key_gen, jnp.zeros((1, cfg.code))))
        moments = {"hh": jnp.eye(ends[-1]), "hz": jnp.zeros((ends[-1], cfg.code)), "count": jnp.zeros((), jnp.int32)}
        return {"params": params, "opt_state": tx.init(params), "gen": gen, "moments": moments}

    def step(state, batch, key):
        x, y = inputs(batch)
        z = jax.random.normal(key, (len(x), cfg.code))

        def loss_fn(params, x, y, z):
            parts, values = terms(params, state["gen"], x, y, z)
            means = {name: value.mean() for name, value in parts.items()}
            return total(parts).mean(), {**means, "read": values}

        params, opt_state, metrics = descend(tx, loss_fn, state["params"], state["opt_state"], x, y, z)
        hot, old = one_hots(metrics.pop("read"), sizes), state["moments"]
        keep = jnp.minimum(MEMORY, old["count"] / (old["count"] + 9.0))
        mix = lambda past, now: keep * past + (1 - keep) * now / len(x)
        moments = {"hh": mix(old["hh"], hot.T @ hot), "hz": mix(old["hz"], hot.T @ z), "count": old["count"] + 1}
        return {**state, "params": params, "opt_state": opt_state, "moments": moments}, metrics

    def search(state, key, known, seen):
        """The best code [B, K] of each known picture [B, H, W, C], and its error [B]."""
        num = len(known) * options.restarts
        each = lambda x: jnp.repeat(x, options.restarts, 0)
        # Folded, for samples drawn with the same key have codes that begin with the same numbers.
        z = jax.random.normal(jax.random.fold_in(key, 1), (num, cfg.code))
        if options.start == "encoder":
            first = jnp.arange(num) % options.restarts == 0
            code = each(encode(state["params"], known * seen)[0])  # what is hidden is grey
            z = code + jnp.where(first, 0.0, 0.5)[:, None] * z
        adam, target, where = optax.adam(options.learning_rate), each(known), each(seen)

        def loss_fn(z, target, where):
            prior = options.prior_weight * jnp.square(z).mean(1)
            return (seen_error(draw(state["gen"], z), target, where) + prior).sum(), {}

        turn = lambda carry, _: (descend(adam, loss_fn, *carry, target, where)[:2], None)
        z = jax.lax.scan(turn, (z, adam.init(z)), length=options.steps)[0][0]
        error = seen_error(draw(state["gen"], z), target, where).reshape(-1, options.restarts)
        best = error.argmin(1)
        z = z.reshape(-1, options.restarts, cfg.code)
        take = lambda x: jnp.take_along_axis(x, best.reshape(-1, *[1] * (x.ndim - 1)), 1)[:, 0]
        return take(z), take(error)

    def edit(state, z, asked):
        """z [B, K] with the values asked [B, A], where they are open (-1) those it shows."""
        means, weights = mean_codes(state["moments"])
        logits = lambda z: encode(state["params"], draw(state["gen"], z))[1]
        least = jnp.where(asked < 0, 0.0, options.certainty)  # what is open is to stay the likeliest
        asked = jnp.where(asked < 0, read(logits(z)), asked)

        def put_in(z, i):
            wanted, rows = asked[:, i], slice(ends[i] - sizes[i], ends[i])
            hot = jax.nn.one_hot(wanted, sizes[i])
            now = jnp.where(hot > 0, -jnp.inf, logits(z)[i]).argmax(1)  # the likeliest of the others

            def judge(z):
                found = logits(z)[i]
                probability = (jax.nn.softmax(found) * hot).sum(1)
                return probability, (found.argmax(1) == wanted) & (probability >= least[:, i])

            mean = means[rows]
            return moved_until(z, weights[rows][wanted] - weights[rows][now], mean[now], mean[wanted], judge)

        for i in range(len(sizes)):
            z = put_in(z, i)
        return z

    def sample(state, key, num, cond=None):
        check_keys(cond, key_of_values, "known", "mask")
        cond, frames, more = dict(cond or {}), [], {}
        if "known" in cond:
            known = to_unit(cond["known"], spec.levels)
            hidden = cond["mask"] if "mask" in cond and options.seen == "unmasked" else jnp.zeros_like(known[..., :1])
            z, more["seen_error"] = search(state, key, known, 1.0 - hidden)
            x = draw(state["gen"], z)
            frames = [known * (1.0 - hidden), x]
            x = jnp.where(hidden > 0, x, known) if key_of_values not in cond and options.seen == "unmasked" else x
        else:
            z = jax.random.normal(key, (num, cfg.code))
            x = draw(state["gen"], z)
            frames = [x]
        if key_of_values in cond:
            x = draw(state["gen"], edit(state, z, cond[key_of_values].reshape(num, -1)))
        if cond:
            more["frames"] = to_pixels(jnp.stack([*frames, x], 1), spec.levels)
        return {"image": to_pixels(x, spec.levels), **more}

    def evaluate(state, batch, key):
        x, y = inputs(batch)
        parts, _ = terms(state["params"], state["gen"], x, y, jax.random.normal(key, (len(x), cfg.code)))
        found = {"loss": total(parts), **parts}
        right = (read(encode(state["params"], x)[1]) == y).mean(1, dtype=jnp.float32)
        return {name: (value, jnp.ones_like(value)) for name, value in {**found, "accuracy": right}.items()}

    method = Method(init, step, sample, evaluate, reads=("image", key_of_values), starts_from=("gan",))
    return method._replace(conditions=(key_of_values, "known", "mask"))
