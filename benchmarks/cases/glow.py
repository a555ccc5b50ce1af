"""Glow: a training step.

Forward, backward, clipped gradients, AdamW and the weights' average on 64 images in float32; the flows of
configs/glow_fashion.py and configs/glow_faces.py, affine with plain 1×1 convolutions and no least scale, beside those
of normflows with as many levels, steps and hidden channels. What a level hands out has a prior that is a convolution of
the rest in ours, as in the paper, and a mean and a scale for each channel in normflows. The bits are those of a channel
of a test image's pixel after 200 steps.
"""

import math
from functools import partial

from benchmarks import images
from benchmarks.program import Program

RATE, STEPS, LABEL, EMA = 1e-3, 200, "bits/dim", 0.999


def jaxgen(data: str, levels: int, steps: int, width: int) -> Program:
    """Ours."""
    from jaxgen.flows import glow
    from jaxgen.flows.multiscale import FlowConfig

    net = FlowConfig(levels=levels, steps=steps, width=width, min_scale=0.0)  # as normflows
    config = glow.Config(net=net, optimizer=images.optimizer(RATE), ema_decay=EMA)
    return images.jaxgen(config, data, STEPS, "bits_per_dim/exact", LABEL)


def model(shape: tuple[int, int, int], levels: int, steps: int, width: int):
    """Of images [C, H, W]."""
    import normflows as nf

    channels, height, _ = shape
    bases, flows, merges = [], [], []
    for level in range(levels):  # normflows counts them from the coarsest
        halvings = levels - level
        depth, side = channels * 2 ** (halvings + 1), height // 2**halvings
        blocks = [
            nf.flows.GlowBlock(depth, width, scale_map="sigmoid", use_lu=False, net_actnorm=False) for _ in range(steps)
        ]
        flows.append([*blocks, nf.flows.Squeeze()])
        bases.append(nf.distributions.GlowBase((depth if level == 0 else depth // 2, side, side)))
        merges += [nf.flows.Merge()] * (level > 0)
    return nf.MultiscaleFlow(bases, flows, merges, class_cond=False)


def loss(flow, image):
    """Bits a number of a pixel, spread over its bin."""
    import torch

    x = (image.float() + torch.rand(image.shape)) / 256 - 0.5
    return -flow.log_prob(x, None).mean() / (x[0].numel() * math.log(2)) + 8


def normflows(data: str, **options) -> Program:
    """normflows'."""
    make = partial(model, SHAPES[data], **options)
    return images.torch_program(make, loss, data, RATE, STEPS, LABEL, ema_decay=EMA)


SHAPES = {"fashion": (1, 28, 28), "faces": (3, 16, 16)}
prepare = partial(images.prepare, names=tuple(SHAPES))
ROWS = {
    "fashion, 2 levels of 12 steps, width 64": {"data": "fashion", "levels": 2, "steps": 12, "width": 64},
    "faces, 2 levels of 8 steps, width 64": {"data": "faces", "levels": 2, "steps": 8, "width": 64},
}
WORK = dict.fromkeys(ROWS, (images.BATCH, "images"))
PROGRAMS = {"jaxgen": jaxgen, "normflows": normflows}
GOAL = 1.5
