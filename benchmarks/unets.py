"""The same U-Net in ours and in diffusers: Ho et al.'s, three levels, attention at the smallest, colour images."""

from __future__ import annotations

from benchmarks.program import Program
from benchmarks.training import training

BATCH, SIDE, STEPS = 16, 32, 10  # images, pixels along a side, steps of the sampler
MULTIPLIERS, GROUPS, HEADS = (1, 2, 2), 8, 4


def jaxgen_method(width: int, side: int = SIDE):
    """The DDPM method, and the description of its data."""
    from jaxgen.data.dataset import Spec
    from jaxgen.diffusion import ddpm
    from jaxgen.diffusion.drawing import SampleConfig
    from jaxgen.nets.unet import UNetConfig

    net = UNetConfig(
        width=width,
        multipliers=MULTIPLIERS,
        attention_resolutions=(side // 4,),
        num_groups=GROUPS,
        num_heads=HEADS,
        film=False,
        layout="full",
    )
    spec = Spec({"image": (side, side, 3)}, {"image": "uint8"}, {"train": 1000}, {}, {})
    sample = SampleConfig(steps=STEPS, clip=False)
    return ddpm.make(ddpm.Config(prediction="eps", schedule="linear", net=net, sample=sample), spec), spec


def jaxgen_train(width: int, num_devices: int = 1, batch: int = BATCH, side: int = SIDE) -> Program:
    """One training step of ours, as the trainer compiles it: loss, gradients, clipping, AdamW, average of weights."""
    import os

    if num_devices > 1:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
    import jax
    import numpy as np

    from jaxgen.flops import model_flops

    method, spec = jaxgen_method(width, side)
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    run, state = training(method, spec, {"image": images})

    def facts() -> dict[str, float]:
        count = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
        return {"parameters": count, "GFLOP": model_flops(method, state, spec.batch(batch, ("image",))).model / 1e9}

    return Program(run, facts)


def diffusers_model(width: int):
    """The network of diffusers."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIDE,
        block_out_channels=[width * m for m in MULTIPLIERS],
        layers_per_block=1,
        down_block_types=["DownBlock2D"] * (len(MULTIPLIERS) - 1) + ["AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * (len(MULTIPLIERS) - 1),
        attention_head_dim=width * MULTIPLIERS[-1] // HEADS,
        norm_num_groups=GROUPS,
    )


def diffusers_train(width: int, compiled: bool = False) -> Program:
    """The same step of diffusers, with PyTorch's fused AdamW."""
    import torch
    from diffusers import DDPMScheduler

    model = diffusers_model(width)
    ema = [p.detach().clone() for p in model.parameters()]
    params = list(model.parameters())
    scheduler = DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.0, fused=True)
    network = torch.compile(model) if compiled else model
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)

    def run() -> float:
        x = images.float() / 127.5 - 1
        eps = torch.randn_like(x)
        t = torch.randint(0, 1000, (BATCH,))
        loss = torch.nn.functional.mse_loss(network(scheduler.add_noise(x, eps, t), t).sample, eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(ema, params, 0.001)
        return loss.item()

    return Program(run, facts=lambda: {"parameters": sum(p.numel() for p in params)})


def jaxgen_sample(width: int) -> Program:
    """Samples of ours, all steps one compiled program."""
    import jax

    from jaxgen import backend
    from jaxgen.config import MeshConfig, TrainConfig
    from jaxgen.program import make_sample
    from jaxgen.sharding import make_mesh

    backend.prepare(TrainConfig(compilation_cache=""))
    method, spec = jaxgen_method(width)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        batch = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), spec.batch(BATCH, method.reads))
        state = jax.jit(method.init)(jax.random.key(0), batch)
        sample = make_sample(method, mesh)

        def run() -> None:
            with jax.set_mesh(mesh):
                jax.block_until_ready(sample(state, jax.random.key(1), BATCH))

    return Program(run)


def diffusers_sample(width: int, compiled: bool = False) -> Program:
    """Samples of diffusers: its scheduler in a Python loop."""
    import torch
    from diffusers import DDIMScheduler

    model = diffusers_model(width).eval()
    network = torch.compile(model) if compiled else model
    scheduler = DDIMScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(STEPS)

    @torch.inference_mode()
    def run() -> None:
        x = torch.randn(BATCH, 3, SIDE, SIDE)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        (x.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)

    return Program(run)
