"""Draws docs/images/encoding.png: a test face on its way to noise, by the three schedules, and what they leave of it.

Run: python docs/figures/diffusion.py
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxgen.data import Images
from jaxgen.diffusion import schedules
from jaxgen.numerics import to_pixels, to_unit
from jaxgen.report.images import grid

IMAGE = Path(__file__).parents[1] / "images" / "encoding.png"
NUM_TIMESTEPS, NUM_STATES = 1000, 11
SCHEDULES = {
    "linear": schedules.linear_schedule,
    "cosine": schedules.cosine_schedule,
    "sigmoid": schedules.sigmoid_schedule,
}


def draw() -> None:
    """A row of states x_0 … x_T for each schedule, of the same noise, above the signal's variance ᾱ_t."""
    levels = 256
    image = Images("faces").load().read("test", np.array([3]), ("image",))["image"]
    t = np.linspace(0, NUM_TIMESTEPS, NUM_STATES).astype(int)
    x_0 = to_unit(image.repeat(NUM_STATES, axis=0), levels)
    noise = jax.numpy.broadcast_to(jax.random.normal(jax.random.key(0), x_0.shape[1:]), x_0.shape)
    figure = Figure(figsize=(6.6, 5), dpi=110, layout="constrained")
    *rows, axes = figure.subplots(4, height_ratios=(1, 1, 1, 2.2))
    for row, (name, make) in zip(rows, SCHEDULES.items(), strict=True):
        schedule = make(NUM_TIMESTEPS)
        states = schedules.q_sample(schedule, x_0, t, noise)
        row.imshow(grid(np.asarray(to_pixels(states, levels)), columns=NUM_STATES, scale=4))
        row.set_ylabel(name)
        row.set(xticks=[], yticks=[])
        axes.plot(np.arange(NUM_TIMESTEPS + 1) / NUM_TIMESTEPS, schedule.alpha_bar, label=name)
    axes.set(xlabel="t/T", ylabel="ᾱ", xlim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(IMAGE)


if __name__ == "__main__":
    draw()
