"""The same U-Net in ours and in diffusers: Ho et al.'s, on colour images, of any size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

from benchmarks.program import Program
from benchmarks.training import step_facts, torch_facts, torch_training, training


class Shape(NamedTuple):
    """The options of the programs: by default a small network, three levels with attention at the last.

    Attributes:
      width: channels at full resolution.
      multipliers: channels of each level as multiples of it.
      blocks: residual blocks a level.
      attention: the level after whose blocks attention stands.
      groups: of each normalisation.
      heads: of each attention.
      batch: images.
      side: pixels along a side.
      dtype: what the network computes in, over parameters in float32.
      steps: of the sampler.
    """

    width: int
    multipliers: Sequence[int] = (1, 2, 2)
    blocks: int = 1
    attention: int = 2
    groups: int = 8
    heads: int = 4
    batch: int = 16
    side: int = 32
    dtype: str = "float32"
    steps: int = 10


SMALL = Shape(32)
# configs/ddpm_cifar10.py without dropout; 50 steps.
CIFAR10 = Shape(128, (1, 2, 2, 2), 2, 1, 32, 1, batch=128, dtype="bfloat16", steps=50)


def jaxgen_method(shape: Shape):
    """The DDPM method, and the description of its data."""
    from jaxgen.data.dataset import Spec
    from jaxgen.diffusion import ddpm
    from jaxgen.diffusion.drawing import SampleConfig
    from jaxgen.nets.unet import UNetConfig

    net = UNetConfig(
        width=shape.width,
        multipliers=tuple(shape.multipliers),
        num_blocks=shape.blocks,
        attention_resolutions=(shape.side >> shape.attention,),
        num_groups=shape.groups,
        num_heads=shape.heads,
        film=False,
        layout="full",
        dtype=shape.dtype,
    )
    spec = Spec({"image": (shape.side, shape.side, 3)}, {"image": "uint8"}, {"train": 1000}, {}, {})
    sample = SampleConfig(steps=shape.steps, clip=False)
    return ddpm.make(ddpm.Config(prediction="eps", schedule="linear", net=net, sample=sample), spec), spec


def jaxgen_train(num_devices: int = 1, **options) -> Program:
    """One training step of ours, as the trainer compiles it: loss, gradients, clipping, AdamW, average of weights."""
    if num_devices > 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={num_devices}".strip()
    import numpy as np

    from benchmarks.gpu import jax_facts

    shape = Shape(**options)
    method, spec = jaxgen_method(shape)
    images = np.random.default_rng(0).integers(0, 256, (shape.batch, shape.side, shape.side, 3), np.uint8)
    run, state = training(method, spec, {"image": images})
    return Program(run, lambda: step_facts(method, state, spec.batch(shape.batch, ("image",))) | jax_facts())


def jaxgen_sample(**options) -> Program:
    """Samples of ours, all steps one compiled program."""
    import jax

    from benchmarks.gpu import jax_facts
    from jaxgen import backend
    from jaxgen.config import MeshConfig, TrainConfig
    from jaxgen.program import make_sample
    from jaxgen.sharding import make_mesh

    backend.prepare(TrainConfig(compilation_cache=""))
    shape = Shape(**options)
    method, spec = jaxgen_method(shape)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        batch = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), spec.batch(shape.batch, method.reads))
        state = jax.jit(method.init)(jax.random.key(0), batch)
        sample = make_sample(method, mesh)

        def run() -> None:
            with jax.set_mesh(mesh):
                jax.block_until_ready(sample(state, jax.random.key(1), shape.batch))

    return Program(run, jax_facts)


def diffusers_model(shape: Shape):
    """The network of diffusers."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    levels = range(len(shape.multipliers))
    attends = ["Attn" if level == shape.attention else "" for level in levels]
    return UNet2DModel(
        sample_size=shape.side,
        block_out_channels=[shape.width * m for m in shape.multipliers],
        layers_per_block=shape.blocks,
        down_block_types=[f"{attends[level]}DownBlock2D" for level in levels],
        up_block_types=[f"{attends[level]}UpBlock2D" for level in reversed(levels)],
        attention_head_dim=shape.width * shape.multipliers[-1] // shape.heads,
        norm_num_groups=shape.groups,
    )


def diffusers_train(channels_last: bool = False, compiled: bool = False, **options) -> Program:
    """The same step of diffusers."""
    import torch
    from diffusers import DDPMScheduler

    from benchmarks.gpu import torch_device, torch_memory

    shape, device, layout = Shape(**options), torch_device(), layout_of(channels_last)
    model = diffusers_model(shape).to(device, memory_format=layout)
    scheduler = DDPMScheduler(1000)
    network = torch.compile(model) if compiled else model
    images = torch.randint(0, 256, (shape.batch, 3, shape.side, shape.side), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=layout)
    lower = partial(torch.autocast, device.type, torch.bfloat16) if shape.dtype == "bfloat16" else nullcontext

    def loss_of():
        x = images.float() / 127.5 - 1
        eps = torch.randn_like(x)
        t = torch.randint(0, 1000, (shape.batch,), device=device)
        with lower():
            out = network(scheduler.add_noise(x, eps, t), t).sample
        return torch.nn.functional.mse_loss(out.float(), eps)

    step, _ = torch_training(model, loss_of, ema_decay=0.999)
    return Program(step, lambda: torch_facts(model) | torch_memory())


def diffusers_sample(channels_last: bool = False, compiled: bool = False, **options) -> Program:
    """Samples of diffusers: its scheduler in a Python loop."""
    import torch
    from diffusers import DDIMScheduler

    shape, layout = Shape(**options), layout_of(channels_last)
    model = diffusers_model(shape).eval().to(memory_format=layout)
    network = torch.compile(model) if compiled else model
    scheduler = DDIMScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(shape.steps)

    @torch.inference_mode()
    def run() -> None:
        x = torch.randn(shape.batch, 3, shape.side, shape.side).contiguous(memory_format=layout)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        (x.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)

    return Program(run)


def diffusers_pipeline(channels_last: bool = False, compiled: bool = False, **options) -> Program:
    """Samples by the pipeline of diffusers, parameters in the network's dtype."""
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler

    from benchmarks.gpu import torch_device, torch_memory

    shape = Shape(**options)
    model = diffusers_model(shape).eval().to(torch_device(), getattr(torch, shape.dtype))
    model.to(memory_format=layout_of(channels_last))
    if compiled:
        model.compile()
    pipeline = DDIMPipeline(model, DDIMScheduler(1000, clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)

    def run() -> None:  # once the images are on the host, the GPU has finished
        pipeline(batch_size=shape.batch, num_inference_steps=shape.steps, output_type="pt").images.cpu()

    return Program(run, torch_memory)


def layout_of(channels_last: bool):
    """PyTorch's name of a memory layout."""
    import torch

    return torch.channels_last if channels_last else torch.contiguous_format


def both_layouts(name: str, make: Callable[..., Program]) -> dict[str, Any]:
    """A peer's programs in both memory layouts, without and with `torch.compile`: the best of them counts."""
    return {
        name + ", channels last" * last + ", compiled" * compiled: partial(make, channels_last=last, compiled=compiled)
        for last in (False, True)
        for compiled in (False, True)
    }
