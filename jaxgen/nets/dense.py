"""A dense layer whose weight gradient is fast on a CPU, and small ones as plain functions.

The weight gradient is xᵀ dy over all tokens. Left alone, XLA's CPU compiler writes it as a product with dyᵀ, which it
lays out anew and multiplies at a third of the speed of other products. Here the tokens are one axis, behind a barrier
that keeps the product as it is written. The price is forward mode, as for `nets.conv`: `jax.jvp` and its like raise.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.kernels import backend

__all__ = ["Dense", "init_linear", "linear"]


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _product_backward(residuals: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    x_rows, dy_rows = jax.lax.optimization_barrier(rows)
    return dy @ kernel.T, x_rows.T @ dy_rows


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


def _dot_general(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, **kwargs: Any):
    if backend() != "cpu" or precision is not None:
        return jax.lax.dot_general(x, kernel, dimension_numbers, precision=precision, **kwargs)
    return _product(x, kernel)


class Dense(nn.Dense):
    """`flax.linen.Dense`, [..., C] → [..., features], with the gradient that the module describes.

    Where `lora_a` [C, r] and `lora_b` [r, features] stand beside its kernel (see `language.lora`), it adds (x a) b;
    where they are [B, C, r] and [B, r, features], each row of x [B, T, C] has its own, or so many rows side by side.
    """

    dot_general: Any = _dot_general

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies it to the last axis."""
        y = super().__call__(x)
        if not self.has_variable("params", "lora_a"):
            return y
        a, b = (self.get_variable("params", name).astype(y.dtype) for name in ("lora_a", "lora_b"))
        if a.ndim == 3 and len(a) < len(x):  # beams
            a, b = (jnp.repeat(f, len(x) // len(f), 0) for f in (a, b))
        product = _product if a.ndim == 2 and backend() == "cpu" else jnp.matmul
        return y + product(product(x.astype(y.dtype), a), b)


def init_linear(key: jax.Array, num_in: int, num_out: int, std: float = 0.02) -> dict[str, jax.Array]:
    """Parameters of `linear`."""
    return {"kernel": std * jax.random.normal(key, (num_in, num_out)), "bias": jnp.zeros(num_out)}


def linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """x W + b, [..., C] → [..., features], in x's dtype."""
    bias = params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ params["kernel"].astype(x.dtype) + bias.astype(x.dtype)
