"""Data whose best denoiser is a closed form, so that samplers are tested without a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.denoisers import Denoised, Predict
from jaxgen.diffusion.schedules import Schedule, eps_from_x0, levels_at


def gaussian(schedule: Schedule, mean: float, std: float) -> Predict:
    """E[x_0 | x_t] of pixels N(mean, std²), and the ε that belongs to it."""

    def predict(x, t, x_0_before):
        a, b = levels_at(schedule, t)
        excess = (x - a * mean) / (a**2 * std**2 + b**2)
        return Denoised(mean + std**2 * a * excess, b * excess)

    return predict


def mixture(schedule: Schedule, weights, means, stds) -> Predict:
    """The same of pixels from a mixture of Gaussians; sigmoid(x_t) stands for a learned variance."""
    weights, means, stds = (jnp.asarray(x, jnp.float32)[None, None, None, None] for x in (weights, means, stds))

    def predict(x, t, x_0_before):
        a, b = (level[..., None] for level in levels_at(schedule, t))
        excess, var = x[..., None] - a * means, (a * stds) ** 2 + b**2  # [B, H, W, C, components]
        odds = jax.nn.softmax(jnp.log(weights) - 0.5 * jnp.log(var) - excess**2 / (2 * var))
        x_0 = (odds * (means + a * stds**2 / var * excess)).sum(-1)
        return Denoised(x_0, eps_from_x0(schedule, x, t, x_0), jax.nn.sigmoid(x))

    return predict


def pair(schedule: Schedule, correlation: float) -> Predict:
    """The same of images of two pixels [B,1,2,1], each N(0, 1), with that correlation."""
    covariance = np.array([[1.0, correlation], [correlation, 1.0]])
    signal, noise = schedule.signal[:, None, None], schedule.noise[:, None, None]
    gain = jnp.asarray(signal * covariance @ np.linalg.inv(signal**2 * covariance + noise**2 * np.eye(2)), jnp.float32)

    def predict(x, t, x_0_before):
        x_0 = jnp.einsum("bij,bhjc->bhic", gain[t], x)
        return Denoised(x_0, eps_from_x0(schedule, x, t, x_0))

    return predict
