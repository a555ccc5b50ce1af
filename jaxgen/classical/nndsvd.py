"""Where NMF starts: from singular vectors (Boutsidis & Gallopoulos, Pattern Recognition 41, 2008), or at random."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxgen.classical.factors import EPS
from jaxgen.classical.rows import matmul, over_rows
from jaxgen.classical.subspace import random_directions, subspace

Init = Literal["nndsvda", "nndsvd", "random"]


def start(key: jax.Array, x: jax.Array, num: int, init: Init) -> tuple[jax.Array, jax.Array]:
    """First factors W [N, K] and H [K, D] of x [N, D] ≥ 0 without gaps, K = `num`.

    - `nndsvd`: the leading singular pairs, of each the sign whose positive halves weigh more (Boutsidis & Gallopoulos
      2008). Zeros stay zeros under multiplicative updates: `nndsvda` puts the mean of x in their place.
    - `random`: half-normal, scaled to the mean of x.

    Raises:
      ValueError: a start from singular vectors, and more parts than rows or columns.
    """
    if init == "random":
        key_w, key_h = jax.random.split(key)
        scale = jnp.sqrt(x.mean() / num)
        draw = lambda key, *shape: scale * jnp.abs(jax.random.normal(key, shape, x.dtype))
        return draw(key_w, x.shape[0], num), draw(key_h, num, x.shape[1])
    if num > min(x.shape):
        raise ValueError(
            f"init={init!r} needs {num} rows and columns or more, as many as parts, not {x.shape}; or 'random'"
        )
    apply = lambda rows: over_rows(lambda x, v: (matmul(matmul(x, v.T).T, x), ()), x, rows)[0]
    first = random_directions(key, min(num + 10, *x.shape), x.shape[1], x.dtype)
    directions, squares = subspace(apply, first, 7)
    right, values = directions[:num].T, jnp.sqrt(squares[:num])  # [D, K], [K]
    left = matmul(x, right) / jnp.maximum(values, EPS)[None]

    def halves(sign):
        u, v = jnp.maximum(sign * left, 0), jnp.maximum(sign * right, 0)
        return u, v, jnp.linalg.norm(u, axis=0), jnp.linalg.norm(v, axis=0)

    up, down = halves(1), halves(-1)
    u, v, size_u, size_v = (jnp.where(up[2] * up[3] >= down[2] * down[3], a, b) for a, b in zip(up, down, strict=True))
    grow = jnp.sqrt(values * size_u * size_v)
    w, h = u * (grow / jnp.maximum(size_u, EPS))[None], (v * (grow / jnp.maximum(size_v, EPS))[None]).T
    fill = x.mean() if init == "nndsvda" else 0.0
    return jnp.where(w > 1e-6, w, fill), jnp.where(h > 1e-6, h, fill)  # what is below is rounding
