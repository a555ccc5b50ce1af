"""DCGAN's players on 28×28 images in ours and in PyTorch, and a training step of each game.

A step is `num_critic` descents of the critic, each on its own real images and on images that the generator makes of its
own codes, and one of the generator; Adam without clipping, and an average of the generator's weights. Real and
generated images pass the critic apart, as ours do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import images
from benchmarks.program import Program
from benchmarks.training import training

DATA, SIDE, CODE, WIDTHS, EMA = "fashion", 28, 64, (64, 128), 0.999


def prepare(folder: Path) -> None:
    """Writes the images that the peers read."""
    images.prepare(folder, (DATA,))


def jaxgen(config: Any, batch: int) -> Program:
    """A step of the game that `config` describes, on `batch` images in all."""
    import jax
    import numpy as np

    from jaxgen import catalog
    from jaxgen.data import Images
    from jaxgen.flops import model_flops

    data = Images(DATA, validation=0).load()
    method = catalog.make(config, data.spec)
    run, abstract = training(method, data.spec, data.read("train", np.arange(batch), method.reads))
    players = [abstract[name]["params"] for name in ("gen", "critic")]
    flops = model_flops(method, abstract, data.spec.batch(batch, method.reads)).model
    facts = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(players)), "GFLOP": flops / 1e9}
    return Program(run, lambda: facts)


def torch_players(norm: bool) -> tuple[Any, Any]:
    """The generator, and the critic with or without batch normalisation; channels last, the faster layout."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    low, high = WIDTHS
    side = SIDE // 4
    gen = nn.Sequential(
        *(nn.Linear(CODE, high * side * side), nn.Unflatten(1, (high, side, side)), nn.BatchNorm2d(high), nn.ReLU()),
        *(nn.ConvTranspose2d(high, low, 4, 2, 1), nn.BatchNorm2d(low), nn.ReLU()),
        *(nn.ConvTranspose2d(low, 1, 4, 2, 1), nn.Tanh()),
    )
    critic = nn.Sequential(
        *(nn.Conv2d(1, low, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(low, high, 4, 2, 1), *[nn.BatchNorm2d(high)] * norm, nn.LeakyReLU(0.2)),
        *(nn.Flatten(), nn.Linear(high * side * side, 1), nn.Flatten(0)),
    )
    return tuple(net.to(memory_format=torch.channels_last) for net in (gen, critic))


def torch_program(
    norm: bool,
    critic_loss: Callable[[Any, Any, Any], Any],
    gen_loss: Callable[[Any], Any],
    batch: int,
    num_critic: int,
    betas: tuple[float, float],
    compiled: bool = False,
) -> Program:
    """A step of the same game.

    Args:
      norm: whether the critic has batch normalisation.
      critic_loss: `(critic, real, fake) -> loss`.
      gen_loss: `(scores of generated images) -> loss`.
      batch: real images of a step.
      num_critic: descents of the critic, each on its part of them.
      betas: Adam's.
      compiled: whether `torch.compile` makes both players' passes.
    """
    import numpy as np
    import torch

    with np.load(f"{DATA}.npz") as saved:
        real = torch.from_numpy(saved["train"][:batch]).permute(0, 3, 1, 2)
    gen, critic = torch_players(norm)
    average = [p.detach().clone() for p in gen.parameters()]
    adam = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=betas, fused=True) for net in (gen, critic)]
    size = batch // num_critic
    maybe = torch.compile if compiled else (lambda fn: fn)
    generate = maybe(gen)
    of_critic = maybe(lambda real, fake: critic_loss(critic, real, fake))
    of_gen = maybe(lambda z: gen_loss(critic(gen(z))))

    def step() -> None:
        for part in real.split(size):
            with torch.no_grad():
                fake = generate(torch.randn(size, CODE))
            adam[1].zero_grad()
            of_critic(part.float() / 127.5 - 1, fake).backward()
            adam[1].step()
        adam[0].zero_grad()
        critic.requires_grad_(False)  # whose own gradients nobody needs here
        of_gen(torch.randn(size, CODE)).backward()
        critic.requires_grad_(True)
        adam[0].step()
        torch._foreach_lerp_(average, list(gen.parameters()), 1 - EMA)

    count = sum(p.numel() for net in (gen, critic) for p in net.parameters())
    return Program(step, lambda: {"parameters": count})
