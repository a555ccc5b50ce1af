"""U-Net: sampling.

Ten steps of DDIM on a batch of 16, the network as in training; ours is one program for all steps.
"""

from functools import partial

from benchmarks import unets

ROWS = {f"width {width}": {"width": width} for width in (32, 64)}
WORK = dict.fromkeys(ROWS, (unets.STEPS * unets.BATCH, "evaluations of an image"))
PROGRAMS = {
    "jaxgen": unets.jaxgen_sample,
    "diffusers": unets.diffusers_sample,
    "diffusers, compiled": partial(unets.diffusers_sample, compiled=True),
}
GOAL = 1.5
