"""DCGAN: a training step.

A descent of the critic and one of the generator on 64 images of Fashion-MNIST, 28×28, in float32, with DCGAN's players:
layers of stride 2 and 4×4 pixels, batch normalisation in both.
"""

from functools import partial

from benchmarks import gans
from benchmarks.program import Program

BATCH, BETAS = 64, (0.5, 0.999)


def jaxgen() -> Program:
    """Ours."""
    from jaxgen.gans import gan
    from jaxgen.gans.networks import CriticConfig, GeneratorConfig
    from jaxgen.gans.optimizers import PlayerConfig

    rate = PlayerConfig(b1=BETAS[0], b2=BETAS[1])
    config = gan.Config(
        code=gans.CODE,
        gen=GeneratorConfig(widths=gans.WIDTHS[::-1]),
        critic=CriticConfig(widths=gans.WIDTHS, norm="batch"),
        gen_optimizer=rate,
        critic_optimizer=rate,
        ema_decay=gans.EMA,
    )
    return gans.jaxgen(config, BATCH)


def torch_program(compiled: bool = False) -> Program:
    """PyTorch's."""
    from torch.nn.functional import softplus

    critic_loss = lambda critic, real, fake: softplus(-critic(real)).mean() + softplus(critic(fake)).mean()
    return gans.torch_program(True, critic_loss, lambda scores: softplus(-scores).mean(), BATCH, 1, BETAS, compiled)


prepare = gans.prepare
ROWS = {"batch 64": {}}
WORK = dict.fromkeys(ROWS, (BATCH, "images"))
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program, "torch, compiled": partial(torch_program, compiled=True)}
