"""GPU, U-Net: a training step.

The CIFAR-10 network of Ho et al. (configs/ddpm_cifar10.py, without dropout), 128 images, bfloat16 over parameters in
float32; diffusers' in both of PyTorch's memory layouts, without and with `torch.compile`. Wall time, which ends when
the loss is on the host. MFU is the share of the GPU's peak that the model FLOPs reach.
"""

from benchmarks import unets

ROWS = {"CIFAR-10, batch 128": unets.CIFAR10._asdict()}
WORK = dict.fromkeys(ROWS, (unets.CIFAR10.batch, "images"))
PROGRAMS = {"jaxgen": unets.jaxgen_train} | unets.both_layouts("diffusers", unets.diffusers_train)
DEVICE, CORES, CLOCK = "gpu", 2, "wall"
