"""Drawing from a trained denoiser: by which sampler, and images alone, their way from noise, or rows between noises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.diffusion import samplers
from jaxgen.diffusion.denoisers import Predict, clip_x0
from jaxgen.diffusion.samplers import Variance
from jaxgen.diffusion.schedules import Schedule
from jaxgen.sharding import constrain

Sampler = Literal["ddim", "ancestral", "dpm_solver", "heun"]
"""The keys of `samplers.SAMPLERS`."""


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn from a trained model.

    `variance` and `noise_scale` belong to the ancestral sampler: the others ignore them, so that a config which sets
    them can be drawn from by any sampler. `eta` above 0 and `resample` above 1 are refused where they have no effect.
    """

    sampler: Sampler = "ddim"
    """`ddim`, `dpm_solver` and `heun` (good in few steps) or `ancestral` (Ho et al., Algorithm 2)."""
    steps: int = 50
    """Steps, 1 … num_timesteps; each is one evaluation of the network, two with `heun`."""
    eta: float = 0.0
    """Share of fresh noise of `ddim` alone, from 0 (deterministic) to 1 (ancestral with the posterior's variance)."""
    variance: Variance = "posterior"
    """σ² of the ancestral sampler, ignored by others: `posterior` (β̃_t), `beta` (β_t) or `learned`."""
    noise_scale: float = 1.0
    """Factor of the ancestral sampler's σ, ignored by others: a little above 1 gives back detail that an imperfect
    network takes away."""
    resample: int = 1
    """Passes of the ancestral sampler over each step, which fit what is drawn to a known part (RePaint); 10, say."""
    clip: bool = True
    """Whether each step's guess of the clean image is clipped to the pixels' range."""
    guidance: float = 1.0
    """Scale of classifier-free guidance: 1 draws from the conditional model, more sharpens the condition."""
    frames: int = 0
    """So many states of each sample from noise to image, steps + 1 at most, as a strip (.png) or an animation (.gif);
    0 for none."""
    interpolate: int = 0
    """Each sample becomes a row of so many, between two noises; 0 for none."""


def check_drawing(cfg: SampleConfig, num_timesteps: int, learn_variance: bool) -> None:
    """Raises a ValueError for a sampling option that cannot be followed."""
    check_choice("sample.sampler", cfg.sampler, get_args(Sampler))
    check_choice("sample.variance", cfg.variance, get_args(Variance))
    samplers.check_noise(cfg.eta, cfg.noise_scale, cfg.resample)
    samplers.time_steps(num_timesteps, cfg.steps)
    stochastic = cfg.sampler == "ancestral" or (cfg.sampler == "ddim" and cfg.eta > 0)
    for fine, message in (
        (cfg.eta == 0 or cfg.sampler == "ddim", f"eta={cfg.eta} needs sampler=ddim"),
        (cfg.resample == 1 or cfg.sampler == "ancestral", "resample needs sampler=ancestral"),
        (cfg.guidance >= 0, f"guidance={cfg.guidance} must be 0 or more"),
        (learn_variance or cfg.variance != "learned", "variance=learned needs a model with learn_variance"),
        (cfg.frames == 0 or cfg.frames >= 2, f"frames={cfg.frames} must be 2 or more, or 0 for none"),
        (
            cfg.frames <= cfg.steps + 1,
            f"frames={cfg.frames} must be {cfg.steps + 1} or fewer: there are steps + 1 states",
        ),
        (cfg.interpolate == 0 or cfg.interpolate >= 2, f"interpolate={cfg.interpolate} must be 2 or more, or 0"),
        (not (cfg.frames and cfg.interpolate), "frames and interpolate exclude each other"),
        (
            not (cfg.interpolate and stochastic),
            "interpolate needs a sampler without noise: ddim with eta=0, dpm_solver or heun",
        ),
    ):
        if not fine:
            raise ValueError(f"sample.{message}")


def slerp(a: jax.Array, b: jax.Array, weights: jax.Array) -> jax.Array:
    """Spherical interpolation between noises: directions along the great circle, norms linearly (Shoemake 1985).

    A straight line between two noises of norm r passes √½ r from the origin, where no noise of so many dimensions lies.

    Args:
      a: [B, …], at weight 0.
      b: [B, …], at weight 1; not opposite to `a`, where the great circle is undefined.
      weights: [N].

    Returns:
      [N, B, …].
    """
    flat = [x.reshape(1, len(x), -1) for x in (a, b)]
    norms = [jnp.linalg.norm(x, axis=-1, keepdims=True) for x in flat]
    u, v = (x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny) for x, norm in zip(flat, norms, strict=True))
    w = weights[:, None, None]
    # Twice the angle of the half chords: exact for small angles too, where arccos is not.
    chords = [jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (u - v, u + v)]
    angle = 2 * jnp.arctan2(*chords)  # [1, B, 1]
    apart = angle > 1e-4
    safe = jnp.where(apart, angle, 1.0)
    from_u, from_v = (jnp.where(apart, jnp.sin(part * safe) / jnp.sin(safe), part) for part in (1 - w, w))
    mixed = ((1 - w) * norms[0] + w * norms[1]) * (from_u * u + from_v * v)
    return mixed.reshape(len(weights), *a.shape)


def walk(
    predict: Predict, schedule: Schedule, x_T: jax.Array, key: jax.Array, cfg: SampleConfig, path: bool = False
) -> jax.Array:
    """x_0 [B,H,W,C] from normal x_T by the sampler that `cfg` names; with `path` all states [steps+1, B,H,W,C]."""
    ancestral_options = {"variance": cfg.variance, "noise_scale": cfg.noise_scale, "resample": cfg.resample}
    options: dict[str, Any] = {"ddim": {"eta": cfg.eta}, "ancestral": ancestral_options}
    predict = clip_x0(predict, schedule) if cfg.clip else predict
    sampler = samplers.SAMPLERS[cfg.sampler]
    return sampler(predict, schedule, x_T, key, cfg.steps, path=path, **options.get(cfg.sampler, {}))


def draw(
    make_predict: Callable[[Any], Predict],
    schedule: Schedule,
    key: jax.Array,
    num: int,
    shape: tuple[int, ...],
    cfg: SampleConfig,
    given: Any,
) -> dict[str, jax.Array]:
    """`num` images, and their frames where `cfg` asks for some.

    Args:
      make_predict: `given -> predict`; called with `given` as it is, or each row of it `cfg.interpolate` times.
      schedule: the noise levels.
      key: drives everything random.
      num: how many.
      shape: of an image, (H, W, C).
      cfg: how.
      given: what each sample is asked to be, a pytree of [num, ...].

    Returns:
      `image` [num, H, W, C] in [-1, 1]; with `cfg.frames` = f also `frames` [num, f, H, W, C], from noise to image,
      with `cfg.interpolate` = f the row from one noise to another along the sphere.
    """
    key_x, key_y, key_walk = jax.random.split(key, 3)
    x_T = jax.random.normal(key_x, (num, *shape))
    if cfg.interpolate:
        rows = slerp(x_T, jax.random.normal(key_y, x_T.shape), jnp.linspace(0.0, 1.0, cfg.interpolate))
        x_T = rows.swapaxes(0, 1).reshape(-1, *shape)
        given = jax.tree.map(lambda x: jnp.repeat(x, cfg.interpolate, 0), given)
    x = walk(make_predict(given), schedule, constrain(x_T), key_walk, cfg, path=cfg.frames > 0)
    if cfg.frames:
        shown = jnp.round(jnp.linspace(0, cfg.steps, cfg.frames)).astype(jnp.int32)
        x = x[shown].swapaxes(0, 1)
    elif cfg.interpolate:
        x = x.reshape(num, cfg.interpolate, *shape)
    else:
        return {"image": x}
    return {"image": x[:, -1], "frames": x}
