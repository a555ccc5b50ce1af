"""Draws docs/images/divergences.png: one Gaussian fitted to two bumps, by KL(p ‖ q) and by KL(q ‖ p).

Run: python docs/figures/divergences.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from jaxgen.method import descend

IMAGE = Path(__file__).parents[1] / "images" / "divergences.png"
X = jnp.linspace(-15.0, 15.0, 3001)  # integrals are sums over this grid: its ends lie 8 standard deviations out
STEP = 0.01


def log_gaussian(x: jax.Array, mean: jax.Array | float, std: jax.Array | float) -> jax.Array:
    """log N(x; mean, std²), in nats."""
    return jax.scipy.stats.norm.logpdf(x, mean, std)


def log_bumps(x: jax.Array) -> jax.Array:
    """log of ½ N(−3, ½²) + ½ N(3, ½²), in nats."""
    return jnp.logaddexp(log_gaussian(x, -3.0, 0.5), log_gaussian(x, 3.0, 0.5)) - jnp.log(2.0)


def kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p ‖ q) of two log-densities on the grid [N], in nats."""
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q)) * STEP


def divergence(direction: Literal["forward", "reverse"], mean: jax.Array, std: jax.Array) -> jax.Array:
    """KL(p ‖ q), forward, or KL(q ‖ p), reverse, of the bumps p and q = N(mean, std²), in nats."""
    p, q = log_bumps(X), log_gaussian(X, mean, std)
    return kl(p, q) if direction == "forward" else kl(q, p)


def fit(direction: Literal["forward", "reverse"], mean: float, std: float, steps: int = 500) -> tuple[float, float]:
    """The mean and standard deviation that minimise the divergence, by Adam from a start."""
    tx = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def loss_fn(params):
        return divergence(direction, params["mean"], jnp.exp(params["log_std"])), {}

    def step(carry, _):
        *carry, metrics = descend(tx, loss_fn, *carry)
        return tuple(carry), metrics["loss"]

    params = {"mean": jnp.float32(mean), "log_std": jnp.log(jnp.float32(std))}
    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps))(params)
    return float(params["mean"]), float(jnp.exp(params["log_std"]))


def draw() -> None:
    """The bumps, the Gaussian that covers both, and the two that each seek one."""
    figure = Figure(figsize=(6, 3), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(X, np.exp(log_bumps(X)), color="0.85", label="p")
    for direction, start, color in (("forward", 1.0, "C0"), ("reverse", -1.0, "C1"), ("reverse", 1.0, "C1")):
        mean, std = fit(direction, start, 1.0)
        name = "KL(p ‖ q)" if direction == "forward" else "KL(q ‖ p)"
        axes.plot(X, np.exp(log_gaussian(X, mean, std)), color=color, label=name if start > 0 else None)
    axes.set_xlim(-8, 8)
    axes.legend(frameon=False)
    figure.savefig(IMAGE)


if __name__ == "__main__":
    draw()
