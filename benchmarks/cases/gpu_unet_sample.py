"""GPU, U-Net: sampling.

50 steps of DDIM by the network of `gpu_unet_train`, 128 images in bfloat16; ours is one program, diffusers' its
`DDIMPipeline`, in both of PyTorch's memory layouts, without and with `torch.compile`. Wall time.
"""

from benchmarks import unets

ROWS = {"CIFAR-10, 50 steps, batch 128": unets.CIFAR10._asdict()}
WORK = dict.fromkeys(ROWS, (unets.CIFAR10.batch, "images"))
PROGRAMS = {"jaxgen": unets.jaxgen_sample} | unets.both_layouts("diffusers", unets.diffusers_pipeline)
DEVICE, CORES, CLOCK = "gpu", 2, "wall"
GOAL = 1.5
