"""Variational autoencoder: a training step.

Forward, backward, clipped gradients and AdamW on 64 images of Fashion-MNIST, 28×28, in float32, with the network of
configs/vae_fashion.py and its discretised-logistic decoder. The bits are the bound on those of a pixel of the test
images after 400 steps.
"""

import math
from functools import partial

from benchmarks import autoencoders, images
from benchmarks.program import Program

RATE, STEPS, LABEL = 1e-3, 400, "bits/dim"


def jaxgen() -> Program:
    """Ours."""
    from jaxgen.autoencoders import vae

    net, optimizer = autoencoders.jaxgen_net(), images.optimizer(RATE)
    config = vae.Config(code=autoencoders.CODE, net=net, num_importance=1, optimizer=optimizer)
    return images.jaxgen(config, autoencoders.DATA, STEPS, "bits_per_dim/bound", LABEL)


def model():
    """Encoder, decoder, and the logarithm of the decoder's scale."""
    import torch

    nets = autoencoders.torch_nets(2 * autoencoders.CODE)
    nets.register_parameter("log_scale", torch.nn.Parameter(torch.tensor(-1.0)))
    return nets


def loss(nets, image):
    """Minus the bound, in nats a pixel as ours trains on: what clipping to a norm cuts depends on the unit."""
    import torch
    from torch.nn.functional import logsigmoid

    x = image.float() / 127.5 - 1
    mean, log_var = nets["encoder"](x).chunk(2, 1)
    z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    out, half, inverse = nets["decoder"](z), 1 / 255, (-nets.log_scale).exp()
    below, above = logsigmoid((x - out + half) * inverse), logsigmoid((out - x + half) * inverse)
    inner = below + above + (-torch.expm1(-2 * half * inverse)).log()
    log_px = torch.where(x > 1 - half, above, torch.where(x < half - 1, below, inner)).sum((1, 2, 3))
    kl = 0.5 * (log_var.exp() - 1 - log_var + mean.square()).sum(1)
    return (kl - log_px).mean() / x[0].numel()


def torch_program(compiled: bool = False) -> Program:
    """PyTorch's."""
    bits = 1 / math.log(2)
    return images.torch_program(model, loss, autoencoders.DATA, RATE, STEPS, LABEL, compiled=compiled, scale=bits)


prepare = partial(images.prepare, names=(autoencoders.DATA,))
ROWS = {"batch 64": {}}
WORK = dict.fromkeys(ROWS, (images.BATCH, "images"))
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program, "torch, compiled": partial(torch_program, compiled=True)}
GOAL = 1.5
