"""WGAN-GP: a training step.

Five descents of the critic with the gradient penalty and one of the generator, on 32 images of Fashion-MNIST each,
28×28, in float32, with DCGAN's players, the critic without normalisation. `torch.compile` cannot differentiate a
gradient.
"""

from benchmarks import gans
from benchmarks.program import Program

BATCH, NUM_CRITIC, WEIGHT, BETAS = 160, 5, 10.0, (0.0, 0.9)


def jaxgen() -> Program:
    """Ours."""
    from jaxgen.gans import wgan
    from jaxgen.gans.networks import CriticConfig, GeneratorConfig
    from jaxgen.gans.optimizers import PlayerConfig

    rate = PlayerConfig(b1=BETAS[0], b2=BETAS[1])
    config = wgan.Config(
        code=gans.CODE,
        num_critic=NUM_CRITIC,
        gen=GeneratorConfig(widths=gans.WIDTHS[::-1]),
        critic=CriticConfig(widths=gans.WIDTHS),
        gen_optimizer=rate,
        critic_optimizer=rate,
        penalty_weight=WEIGHT,
        ema_decay=gans.EMA,
    )
    return gans.jaxgen(config, BATCH)


def critic_loss(critic, real, fake):
    """The Wasserstein loss and the penalty on slopes between real and generated images."""
    import torch

    mix = torch.rand(len(real), 1, 1, 1)
    x = (mix * real + (1 - mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


def torch_program() -> Program:
    """PyTorch's."""
    return gans.torch_program(False, critic_loss, lambda scores: -scores.mean(), BATCH, NUM_CRITIC, BETAS)


prepare = gans.prepare
ROWS = {"5 × 32 images": {}}
WORK = dict.fromkeys(ROWS, (BATCH, "images"))
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program}
