"""Softmax attention: the one door to `jax.nn.dot_product_attention`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.kernels import backend


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mask: jax.Array | None = None, causal: bool = False
) -> jax.Array:
    """softmax(q kᵀ / √D) v, by cuDNN's flash kernel on a GPU in half precision and by XLA elsewhere.

    Args:
      q: queries [B, T, N, D].
      k: keys [B, S, K, D]; N is a multiple of K (grouped queries).
      v: values [B, S, K, D].
      mask: True where a query may look, broadcast to [B, N, T, S].
      causal: whether query t sees only the keys up to t.

    Returns:
      [B, T, N, D] in q's dtype.
    """
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    # JAX's default never picks cuDNN, which takes half precision and heads of a multiple of 8 up to 128 only.
    flash = backend() == "gpu" and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, is_causal=causal, implementation="cudnn" if flash else "xla"
    )
