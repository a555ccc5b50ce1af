"""Denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv 2006.11239).

A network learns to undo the encoding x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε at every t at once:

  L(θ) = E_{x_0, t ~ U{1…T}, ε ~ N(0, I)} w_t ‖target − f_θ(x_t, t/T)‖²,   the mean over pixels,

where the target is ε (Ho et al., equation 14; the lecture's noise predictor), x_0 or, by default, v = √ᾱ_t ε −
√(1−ᾱ_t) x_0 (Salimans & Ho 2022, arXiv 2202.00512), which weighs ‖x_0 − x̂_0‖² by 1/(1−ᾱ_t) rather than ᾱ_t/(1−ᾱ_t):
near t = T the network then learns the image as a whole, which makes short runs work. w_t = 1, or min-SNR-γ (Hang et
al. 2023, arXiv 2303.09556). With a learned variance the loss is hybrid, L + λ L_vlb, where L_vlb teaches the variance
alone (Nichol & Dhariwal 2021, arXiv 2102.09672). Self-conditioning shows the network its own guess (Chen et al. 2022,
arXiv 2208.04202).

Deviations: the cosine schedule (Nichol & Dhariwal) is the default beside the paper's linear one; samples are drawn by
DDIM in few steps by default (`sample.sampler="ancestral"`, `steps=1000` is Algorithm 2); AdamW with a warm-up and, if
asked, a decay; an example keeps a random part of its attributes, so that samples can be asked for some of them.
Lecture errata, corrected in `schedules`, `samplers` and `bound`: E1 (variance of a double step), E2 and E3 (α_t =
1−β_t; the closed form starts at x_0), E4 (the bound holds for log P(x), which the lecture's formulas print without
the logarithm), E5 (the posterior's mean has 1−ᾱ_{t−1}), E6 (the sampling step divides by √(1−ᾱ_t)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.config import check_choice, closest
from jaxgen.data.condition import check_keys, open_condition
from jaxgen.diffusion import bound, schedules
from jaxgen.diffusion.denoisers import Denoised, inpaint
from jaxgen.diffusion.drawing import SampleConfig, check_drawing, draw
from jaxgen.diffusion.network import Denoiser, drop, predictor, read, target
from jaxgen.diffusion.schedules import Prediction
from jaxgen.method import Method, gradient_method, with_ema
from jaxgen.nets.unet import UNetConfig, check_unet, rules
from jaxgen.numerics import to_pixels, to_unit
from jaxgen.optimizer import AdamWConfig, adamw

if TYPE_CHECKING:
    from jaxgen.data import Spec

Condition = Literal["label", "attribute", "tokens"]
NUM_TIMES = 4  # times at which `evaluate` looks at each example, beside t = 1


@dataclass(frozen=True)
class Config:
    """Denoising diffusion."""

    prediction: Prediction = "v"
    """What the network predicts: `v`, `eps` (Ho et al.) or `x_0`."""
    schedule: Literal["cosine", "linear", "sigmoid"] = "cosine"
    """How ᾱ_t falls: `cosine`, `linear` (Ho et al.) or `sigmoid`."""
    num_timesteps: int = 1000
    """T, the number of noise levels."""
    min_snr: float | None = None
    """γ of min-SNR weighting, which caps the weight of little noise; None for weights of one."""
    learn_variance: bool = False
    """Whether the variance between β̃ and β is learned as well, with the hybrid loss."""
    bound_weight: float = 1e-3
    """λ, the weight of the bound in the hybrid loss."""
    self_condition: bool = False
    """Whether the network also sees its previous guess of the image."""
    condition: tuple[Condition, ...] = ()
    """What samples can be asked for: `label`, `attribute` or `tokens` (captions), where the data has them."""
    condition_dropout: float = 0.1
    """Share of the training examples that are shown no condition at all."""
    net: UNetConfig = UNetConfig()
    """The U-Net."""
    text_width: int = 128
    """Width of the embedded words of `tokens`."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    ema_decay: float = 0.999
    """Decay of the weights' average, with which samples are drawn."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """How samples are drawn."""


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError, with the choices and the closest one, for an option that `make` cannot follow."""
    for name, value, choices in (
        ("prediction", cfg.prediction, get_args(Prediction)),
        ("schedule", cfg.schedule, tuple(schedules.SCHEDULES)),
        *(("condition", name, get_args(Condition)) for name in cfg.condition),
    ):
        check_choice(f"method.{name}", value, choices)
    for fine, message in (
        (cfg.num_timesteps >= 2, f"num_timesteps={cfg.num_timesteps} must be 2 or more"),
        (cfg.min_snr is None or cfg.min_snr > 0, f"min_snr={cfg.min_snr} must be above 0, or None"),
        (cfg.bound_weight >= 0, f"bound_weight={cfg.bound_weight} must be 0 or more"),
        (0 <= cfg.condition_dropout <= 1, f"condition_dropout={cfg.condition_dropout} must lie in 0…1"),
        (cfg.accumulate >= 1, f"accumulate={cfg.accumulate} must be 1 or more"),
        (0 <= cfg.net.dropout < 1, f"net.dropout={cfg.net.dropout} must lie in 0…1, and below 1"),
        (
            cfg.accumulate == 1 or not cfg.net.dropout,
            "accumulate above 1 is not exact with net.dropout: set one of them",
        ),
    ):
        if not fine:
            raise ValueError(f"method.{message}")
    for name in cfg.condition:
        if name not in spec.sizes:
            raise ValueError(f"the data has no {name!r} to condition on{closest(name, spec.sizes)}")
    check_drawing(cfg.sample, cfg.num_timesteps, cfg.learn_variance)
    if cfg.sample.guidance != 1 and not (cfg.condition and cfg.condition_dropout):
        raise ValueError(
            f"sample.guidance={cfg.sample.guidance} needs a model with a condition, and condition_dropout above 0"
        )
    check_unet(cfg.net, *spec.shape("image")[:2])


def make(cfg: Config, spec: Spec) -> Method:
    """Diffusion on the images of `spec`; reads `image` [B,H,W,C] and the keys of `cfg.condition`.

    `sample` takes these keys as its condition, and, to fill in a picture, `known` uint8 [num,H,W,C] with `mask`
    [num,H,W,1], 1 where it is to be drawn. `evaluate` gives `loss`, the error of the target, and `bits_per_dim/bound`
    with its three parts, for σ² = β̃ or the learned one, guesses clipped, whatever `cfg.sample`; unless it is learned,
    also `bits_per_dim/bound/variance=beta`. With self-conditioning they are of the network that is shown its own first
    guess at the same t, as in training, where a sampler shows it the guess of the step before.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, the data lacks a condition, or the U-Net cannot take
        images of that size.
    """
    check(cfg, spec)
    shape, keys = spec.shape("image"), tuple(cfg.condition)
    schedule = schedules.SCHEDULES[cfg.schedule](cfg.num_timesteps)
    net = Denoiser(cfg.net, shape[2], {k: spec.sizes[k] for k in keys}, cfg.learn_variance, cfg.text_width)

    def run(params, x_t, t, cond, x_0_before, **kwargs):
        x = jnp.concatenate([x_t, jnp.clip(x_0_before, -1.0, 1.0)], -1) if cfg.self_condition else x_t
        return net.apply(params, x, t / cfg.num_timesteps, cond, **kwargs)

    def predict_noised(params, x_0, t, eps, cond, guess_first, **kwargs):
        """x_t, the output there and its errors; self-conditioned, the examples `guess_first` [B] see a first guess."""
        x_t, before = schedules.q_sample(schedule, x_0, t, eps), jnp.zeros_like(x_0)
        if cfg.self_condition:
            first = read(cfg.prediction, schedule, x_t, t, run(params, x_t, t, cond, before, **kwargs)[0])[0]
            before = jnp.where(guess_first[:, None, None, None], jax.lax.stop_gradient(first), before)
        output, mix = run(params, x_t, t, cond, before, **kwargs)
        errors = jnp.square(output - target(cfg.prediction, schedule, x_0, t, eps)).mean((1, 2, 3))
        return x_t, output, mix, errors

    def terms(x_0, x_t, t, output, mix, variance, clip):
        x_0_hat, eps_hat = read(cfg.prediction, schedule, x_t, t, output)
        x_0_hat = jnp.clip(x_0_hat, -1.0, 1.0) if clip else x_0_hat
        return bound.step_terms(schedule, x_0, x_t, t, Denoised(x_0_hat, eps_hat, mix), variance, spec.levels)

    def init_params(key, batch, warm=None):
        x = to_unit(batch["image"][:1], spec.levels)
        x = jnp.concatenate([x, x], -1) if cfg.self_condition else x
        return net.init(key, x, jnp.ones((1,)), {k: batch[k][:1] for k in keys})

    def draw_noise(key, batch):
        key_t, key_eps, key_dropout, key_drop, key_share, key_first = jax.random.split(key, 6)
        size = batch["image"].shape[0]
        return {
            "t": jax.random.randint(key_t, (size,), 1, cfg.num_timesteps + 1),
            "eps": jax.random.normal(key_eps, batch["image"].shape),
            "dropout": jax.random.split(key_dropout, size),
            # What of the condition an example is shown, see `drop`: which keys, and which attributes or words of each.
            "cond_drop": jax.random.uniform(key_drop, (size, 1 + len(keys))),
            "cond_share": {
                k: jax.random.uniform(jax.random.fold_in(key_share, i), (size, 1 + batch[k].shape[1]))
                for i, k in enumerate(keys)
                if batch[k].ndim > 1
            },
            "guess_first": jax.random.bernoulli(key_first, 0.5, (size,)),  # half of the examples, see `predict_noised`
        }

    def loss_fn(params, batch, noise):
        x_0, t = to_unit(batch["image"], spec.levels), noise["t"]
        # One mask serves a whole (part of a) batch, so its first example's key is as good as any.
        dropout = {"train": True, "rngs": {"dropout": noise["dropout"][0]}} if cfg.net.dropout else {}
        cond = drop({k: batch[k] for k in keys}, noise["cond_drop"], noise["cond_share"], cfg.condition_dropout)
        x_t, output, mix, errors = predict_noised(params, x_0, t, noise["eps"], cond, noise["guess_first"], **dropout)
        if cfg.min_snr is not None:
            errors = errors * schedules.min_snr_weight(schedule, t, cfg.prediction, cfg.min_snr)
        if not cfg.learn_variance:
            return errors.mean(), {}
        still = jax.lax.stop_gradient(output)  # the bound teaches the variance alone
        vlb = cfg.num_timesteps * terms(x_0, x_t, t, still, mix, "learned", clip=False).mean()
        return errors.mean() + cfg.bound_weight * vlb, {"error": errors.mean(), "vlb": vlb}

    def sample(state, key, num, cond=None):
        check_keys(cond, *keys, "known", "mask")
        cond = jax.tree.map(jnp.asarray, dict(cond or {}))
        fill = cond.pop("known", None), cond.pop("mask", None)
        if (fill[0] is None) != (fill[1] is None):
            raise ValueError("to fill in a picture takes both `known` and `mask`")
        free = jax.tree.map(jnp.asarray, open_condition(spec, keys, num))
        given = free | cond, free, fill

        def make_predict(given):
            cond, free, (known, mask) = given
            denoise = lambda *args: run(state["params"], *args)  # noqa: E731
            predict = predictor(denoise, cfg.prediction, schedule, cond, free, cfg.sample.guidance)
            if known is None:
                return predict
            return inpaint(predict, schedule, to_unit(known, spec.levels), mask)

        drawn = draw(make_predict, schedule, key, num, shape, cfg.sample, given)
        return {name: to_pixels(x, spec.levels) for name, x in drawn.items()}

    def evaluate(state, batch, key):
        x_0, cond = to_unit(batch["image"], spec.levels), {k: batch[k] for k in keys}
        size, key_t, key_eps = x_0.shape[0], *jax.random.split(key)
        # The first step has a term of its own; the others are drawn.
        drawn, weights = bound.draw_times(schedule, key_t, size, NUM_TIMES)
        times, every = jnp.concatenate([jnp.ones((1, size), jnp.int32), drawn]), jnp.ones((size,), bool)
        variances = ("learned",) if cfg.learn_variance else ("posterior", "beta")

        def at(inputs):
            t, key_eps = inputs
            eps = jax.random.normal(key_eps, x_0.shape)
            x_t, output, mix, errors = predict_noised(state["params"], x_0, t, eps, cond, every)
            return errors, [terms(x_0, x_t, t, output, mix, variance, clip=True) for variance in variances]

        errors, bits = jax.lax.map(at, (times, jax.random.split(key_eps, len(times))))  # [1 + NUM_TIMES, B] each
        prior, others = bound.prior_term(schedule, x_0), cfg.num_timesteps - 1
        summed = lambda each: others * (weights * each[1:]).mean(0)  # over t = 2 … T
        values = {
            "loss": (errors[0] + summed(errors)) / cfg.num_timesteps,
            "bits_per_dim/bound": prior + summed(bits[0]) + bits[0][0],
            "bits_per_dim/prior": prior,
            "bits_per_dim/diffusion": summed(bits[0]),
            "bits_per_dim/reconstruction": bits[0][0],
        }
        for variance, each in zip(variances[1:], bits[1:], strict=True):
            values[f"bits_per_dim/bound/variance={variance}"] = prior + summed(each) + each[0]
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    method = gradient_method(
        init_params,
        loss_fn,
        adamw(cfg.optimizer),
        sample,
        evaluate,
        draw=draw_noise,
        accumulate=cfg.accumulate,
        reads=("image", *keys),
        rules=rules(cfg.net),
    )
    return with_ema(method, decay=cfg.ema_decay)._replace(conditions=(*keys, "known", "mask"))
