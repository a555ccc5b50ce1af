"""A small residual network that reads classes or attributes of images: its features measure samples, its heads judge.

Residual blocks with group normalisation (He et al. 2016, arXiv 1603.05027; Wu & He 2018, arXiv 1803.08494), a dense
layer over the last map, one softmax for each label: L(θ) = mean over the labels of −log p_θ(label | image). That
layer's output are the features of Fréchet distances (Heusel et al. 2017, arXiv 1706.08500), whose Inception network
knows nothing of 16×16 pixel art; hence a network of each data set's own. Its features are not pooled over the image
as Inception's are: the bundled sets are aligned, and a pixel decides whether a mouth smiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.method import Method, gradient_method, with_ema
from jaxgen.nets.conv import Conv
from jaxgen.nets.norm import GroupNorm
from jaxgen.nets.resample import halve
from jaxgen.numerics import to_unit
from jaxgen.optimizer import AdamWConfig, adamw
from jaxgen.sharding import constrain

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config:
    """An image classifier."""

    target: Literal["label", "attribute"] = "attribute"
    """What is read: the class, or every attribute."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each level, a multiple of 8; every level after the first halves the resolution, the last gives the
    features."""
    num_blocks: int = 1
    """Residual blocks a level."""
    num_features: int = 128
    """D, the length of an image's feature vector."""
    dropout: float = 0.0
    """Probability that a feature is dropped in training."""
    shift: int = 1
    """Training images move by up to so many pixels each way."""
    noise: float = 0.0
    """Standard deviation of the noise added to training images, in units of [-1, 1]."""
    optimizer: AdamWConfig = AdamWConfig()
    """AdamW."""
    ema_decay: float = 0.99
    """Decay of the weights' average, with which images are read."""


class Readings(NamedTuple):
    """What the network makes of images: features [B, D], and for each label its logits [B, values]."""

    features: jax.Array
    logits: tuple[jax.Array, ...]


class Classifier(nn.Module):
    """Images in [-1, 1] → `Readings`.

    Attributes:
      config: the shape.
      sizes: number of values of each label.
    """

    config: Config
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Readings:
        """Reads x [B, H, W, C]; in training, dropout needs a `dropout` key."""
        cfg = self.config
        h = constrain(Conv(cfg.widths[0], name="stem")(x))
        for level, width in enumerate(cfg.widths):
            if level:
                h = halve(h[:, : h.shape[1] // 2 * 2, : h.shape[2] // 2 * 2])  # an odd edge is cut
            for i in range(cfg.num_blocks):
                name = f"level_{level}_{i}"
                y = nn.silu(GroupNorm(8, name=f"{name}_norm_in")(h))
                y = Conv(width, name=f"{name}_conv_in")(y)
                y = nn.silu(GroupNorm(8, name=f"{name}_norm_out")(y))
                y = Conv(width, name=f"{name}_conv_out")(y)
                h = h if h.shape[-1] == width else Conv(width, kernel_size=1, name=f"{name}_shortcut")(h)
                h = constrain(h + y)
        h = nn.silu(GroupNorm(8, name="norm")(h))
        features = nn.silu(nn.Dense(cfg.num_features, name="features")(h.reshape(len(h), -1)))  # [B, D]
        kept = nn.Dropout(cfg.dropout, deterministic=not train, name="drop")(features)
        logits = nn.Dense(sum(self.sizes), name="heads")(kept)
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        return Readings(features, tuple(jnp.split(logits, ends, 1)))


def shifted(x: jax.Array, offset: jax.Array, most: int) -> jax.Array:
    """Images [B,H,W,C] moved by offset [B, 2] in 0…2·most, less `most`, pixels; edges are repeated."""
    wide = jnp.pad(x, [(0, 0), (most, most), (most, most), (0, 0)], mode="edge")
    cut = lambda image, place: jax.lax.dynamic_slice(image, (*place, 0), x.shape[1:])  # noqa: E731
    return jax.vmap(cut)(wide, offset)


def labels_of(batch: dict[str, jax.Array], target: str) -> jax.Array:
    """The labels of a batch as [B, number of labels]."""
    return batch[target] if target == "attribute" else batch[target][:, None]


def label_names(target: str, spec: Spec) -> Sequence[str]:
    """The names of the labels: those of the attributes, or `label`."""
    return spec.names["attribute"] if target == "attribute" else ("label",)


def check(cfg: Config, spec: Spec) -> None:
    """Raises a ValueError for an option that `make` cannot follow."""
    if cfg.target not in spec.sizes:
        raise ValueError(f"the data has no {cfg.target!r} to read; there are: {', '.join(spec.sizes) or 'none'}")
    for fine, message in (
        (
            cfg.widths and all(width > 0 and width % 8 == 0 for width in cfg.widths),
            f"widths={cfg.widths} must be multiples of 8, one or more",
        ),
        (cfg.num_blocks >= 1, f"num_blocks={cfg.num_blocks} must be 1 or more"),
        (cfg.num_features >= 1, f"num_features={cfg.num_features} must be 1 or more"),
        (0 <= cfg.dropout < 1, f"dropout={cfg.dropout} must lie in 0…1, and below 1"),
        (cfg.shift >= 0, f"shift={cfg.shift} must be 0 pixels or more"),
        (cfg.noise >= 0, f"noise={cfg.noise} must be 0 or more"),
        (0 <= cfg.ema_decay < 1, f"ema_decay={cfg.ema_decay} must lie in 0…1, and below 1"),
    ):
        if not fine:
            raise ValueError(f"method.{message}")


def make(cfg: Config, spec: Spec) -> Method:
    """A classifier of the images of `spec`; reads `image` and `cfg.target`.

    `evaluate` gives `loss` in nats and `accuracy/NAME` for each label. It does not sample.

    Raises:
      ValueError: the data has no such labels, or an option is out of range.
    """
    check(cfg, spec)
    net, names = Classifier(cfg, spec.sizes[cfg.target]), label_names(cfg.target, spec)

    def init_params(key, batch, warm=None):
        return net.init(key, to_unit(batch["image"][:1], spec.levels))

    def losses(readings, labels):
        each = [
            optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, i])
            for i, logits in enumerate(readings.logits)
        ]
        return jnp.stack(each, 1).mean(1)

    def draw(key, batch):
        key_shift, key_noise, key_drop = jax.random.split(key, 3)
        size = batch["image"].shape[0]
        return {
            "shift": jax.random.randint(key_shift, (size, 2), 0, 2 * cfg.shift + 1),
            "noise": jax.random.normal(key_noise, batch["image"].shape),
            "dropout": jax.random.split(key_drop, size),
        }

    def loss_fn(params, batch, noise):
        x = shifted(to_unit(batch["image"], spec.levels), noise["shift"], cfg.shift) + cfg.noise * noise["noise"]
        # One mask serves a whole batch, so its first example's key is as good as any.
        readings = net.apply(params, x, train=True, rngs={"dropout": noise["dropout"][0]})
        return losses(readings, labels_of(batch, cfg.target)).mean(), {}

    def evaluate(state, batch, key):
        readings = net.apply(state["params"], to_unit(batch["image"], spec.levels))
        labels = labels_of(batch, cfg.target)
        values = {"loss": losses(readings, labels)}
        for i, name in enumerate(names):
            values[f"accuracy/{name}"] = (readings.logits[i].argmax(1) == labels[:, i]).astype(jnp.float32)
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    method = gradient_method(
        init_params, loss_fn, adamw(cfg.optimizer), None, evaluate, draw=draw, reads=("image", cfg.target)
    )
    return with_ema(method, decay=cfg.ema_decay)
