"""U-Net: a training step.

Forward, backward, clipped gradients, AdamW and the weights' average on 16 colour images of 32×32 in float32; the
network of Ho et al. at two widths, in diffusers (`UNet2DModel`) without and with `torch.compile`.
"""

from functools import partial

from benchmarks import unets

ROWS = {f"width {width}": {"width": width} for width in (32, 64)}
WORK = dict.fromkeys(ROWS, (unets.BATCH, "images"))
PROGRAMS = {
    "jaxgen": unets.jaxgen_train,
    "diffusers": unets.diffusers_train,
    "diffusers, compiled": partial(unets.diffusers_train, compiled=True),
}
