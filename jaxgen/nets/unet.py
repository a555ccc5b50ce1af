"""U-Net on images, conditioned on a time (Ronneberger et al. 2015, arXiv 1505.04597; Ho et al. 2020, arXiv 2006.11239).

Residual blocks with group normalisation, self-attention where the image is small, skip connections from the way down
to the way up. Two deviations from Ho et al. are the default, since they make it fast on a CPU at no visible loss:
time enters as a scale and a shift after the normalisation (Nichol & Dhariwal 2021, arXiv 2102.09672), and resolution
changes by plain 2×2 mean pooling and nearest-neighbour repetition, with one skip from each block to its mirror.
`film=False` and `layout="full"` give the paper's network back, parameter for parameter. Texts come in by
cross-attention after each self-attention (Rombach et al. 2022, arXiv 2112.10752).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.sharding import PartitionSpec as P

from jaxgen.config import check_choice
from jaxgen.nets.attention import attention
from jaxgen.nets.conv import Conv
from jaxgen.nets.norm import GroupNorm
from jaxgen.nets.resample import DoubleConv, double, halve
from jaxgen.sharding import Rule, constrain, lay_out

Layout = Literal["light", "full"]
SPLIT = P(("data", "fsdp"), None, None, "tensor")  # channels, inside a block


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`."""

    width: int = 64
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 2, 2)
    """Channels of each level as multiples of `width`; every level after the first halves the resolution."""
    num_blocks: int = 1
    """Residual blocks a level, on the way down and again on the way up."""
    attention_resolutions: tuple[int, ...] = (7, 8)
    """Image heights at which each block is followed by self-attention, which then also stands in the middle of the
    network; heights that no level has are ignored."""
    num_heads: int = 4
    """Heads of each self-attention."""
    num_groups: int = 8
    """Groups of each normalisation; divides the channels of every level."""
    film: bool = True
    """Whether time scales and shifts a block's inner activation; it is added to it otherwise (Ho et al.)."""
    direct_condition: bool = True
    """Whether a condition also enters every block by itself, which small details need (a smile); costs parameters for
    each of its values in each block."""
    layout: Layout = "light"
    """`light` pools and repeats, with a skip from each block to its mirror; `full` (Ho et al.) changes resolution by
    convolutions, skips every stage of the way down, and has one block more a level on the way up."""
    dropout: float = 0.0
    """Probability that a block's inner activation is dropped in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; parameters, normalisation statistics and the output stay float32."""
    remat: bool = False
    """Whether the backward pass computes each block's inside anew rather than keep it: less memory, more time."""


def rules(config: UNetConfig) -> tuple[Rule, ...]:
    """How `tensor` splits a `UNet` (after Shoeybi et al. 2019, arXiv 1909.08053), and `fsdp` beside it.

    Of two layers the first is split by its output channels and the second by its input channels, so that a block
    sums over the devices once: a residual block's two convolutions with the groups between them, an attention's heads.
    """
    block, attention = r"(down|middle|up)_\d+(_\d+)?/", r"_(attention|context)/"
    groups, heads = config.num_groups, config.num_heads
    first, second = P("fsdp", "tensor"), P("tensor", "fsdp")  # of a convolution's kernel they are the last two axes
    units = P(None, ("tensor", "fsdp"))  # see `UnitDense`
    return (
        (block + "conv_in/kernel", first, groups),
        (block + "(conv_in/bias|norm_out/)", P("tensor"), groups),
        (block + "conv_out/kernel", second, groups),
        (attention + "q/kernel", first, heads),
        (attention + "q/bias", P("tensor"), heads),
        (attention + "out/kernel", second, heads),
        (block + "time/kernel", units, groups),
        (attention + "kv/kernel", units, heads),
        ("time_in/kernel", first),
        ("time_in/bias", P("tensor")),
        ("time_out/kernel", second),
    )


def check_unet(config: UNetConfig, height: int, width: int) -> None:
    """Raises a ValueError where `config` contradicts itself or cannot take images of `height` × `width`."""
    check_choice("net.layout", config.layout, get_args(Layout))
    if not config.multipliers or min(config.width, *config.multipliers, config.num_blocks) < 1:
        raise ValueError(f"a U-Net needs a positive width, num_blocks and multipliers, not {config}")
    halvings = len(config.multipliers) - 1
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"images of {height}×{width} cannot be halved {halvings} times; give the U-Net fewer `multipliers` "
            f"(now {config.multipliers}) or pad the images to a multiple of {2**halvings}"
        )
    for channels in (config.width * m for m in config.multipliers):
        for option in ("num_groups", "num_heads"):
            if getattr(config, option) < 1 or channels % getattr(config, option):
                raise ValueError(
                    f"{option}={getattr(config, option)} does not divide the {channels} channels of a level"
                )


def time_embedding(t: jax.Array, dim: int) -> jax.Array:
    """Sines and cosines of 1000 t at `dim`/2 frequencies, geometric from 1 to 1/10000: t [B] in [0, 1] → [B, dim].

    The factor makes t/T at T = 1000 the integer step of Ho et al., whose embedding is that of Vaswani et al. (2017,
    section 3.5).
    """
    num = dim // 2
    rates = jnp.exp(-jnp.log(10000.0) * jnp.arange(num) / max(num - 1, 1))
    angles = 1000.0 * t.astype(jnp.float32)[:, None] * rates[None, :]
    embedded = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(embedded, ((0, 0), (0, dim - 2 * num)))


class UnitDense(nn.Module):
    """A dense layer to units (heads, groups), several parts side by side: [..., C] → [..., *shape].

    Its parameters are those of a `Dense` layer of as many features. `tensor` splits the units of every part: not the
    kernel's consecutive columns, by which it is stored, so that it is rearranged where it is used.

    Attributes:
      shape: parts, units and the size of one.
      dtype: see `UNetConfig`.
    """

    shape: tuple[int, int, int]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., C] → [..., parts, units, size]."""
        features = math.prod(self.shape)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], features))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        kernel = lay_out(kernel.reshape(-1, *self.shape), P(None, None, "tensor", None))
        return jnp.tensordot(x, kernel, 1) + bias.reshape(*[1] * (x.ndim - 1), *self.shape)


class ResBlock(nn.Module):
    """x + conv(SiLU(FiLM(norm(conv(SiLU(norm(x))))))), zero-initialised in its last convolution.

    Without FiLM the embedding is added before the inner norm.

    Attributes:
      features: output channels; where they differ from x's, a 1×1 convolution adapts the shortcut.
      num_groups: groups of the normalisation of `features` channels, and of x's where it divides them.
      dropout: see `UNetConfig`.
      dtype: see `UNetConfig`.
      film: see `UNetConfig`.
    """

    features: int
    num_groups: int
    dropout: float
    dtype: Any
    film: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C], embedding [B, E] → [B, H, W, features]."""
        h = constrain(nn.silu(GroupNorm(self.num_groups, dtype=self.dtype, name="norm_in")(x)))
        h = constrain(Conv(self.features, dtype=self.dtype, name="conv_in")(h), SPLIT, self.num_groups)
        norm = GroupNorm(self.num_groups, dtype=self.dtype, name="norm_out")
        units = (1 + self.film, self.num_groups, self.features // self.num_groups)
        time = UnitDense(units, self.dtype, name="time")(embedding).reshape(len(x), units[0], 1, 1, self.features)
        if self.film:
            h = norm(h) * (1 + time[:, 0]) + time[:, 1]
        else:
            h = norm(h + time[:, 0])
        h = nn.Dropout(self.dropout, deterministic=not train, name="drop")(nn.silu(h))
        h = constrain(h, SPLIT, self.num_groups)
        h = Conv(self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel_size=1, dtype=self.dtype, name="shortcut")(x)
        return constrain(x + h)


class PixelAttention(nn.Module):
    """x + attention of its H·W pixels over one another or over a sequence, zero-initialised in the output projection.

    Attributes:
      num_heads: divides x's channels.
      num_groups: divides x's channels.
      dtype: see `UNetConfig`.
    """

    num_heads: int
    num_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        """x [B, H, W, C], context [B, S, E], mask [B, S] True where there is something to see → [B, H, W, C]."""
        batch, height, width, channels = x.shape
        heads = (self.num_heads, channels // self.num_heads)
        h = GroupNorm(self.num_groups, dtype=self.dtype, name="norm")(x).reshape(batch, height * width, channels)
        h = constrain(h)
        q = nn.Dense(channels, dtype=self.dtype, name="q")(h).reshape(batch, -1, *heads)
        kv = UnitDense((2, *heads), self.dtype, name="kv")(h if context is None else context)
        mask = None if mask is None else mask[:, None, None, :]
        h = attention(q, kv[:, :, 0], kv[:, :, 1], mask=mask).reshape(x.shape)
        return constrain(x + nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(h))


class UNet(nn.Module):
    """An image from a noisy image and its time; exactly zero at initialisation.

    Attributes:
      config: see `UNetConfig`.
      out_channels: channels of the output.
    """

    config: UNetConfig
    out_channels: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        cond: jax.Array | None = None,
        context: tuple[jax.Array, jax.Array] | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Evaluates the network.

        Args:
          x: [B, H, W, C]. Image conditions (a low-resolution image, a mask) are further channels of it.
          t: time [B] in [0, 1].
          cond: a vector for each example [B, D] (a one-hot class, an embedding), or None. Zeros act as no condition.
          context: a sequence for each example to attend to [B, S, E], and where it holds something [B, S]; or None.
          train: whether dropout is on; it then needs a `dropout` key.

        Returns:
          [B, H, W, out_channels], float32.

        Raises:
          ValueError: see `check_unet`.
        """
        cfg = self.config
        check_unet(cfg, x.shape[1], x.shape[2])
        dtype, full = jnp.dtype(cfg.dtype), cfg.layout == "full"
        levels = [cfg.width * m for m in cfg.multipliers]

        e = nn.Dense(4 * cfg.width, dtype=dtype, name="time_in")(time_embedding(t, cfg.width))
        e = nn.Dense(4 * cfg.width, dtype=dtype, name="time_out")(nn.silu(e))
        if cond is None:
            e = nn.silu(e)  # [B, 4 width]
        else:
            # Behind time's layers (Dhariwal & Nichol 2021), and straight to every block: a condition on few pixels is
            # learned slowly, and not at all through time's layers or from a weak initialisation.
            init = nn.initializers.normal(0.3)
            e = e + nn.Dense(4 * cfg.width, use_bias=False, kernel_init=init, dtype=dtype, name="cond_in")(cond)
            e = nn.silu(e)
            if cfg.direct_condition:
                e = jnp.concatenate([e, cond.astype(dtype)], axis=1)  # [B, 4 width + D]

        residual = nn.remat(ResBlock, static_argnums=(3,)) if cfg.remat else ResBlock
        attending = nn.remat(PixelAttention) if cfg.remat else PixelAttention

        def block(h: jax.Array, features: int, attend: bool, name: str) -> jax.Array:
            h = residual(features, cfg.num_groups, cfg.dropout, dtype, cfg.film, name=name)(h, e, train)
            if attend:
                h = attending(cfg.num_heads, cfg.num_groups, dtype, name=f"{name}_attention")(h)
                if context is not None:
                    h = attending(cfg.num_heads, cfg.num_groups, dtype, name=f"{name}_context")(h, *context)
            return h

        h = constrain(Conv(cfg.width, dtype=dtype, name="conv_in")(x))
        skips = [h] if full else []
        for level, features in enumerate(levels):
            if level:
                h = Conv(h.shape[-1], stride=2, dtype=dtype, name=f"halve_{level}")(h) if full else halve(h)
                h = constrain(h)
                skips += [h] if full else []
            for i in range(cfg.num_blocks):
                h = block(h, features, h.shape[1] in cfg.attention_resolutions, f"down_{level}_{i}")
                skips.append(h)
        h = block(h, levels[-1], bool(cfg.attention_resolutions), "middle_0")
        h = block(h, levels[-1], False, "middle_1")
        for level, features in reversed(list(enumerate(levels))):
            for i in range(cfg.num_blocks + full):
                h = constrain(jnp.concatenate([h, skips.pop()], axis=-1))
                h = block(h, features, h.shape[1] in cfg.attention_resolutions, f"up_{level}_{i}")
            if level:
                h = DoubleConv(features, dtype=dtype, name=f"double_{level}")(h) if full else double(h)
                h = constrain(h)
        h = nn.silu(GroupNorm(cfg.num_groups, dtype=dtype, name="norm_out")(h))
        h = Conv(self.out_channels, kernel_init=nn.initializers.zeros, dtype=dtype, name="conv_out")(h)
        return h.astype(jnp.float32)
