"""The codes of the training data: their Gaussian, and lines between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.method import Method

MEMORY = 0.99  # decay of the moments: the encoder changes


def with_moments(method: Method, encode: Callable[[Any, dict[str, jax.Array]], jax.Array], code: int) -> Method:
    """Keeps the mean [K] and the second moment [K, K] of the codes in `state["codes"]`, over the last steps.

    Args:
      method: whose state has `params`; where its metrics have `codes` [B, K], those are taken and not passed on.
      encode: `(params, batch) -> codes [B, K]`, with the parameters before the step.
      code: K.
    """

    def init(key, batch, warm=None):
        codes = {"mean": jnp.zeros(code), "second": jnp.eye(code), "count": jnp.zeros((), jnp.int32)}
        return {**method.init(key, batch, warm), "codes": codes}

    def step(state, batch, key):
        inner = {name: value for name, value in state.items() if name != "codes"}
        new, metrics = method.step(inner, batch, key)
        z, old = metrics.pop("codes", None), state["codes"]
        z = jax.lax.stop_gradient(encode(state["params"], batch) if z is None else z)
        keep = jnp.minimum(MEMORY, old["count"] / (old["count"] + 9.0))  # the first batch replaces what init guessed
        mix = lambda past, now: keep * past + (1 - keep) * now
        codes = {"mean": mix(old["mean"], z.mean(0)), "second": mix(old["second"], z.T @ z / len(z))}
        return {**new, "codes": codes | {"count": old["count"] + 1}}, metrics

    return method._replace(init=init, step=step)


def draw_codes(codes: dict[str, jax.Array], key: jax.Array, num: int) -> jax.Array:
    """`num` codes [num, K] from the Gaussian with the moments that `with_moments` keeps."""
    mean = codes["mean"]
    values, vectors = jnp.linalg.eigh(codes["second"] - mean[:, None] * mean[None])
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]  # a covariance may be singular, and round below 0
    return mean[None] + jax.random.normal(key, (num, len(mean))) @ root.T


def rows(show: Callable[[jax.Array], jax.Array], z: jax.Array, num: int) -> dict[str, jax.Array]:
    """Pictures of `num` codes from each one of z [B, K] to the next one.

    Args:
      show: codes [n, K] → pictures [n, H, W, C].
      z: the codes.
      num: pictures a row.

    Returns:
      `frames` [B, num, H, W, C], and their first ones, `image` [B, H, W, C].
    """
    pictures = show(between(z, num).reshape(-1, z.shape[1]))
    frames = pictures.reshape(len(z), num, *pictures.shape[1:])
    return {"image": frames[:, 0], "frames": frames}


def between(z: jax.Array, num: int) -> jax.Array:
    """Straight lines from each code of z [B, K] to the next one, the last to the first: [B, num, K], ends included."""
    weights = jnp.linspace(0.0, 1.0, num)[None, :, None]
    return (1 - weights) * z[:, None] + weights * jnp.roll(z, -1, 0)[:, None]
