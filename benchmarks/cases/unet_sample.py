"""U-Net: sampling.

Ten steps of DDIM on a batch of 16, the network and the peers as in training; ours is one program for all steps.
"""

from benchmarks import unets

ROWS = {f"width {width}": {"width": width} for width in (32, 64)}
WORK = dict.fromkeys(ROWS, (unets.SMALL.steps * unets.SMALL.batch, "evaluations of an image"))
PROGRAMS = {"jaxgen": unets.jaxgen_sample} | unets.both_layouts("diffusers", unets.diffusers_sample)
GOAL = 1.5
