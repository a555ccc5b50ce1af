"""Autoencoder: a training step.

Forward, backward, clipped gradients and AdamW on 64 images of Fashion-MNIST, 28×28, in float32, with the network of
configs/ae_fashion.py; ours also keeps the moments of the codes. The error is that of the test images after 400 steps, a
mean square of pixels in [0, 1].
"""

from functools import partial

from benchmarks import autoencoders, images
from benchmarks.program import Program

RATE, STEPS, LABEL = 2e-3, 400, "error"


def jaxgen() -> Program:
    """Ours."""
    from jaxgen.autoencoders import ae

    config = ae.Config(code=autoencoders.CODE, net=autoencoders.jaxgen_net(), optimizer=images.optimizer(RATE))
    return images.jaxgen(config, autoencoders.DATA, STEPS, "error", LABEL)


def loss(nets, image):
    """The squared error."""
    x = image.float() / 255
    return (nets["decoder"](nets["encoder"](x)) - x).square().mean()


def torch_program(compiled: bool = False) -> Program:
    """PyTorch's."""
    make = partial(autoencoders.torch_nets, autoencoders.CODE)
    return images.torch_program(make, loss, autoencoders.DATA, RATE, STEPS, LABEL, compiled=compiled)


prepare = partial(images.prepare, names=(autoencoders.DATA,))
ROWS = {"batch 64": {}}
WORK = dict.fromkeys(ROWS, (images.BATCH, "images"))
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program, "torch, compiled": partial(torch_program, compiled=True)}
GOAL = 1.5
