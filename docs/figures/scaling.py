"""Draws docs/images/scaling.png: the loss of language models of several sizes on the addresses, and the power law.

Run: python docs/figures/scaling.py [--workdir runs/scaling] [--steps 1500] [--widths 16 32 64 128 256]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.runs import figures, train
from jaxgen.config import load_config
from jaxgen.language import gpt
from jaxgen.scaling import fit_power_law

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Trains what is missing, prints the table and draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/scaling.png")
    asked = parser.parse_args()
    base = load_config(ROOT / "configs/gpt_speeches.py")
    sizes, losses = [], []
    for width in asked.widths:
        net = dataclasses.replace(base.method.net, width=width, num_heads=max(1, width // 32), context=128, dropout=0.0)
        rate = 1e-3 * (256 / width) ** 0.5
        optimizer = dataclasses.replace(base.method.optimizer, learning_rate=rate, decay_steps=asked.steps)
        config = dataclasses.replace(
            base,
            method=dataclasses.replace(base.method, net=net, optimizer=optimizer),
            data=dataclasses.replace(base.data, length=128),
            train=dataclasses.replace(base.train, steps=asked.steps, sample_every=0, eval_every=asked.steps // 5),
        )
        workdir = train(config, asked.workdir / f"width_{width}")
        shapes = jax.eval_shape(gpt.make_core("transformer", net, 2048).init, jax.random.key(0))
        # Without the embeddings, as Kaplan et al. count: those of small networks are most of them.
        sizes.append(sum(x.size for x in jax.tree.leaves(shapes["blocks"])))
        losses.append(figures(workdir, "test")["loss"])
        print(f"width {width}: {sizes[-1]:,} parameters in blocks, {losses[-1]:.4f} nats a token")
    law = fit_power_law(sizes, losses)
    print(f"L = {law.factor:.3f} N^{law.exponent:.4f}, R² = {law.r_squared:.4f}")

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.loglog(sizes, losses, "o", label="models")
    axes.loglog(sizes, [law(n) for n in sizes], "-", label=f"$N^{{{law.exponent:.3f}}}$, R² {law.r_squared:.3f}")
    axes.set_xlabel("parameters in blocks")
    axes.set_ylabel("test loss, nats a token")
    axes.legend()
    figure.savefig(asked.out)


if __name__ == "__main__":
    main()
