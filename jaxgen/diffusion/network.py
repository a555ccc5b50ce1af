"""The network of a diffusion model: a U-Net, what it is conditioned on, and how its output is read.

Classes and attributes enter as one-hot vectors beside the time and in every block, texts as a sequence to attend to and
their mean. What is left open (see `jaxgen.data.condition`) is a zero, so that one network is the conditional and the
unconditional model of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.data.condition import OPEN
from jaxgen.diffusion import schedules
from jaxgen.diffusion.denoisers import Denoised, Predict, guided
from jaxgen.diffusion.schedules import Prediction, Schedule
from jaxgen.nets.unet import UNet, UNetConfig

Cond = Mapping[str, jax.Array]
Output = tuple[jax.Array, jax.Array | None]
"""The predicted target, and where a learned variance lies between β̃ and β (`variance_mix`), each [B,H,W,C]."""


class Denoiser(nn.Module):
    """A U-Net with its conditions.

    Attributes:
      config: the U-Net.
      channels: of the image.
      sizes: condition key → number of values (of each attribute, of the vocabulary), in the order of the one-hots.
      learn_variance: whether the variance is learned too.
      text_width: width of the embedded words.
    """

    config: UNetConfig
    channels: int
    sizes: Mapping[str, tuple[int, ...]]
    learn_variance: bool = False
    text_width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, cond: Cond, train: bool = False) -> Output:
        """x [B,H,W,C'], time t [B] in [0, 1], cond `{key: [B, ...]}` with the keys of `sizes`."""
        vectors, context = [], None
        if "label" in self.sizes:
            vectors.append(jax.nn.one_hot(cond["label"], self.sizes["label"][0]))
        if "attribute" in self.sizes:
            hot = [jax.nn.one_hot(cond["attribute"][:, i], size) for i, size in enumerate(self.sizes["attribute"])]
            vectors.append(jnp.concatenate(hot, 1))
        if "tokens" in self.sizes:
            tokens = cond["tokens"]
            mask = (tokens > 0)[:, :, None]
            normal = nn.initializers.normal(0.02)
            place = self.param("place", normal, (tokens.shape[1], self.text_width))
            words = nn.Embed(self.sizes["tokens"][0], self.text_width, embedding_init=normal, name="word")(tokens)
            words = nn.LayerNorm(name="text_norm")(words + place[None]) * mask  # [B, T, E]
            mean = words.sum(1) / jnp.maximum(mask.sum(1), 1)
            vectors.append(mean / jnp.sqrt(float(self.text_width)))  # of a one-hot's length, or shorter
            # The first place of the sequence is always there to see: an empty text has nothing else.
            start = self.param("start", normal, (self.text_width,))
            start = jnp.broadcast_to(start, (len(tokens), 1, self.text_width))
            seen = jnp.concatenate([jnp.ones((len(tokens), 1), bool), mask[:, :, 0]], 1)
            context = jnp.concatenate([start, words], 1), seen
        vector = jnp.concatenate(vectors, 1) if vectors else None
        unet = UNet(self.config, (1 + self.learn_variance) * self.channels, name="unet")
        out = unet(x, t, vector, context, train)
        if not self.learn_variance:
            return out, None
        target, mix = jnp.split(out, 2, axis=-1)
        return target, (mix + 1.0) / 2.0


def drop(cond: Cond, uniform: jax.Array, share: Mapping[str, jax.Array], rate: float) -> dict[str, jax.Array]:
    """The condition that a training example is shown: nothing with probability `rate`, and a part of its attributes.

    Each example keeps a share of its attributes that is itself uniform, so that conditions on one attribute, on some
    and on all are equally familiar; so with the words of its text, since a user types fewer than a caption has.

    Args:
      cond: `{key: [B, ...]}`.
      uniform: [B, 1 + K] in [0, 1) for K keys: below `rate`, the first number leaves everything open and, where there
        are several keys, the others one key each, so that samples can be asked for by any of them alone.
      share: for keys of A attributes or words, [B, 1 + A] in [0, 1): the example's share, and a number for each, which
        stays below that share.
      rate: probability of leaving all open.
    """
    shown = {}
    for i, (key, value) in enumerate(cond.items()):
        keep = uniform[:, 0] >= rate
        if len(cond) > 1:
            keep = keep & (uniform[:, 1 + i] >= rate)
        keep = keep.reshape(-1, *[1] * (value.ndim - 1))
        if key in share:
            keep = keep & (share[key][:, 1:] < share[key][:, :1])
        shown[key] = value = jnp.where(keep, value, OPEN[key])
        if key == "tokens":  # the words that are left close up, as a user's do
            shown[key] = jnp.take_along_axis(value, jnp.argsort(value == OPEN[key], axis=1), 1)
    return shown


def target(prediction: Prediction, schedule: Schedule, x_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """What the network is to predict at time t [B] for the clean x_0 and the noise eps [B,H,W,C]."""
    if prediction == "v":
        return schedules.v_from_x0_eps(schedule, t, x_0, eps)
    return eps if prediction == "eps" else x_0


def read(
    prediction: Prediction, schedule: Schedule, x_t: jax.Array, t: jax.Array, output: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """x_0 and eps [B,H,W,C] that the network's output [B,H,W,C] at (x_t, t) stands for."""
    if prediction == "v":
        return schedules.x0_eps_from_v(schedule, x_t, t, output)
    if prediction == "eps":
        return schedules.x0_from_eps(schedule, x_t, t, output), output
    return output, schedules.eps_from_x0(schedule, x_t, t, output)


def predictor(
    run: Callable[..., Output],
    prediction: Prediction,
    schedule: Schedule,
    cond: Cond,
    free: Cond,
    guidance: float = 1.0,
) -> Predict:
    """The network as samplers want it.

    Args:
      run: `(x_t [B,H,W,C], t [B], cond, x_0_before) -> Output`.
      prediction: what the output means.
      schedule: the noise levels.
      cond: the condition, `{key: [B, ...]}`.
      free: the condition that asks for nothing, laid out like `cond`.
      guidance: the scale of classifier-free guidance, see `denoisers.guide`; at 1 `free` is not computed.
    """

    def predict_with(cond: Cond) -> Predict:
        def predict(x_t: jax.Array, t: jax.Array, x_0_before: jax.Array) -> Denoised:
            output, mix = run(x_t, t, cond, x_0_before)
            return Denoised(*read(prediction, schedule, x_t, t, output), mix)

        return predict

    if guidance == 1.0 or not cond:
        return predict_with(cond)
    both = {key: jnp.stack([cond[key], free[key]], 1).reshape(-1, *cond[key].shape[1:]) for key in cond}
    return guided(predict_with(both), guidance)
