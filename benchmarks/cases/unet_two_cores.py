"""U-Net: a training step on two cores.

The step of `unet_train`, ours on one virtual device a core, as training on a CPU has it, the peer on two threads.
"""

from functools import partial

from benchmarks import unets

ROWS = {f"width {width}": {"width": width} for width in (32, 64)}
WORK = dict.fromkeys(ROWS, (unets.SMALL.batch, "images"))
PROGRAMS = {"jaxgen": partial(unets.jaxgen_train, num_devices=2)}
PROGRAMS |= unets.both_layouts("diffusers", unets.diffusers_train)
CORES, CLOCK = 2, "wall"
