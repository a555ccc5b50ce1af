"""The two players: a network of each kind, what it is conditioned on, and what a critic sees of its batch.

A condition is one-hot vectors side by side, one for the class or for each attribute. The generator's code is extended
by it. A critic sees it by `concatenation` with its input (Mirza & Osindero 2014, arXiv 1411.1784), a map for each
value of an image, or by `projection`, f(x, y) = w·h(x) + (V y)·h(x) (Miyato & Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.config import check_choice
from jaxgen.nets.batch_features import Discrimination, with_deviation
from jaxgen.nets.capsule import CapsuleCritic
from jaxgen.nets.dcgan import DcganCritic, DcganGenerator, Layers
from jaxgen.nets.mlp import Mlp
from jaxgen.nets.resgan import ResnetCritic, ResnetGenerator
from jaxgen.nets.units import Activation, Norm

GeneratorKind = Literal["dcgan", "resnet", "mlp"]
CriticKind = Literal["dcgan", "resnet", "mlp", "capsule"]
Conditioning = Literal["projection", "concatenation"]
BatchFeatures = Literal["none", "discrimination", "deviation"]


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator."""

    kind: GeneratorKind = "dcgan"
    """`dcgan`, `resnet`, or `mlp`, which also draws vectors."""
    widths: tuple[int, ...] = (128, 64)
    """Channels from the smallest map on, each for one doubling of the resolution; units of each layer (mlp)."""
    norm: Norm = "batch"
    """`batch`, `layer` or `none`."""
    activation: Activation = "relu"
    """`relu`, `leaky_relu`, `tanh` or `gated`."""
    layers: Layers = "strided"
    """`strided` transposed convolutions, `strided_5x5` as Radford et al. have them, or `pooled`: repeated pixels and a
    convolution (dcgan)."""
    num_blocks: int = 1
    """Residual blocks of each resolution (resnet)."""


@dataclass(frozen=True)
class CriticConfig:
    """The critic, or discriminator."""

    kind: CriticKind = "dcgan"
    """`dcgan`, `resnet`, `capsule`, or `mlp`, which also reads vectors."""
    widths: tuple[int, ...] = (64, 128)
    """Channels from the image on, each for one halving of the resolution; units of each layer (mlp)."""
    norm: Norm = "none"
    """`batch` (not with a gradient penalty), `layer` or `none`."""
    activation: Activation = "leaky_relu"
    """`relu`, `leaky_relu`, `tanh` or `gated`."""
    layers: Layers = "strided"
    """`strided` convolutions, `strided_5x5` as Radford et al. have them, or `pooled`: a convolution and 2×2 means
    (dcgan, capsule)."""
    num_blocks: int = 1
    """Residual blocks of each resolution (resnet)."""
    spectral: bool = False
    """Whether every kernel is divided by its largest singular value."""
    conditioning: Conditioning = "projection"
    """How a condition is seen: `projection` or `concatenation`, which a `capsule` always does."""
    batch_features: BatchFeatures = "none"
    """What is seen of the other examples: `discrimination`, `deviation` or `none`."""
    group_size: int = 16
    """Examples of a group of batch features; divides the critic's batch."""
    num_kernels: int = 32
    """Kernels of minibatch discrimination."""
    kernel_dim: int = 5
    """Numbers of each kernel."""


def check_networks(gen: GeneratorConfig, critic: CriticConfig, shape: tuple[int, ...]) -> None:
    """Raises a ValueError for an unknown option, or where a network cannot take examples of `shape`."""
    for name, cfg, kinds in (("gen", gen, GeneratorKind), ("critic", critic, CriticKind)):
        check_choice(f"method.{name}.kind", cfg.kind, get_args(kinds))
        for option, choices in (("norm", Norm), ("activation", Activation), ("layers", Layers)):
            check_choice(f"method.{name}.{option}", getattr(cfg, option), get_args(choices))
        if not cfg.widths or min(*cfg.widths, cfg.num_blocks) < 1:
            raise ValueError(f"method.{name} needs positive widths and num_blocks, not {cfg.widths}, {cfg.num_blocks}")
        if cfg.kind == "mlp":
            continue
        if len(shape) != 3:
            raise ValueError(f"method.{name}.kind={cfg.kind} takes images; for vectors choose kind=mlp")
        if any(side % 2 ** len(cfg.widths) for side in shape[:2]):
            raise ValueError(
                f"method.{name}.widths={cfg.widths} halve the image {len(cfg.widths)} times, and {shape[0]}×{shape[1]} "
                f"does not divide by {2 ** len(cfg.widths)}: take fewer widths"
            )
    check_choice("method.critic.conditioning", critic.conditioning, get_args(Conditioning))
    check_choice("method.critic.batch_features", critic.batch_features, get_args(BatchFeatures))
    if min(critic.group_size, critic.num_kernels, critic.kernel_dim) < 1 or critic.group_size == 1:
        raise ValueError("method.critic needs a group_size of 2 or more, and num_kernels and kernel_dim of 1 or more")
    if critic.kind == "capsule" and critic.widths[-1] % 8:
        raise ValueError(f"the last of method.critic.widths={critic.widths} is cut into capsules of 8: a multiple of 8")
    if critic.kind == "capsule" and critic.batch_features != "none":
        raise ValueError("a capsule critic has no features to join: set method.critic.batch_features=none")


def one_hots(y: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Values y int32 [B, A] as one-hot vectors side by side, float32 [B, Σ sizes]."""
    return jnp.concatenate([jax.nn.one_hot(y[:, i], size) for i, size in enumerate(sizes)], 1)


class Generator(nn.Module):
    """Codes → examples, images in [-1, 1] by a tanh.

    Attributes:
      config: the network.
      shape: of an example, (H, W, C) or (D,).
      sizes: number of values of each part of the condition; none for an unconditional network.
    """

    config: GeneratorConfig
    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array | None = None, train: bool = False) -> jax.Array:
        """z [B, K] and, with a condition, y int32 [B, A] → [B, *shape]."""
        cfg = self.config
        if y is not None:
            z = jnp.concatenate([z, one_hots(y, self.sizes)], 1)
        if cfg.kind == "mlp":
            h = Mlp(cfg.widths, cfg.norm, cfg.activation, name="net")(z, train)
            x = nn.Dense(math.prod(self.shape), name="out")(h).reshape(len(z), *self.shape)
        else:
            options: dict[str, Any] = {"widths": cfg.widths, "size": self.shape[:2], "channels": self.shape[2]}
            options |= {"norm": cfg.norm, "activation": cfg.activation, "name": "net"}
            if cfg.kind == "dcgan":
                x = DcganGenerator(layers=cfg.layers, **options)(z, train)
            else:
                x = ResnetGenerator(num_blocks=cfg.num_blocks, **options)(z, train)
        return jnp.tanh(x) if len(self.shape) == 3 else x


class Critic(nn.Module):
    """Examples → scores, without a sigmoid.

    Attributes:
      config: the network.
      sizes: number of values of each part of the condition; none for an unconditional network.
    """

    config: CriticConfig
    sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x [B, H, W, C] or [B, D] and, with a condition, y int32 [B, A] → [B]."""
        cfg = self.config
        hot = None if y is None else one_hots(y, self.sizes)
        if hot is not None and (cfg.conditioning == "concatenation" or cfg.kind == "capsule"):
            maps = hot.reshape(len(x), *[1] * (x.ndim - 2), -1)
            x = jnp.concatenate([x, jnp.broadcast_to(maps, (*x.shape[:-1], maps.shape[-1]))], -1)
        options: dict[str, Any] = {"widths": cfg.widths, "norm": cfg.norm, "activation": cfg.activation}
        if cfg.kind == "capsule":
            return CapsuleCritic(layers=cfg.layers, name="net", **options)(x, train)
        if cfg.kind == "mlp":
            h = Mlp(name="net", **options)(x.reshape(len(x), -1), train)
        elif cfg.kind == "dcgan":
            h = DcganCritic(layers=cfg.layers, name="net", **options)(x, train)
        else:
            h = ResnetCritic(num_blocks=cfg.num_blocks, name="net", **options)(x, train)
        if cfg.batch_features == "discrimination":
            h = Discrimination(cfg.group_size, cfg.num_kernels, cfg.kernel_dim, name="batch")(h)
        elif cfg.batch_features == "deviation":
            h = with_deviation(h, cfg.group_size)
        score = nn.Dense(1, name="out")(h)[:, 0]
        if hot is not None and cfg.conditioning == "projection":
            score = score + (nn.Dense(h.shape[1], use_bias=False, name="condition")(hot) * h).sum(1)
        return score
