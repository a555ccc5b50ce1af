"""Denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv 2006.11239).

A network learns to undo the encoding x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε at every t at once:

  L(θ) = E_{x_0, t ~ U{1…T}, ε ~ N(0, I)} ‖target − f_θ(x_t, t/T)‖²,   the mean over pixels,

where the target is ε (Ho et al., equation 14; the lecture's noise predictor) or, by default, v = √ᾱ_t ε − √(1−ᾱ_t) x_0
(Salimans & Ho 2022, arXiv 2202.00512), which weighs ‖x_0 − x̂_0‖² by 1/(1−ᾱ_t) rather than ᾱ_t/(1−ᾱ_t): near t = T the
network then learns the image as a whole, which makes short runs work.

Deviations: the cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672) is the default beside the paper's linear one;
samples are drawn by DDIM in few steps by default (`sample.sampler="ancestral"`, `steps=1000` is Algorithm 2); AdamW
with a warm-up and, if asked, a decay. Lecture errata, corrected in `schedules` and `samplers`: E1 (variance of a double
step), E2 and E3 (α_t = 1−β_t; the closed form starts at x_0), E4 (the bound holds for log P(x), which the lecture's
formulas print without the logarithm), E5 (the posterior's mean has 1−ᾱ_{t−1}), E6 (the sampling step divides by
√(1−ᾱ_t)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from jaxgen.config import closest
from jaxgen.diffusion import samplers, schedules
from jaxgen.diffusion.denoisers import Denoised, Predict, clip_x0
from jaxgen.diffusion.schedules import Schedule
from jaxgen.method import Method, gradient_method, with_ema
from jaxgen.nets.unet import UNet, UNetConfig, check_unet

if TYPE_CHECKING:
    from jaxgen.data import Spec

Prediction = Literal["v", "eps"]
Sampler = Literal["ddim", "ancestral"]
Variance = Literal["posterior", "beta"]


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn from a trained model."""

    sampler: Sampler = "ddim"
    """`ddim` (good in few steps) or `ancestral` (Ho et al., Algorithm 2)."""
    steps: int = 50
    """Evaluations of the network a sample, 1 … num_timesteps."""
    eta: float = 0.0
    """DDIM's share of fresh noise, from 0 (deterministic) to 1 (ancestral with the posterior's variance)."""
    variance: Variance = "posterior"
    """The ancestral sampler's σ²: `posterior` (β̃_t) or `beta` (β_t)."""
    clip: bool = True
    """Whether each step's guess of the clean image is clipped to the pixels' range."""


@dataclass(frozen=True)
class Config:
    """Denoising diffusion."""

    prediction: Prediction = "v"
    """What the network predicts: `v` or `eps` (Ho et al.)."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How ᾱ_t falls: `cosine` or `linear` (Ho et al.)."""
    num_timesteps: int = 1000
    """T, the number of noise levels."""
    net: UNetConfig = UNetConfig()
    """The U-Net."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    warmup_steps: int = 100
    """Steps in which the rate rises from 0 to its peak."""
    decay_steps: int | None = None
    """Step at which the rate has fallen, along a cosine, to a twentieth of its peak, where it stays; None: no fall."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    grad_clip: float = 1.0
    """Global norm above which gradients are scaled down."""
    ema_decay: float = 0.999
    """Decay of the weights' average, with which samples are drawn."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory; the step stays the same."""
    sample: SampleConfig = SampleConfig()
    """How samples are drawn."""


def to_unit(image: jax.Array, levels: int) -> jax.Array:
    """Pixels 0 … levels-1 of any type → float32 in [-1, 1]."""
    return image.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0


def to_pixels(x: jax.Array, levels: int) -> jax.Array:
    """[-1, 1], clipped, → the nearest of 0 … levels-1, uint8."""
    return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * ((levels - 1) / 2.0)).astype(jnp.uint8)


def squared_error(
    apply: Callable[..., jax.Array],
    params: Any,
    schedule: Schedule,
    prediction: Prediction,
    x_0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
    **kwargs: Any,
) -> jax.Array:
    """Each example's mean squared error of the predicted target.

    Args:
      apply, params: the network, `(params, x_t [B,H,W,C], t/T [B], **kwargs) -> [B,H,W,C]`, and its variables.
      schedule, prediction: the noise levels, and what the network's output means.
      x_0, t, eps: clean images [B,H,W,C] in [-1, 1], time steps [B] in 1…T, standard normal [B,H,W,C].
      **kwargs: handed to `apply` (`cond`, `train`, `rngs`).

    Returns:
      [B], the mean over pixels and channels; 1 in expectation for a network that outputs zero and predicts ε.
    """
    x_t = schedules.q_sample(schedule, x_0, t, eps)
    output = apply(params, x_t, t / schedule.num_timesteps, **kwargs)
    target = eps if prediction == "eps" else schedules.v_from_x0_eps(schedule, t, x_0, eps)
    return jnp.square(output - target).mean((1, 2, 3))


def predictor(
    apply: Callable[..., jax.Array], params: Any, schedule: Schedule, prediction: Prediction, **kwargs: Any
) -> Predict:
    """The network as samplers want it; `kwargs` go to `apply`."""

    def predict(x_t: jax.Array, t: jax.Array, x_0_before: jax.Array) -> Denoised:
        output = apply(params, x_t, t / schedule.num_timesteps, **kwargs)
        if prediction == "eps":
            return Denoised(schedules.x0_from_eps(schedule, x_t, t, output), output)
        return Denoised(*schedules.x0_eps_from_v(schedule, x_t, t, output))

    return predict


def draw_samples(predict: Predict, schedule: Schedule, x_T: jax.Array, key: jax.Array, cfg: SampleConfig) -> jax.Array:
    """x_0 [B,H,W,C] from standard normal x_T [B,H,W,C] by the sampler that `cfg` names."""
    if cfg.clip:
        predict = clip_x0(predict, schedule)
    if cfg.sampler == "ancestral":
        return samplers.ancestral(predict, schedule, x_T, key, cfg.steps, variance=cfg.variance)
    return samplers.ddim(predict, schedule, x_T, key, cfg.steps, eta=cfg.eta)


def strata(num_timesteps: int, size: int, num: int) -> jax.Array:
    """Fixed time steps [num, size]: one in every `num`-th part of 1…T a column, and all of 1…T evenly often overall."""
    place = (jnp.arange(size) + 0.5)[None, :] / size
    return 1 + jnp.floor((jnp.arange(num)[:, None] + place) * (num_timesteps / num)).astype(jnp.int32)


def optimizer(cfg: Config) -> optax.GradientTransformation:
    """AdamW behind a clipped gradient, its rate warmed up and, with `decay_steps`, decayed."""
    peak, warmup = cfg.learning_rate, cfg.warmup_steps
    start = 0.0 if warmup else peak  # optax stays at the start of a ramp of no steps
    rate = optax.linear_schedule(start, peak, warmup)
    if cfg.decay_steps is not None:
        rate = optax.warmup_cosine_decay_schedule(start, peak, warmup, cfg.decay_steps, peak / 20)
    return optax.chain(optax.clip_by_global_norm(cfg.grad_clip), optax.adamw(rate, weight_decay=cfg.weight_decay))


def check(cfg: Config) -> None:
    """Raises a ValueError, with the choices and the closest one, for an option that `make` cannot follow."""
    for name, value, choices in (
        ("prediction", cfg.prediction, get_args(Prediction)),
        ("schedule", cfg.schedule, tuple(schedules.SCHEDULES)),
        ("sample.sampler", cfg.sample.sampler, get_args(Sampler)),
        ("sample.variance", cfg.sample.variance, get_args(Variance)),
    ):
        if value not in choices:
            raise ValueError(f"unknown method.{name}={value!r}{closest(str(value), choices)}")
    warmup, decay = cfg.warmup_steps, cfg.decay_steps
    for fine, message in (
        (cfg.learning_rate > 0, f"learning_rate={cfg.learning_rate} must be above 0"),
        (warmup >= 0, f"warmup_steps={warmup} must be 0 (no warm-up) or more"),
        (decay is None or decay > warmup, f"decay_steps={decay} must exceed warmup_steps={warmup}, or be None"),
        (cfg.grad_clip > 0, f"grad_clip={cfg.grad_clip} must be above 0"),
        (cfg.accumulate >= 1, f"accumulate={cfg.accumulate} must be 1 or more"),
        (0 <= cfg.net.dropout < 1, f"net.dropout={cfg.net.dropout} must lie in 0…1, and below 1"),
        (0 <= cfg.sample.eta <= 1, f"sample.eta={cfg.sample.eta} must lie in 0…1"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")
    samplers.time_steps(cfg.num_timesteps, cfg.sample.steps)


def make(cfg: Config, spec: Spec) -> Method:
    """Diffusion on the images of `spec`; reads the batch key `image` [B,H,W,C].

    `sample` takes no condition. `evaluate` gives `loss`, the error of the target at four time steps an example that are
    the same in every evaluation.

    Raises:
      ValueError: an option of `cfg` is unknown or out of range, or the U-Net cannot take images of that size.
    """
    check(cfg)
    height, width, channels = spec.shape("image")
    check_unet(cfg.net, height, width)
    schedule = schedules.SCHEDULES[cfg.schedule](cfg.num_timesteps)
    net = UNet(cfg.net, channels)
    apply: Callable[..., Any] = net.apply

    def init_params(key, batch, warm=None):
        x = to_unit(batch["image"][:1], spec.levels)
        return net.init(key, x, jnp.ones((1,)))

    def draw(key, batch):
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        size = batch["image"].shape[0]
        return {
            "t": jax.random.randint(key_t, (size,), 1, cfg.num_timesteps + 1),
            "eps": jax.random.normal(key_eps, batch["image"].shape),
            "dropout": jax.random.split(key_drop, size),
        }

    def loss_fn(params, batch, noise):
        x_0 = to_unit(batch["image"], spec.levels)
        # One mask serves a whole (part of a) batch, so its first example's key is as good as any.
        dropout = {"train": True, "rngs": {"dropout": noise["dropout"][0]}} if cfg.net.dropout else {}
        errors = squared_error(apply, params, schedule, cfg.prediction, x_0, noise["t"], noise["eps"], **dropout)
        return errors.mean(), {}

    def sample(state, key, num, cond=None):
        if cond:
            raise ValueError(f"this model is unconditional; it cannot take the condition {', '.join(cond)}")
        key_x, key_walk = jax.random.split(key)
        x_T = jax.random.normal(key_x, (num, height, width, channels))
        predict = predictor(apply, state["params"], schedule, cfg.prediction)
        return {"image": to_pixels(draw_samples(predict, schedule, x_T, key_walk, cfg.sample), spec.levels)}

    def evaluate(state, batch, key):
        x_0 = to_unit(batch["image"], spec.levels)
        times = strata(cfg.num_timesteps, x_0.shape[0], 4)

        def errors(inputs):
            t, key_eps = inputs
            eps = jax.random.normal(key_eps, x_0.shape)
            return squared_error(apply, state["params"], schedule, cfg.prediction, x_0, t, eps)

        total = jax.lax.map(errors, (times, jax.random.split(key, len(times)))).mean(0)
        return {"loss": (total, jnp.ones_like(total))}

    tx = optimizer(cfg)
    method = gradient_method(init_params, loss_fn, tx, sample, evaluate, draw=draw, accumulate=cfg.accumulate)
    return with_ema(method, decay=cfg.ema_decay)
