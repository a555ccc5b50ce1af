"""U-Net: a training step.

Forward, backward, clipped gradients, AdamW and the weights' average on 16 colour images of 32×32 in float32; the
network of Ho et al. at two widths, in diffusers (`UNet2DModel`) in both of PyTorch's memory layouts, without and with
`torch.compile`.
"""

from benchmarks import unets

ROWS = {f"width {width}": {"width": width} for width in (32, 64)}
WORK = dict.fromkeys(ROWS, (unets.SMALL.batch, "images"))
PROGRAMS = {"jaxgen": unets.jaxgen_train} | unets.both_layouts("diffusers", unets.diffusers_train)
