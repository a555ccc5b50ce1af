"""What keeps a critic f smooth: weight clipping and penalties on its gradient.

- Clipping (Arjovsky et al. 2017, arXiv 1701.07875, algorithm 1): after every step all weights into [−c, c]. Lecture
  erratum E10: it clips the gradient instead, which bounds neither the weights nor f, and diverges.
- `two_sided` (Gulrajani et al. 2017, arXiv 1704.00028, equation 3): (‖∇f(x̃)‖ − 1)² at x̃ evenly between a real and a
  generated example. Lecture erratum E11: this draws the norm to 1, from below too, where the best critic has it.
- `one_sided`, the lecture's: max(0, ‖∇f(x̃)‖ − 1) at the same places (squared in Petzka et al. 2018, arXiv 1709.08894).
- `r1` (Mescheder et al. 2018, arXiv 1801.04406, equation 9): ½ ‖∇f(x)‖² at real examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

Penalty = Literal["none", "two_sided", "one_sided", "r1"]


def clip_weights(params: Any, bound: float) -> Any:
    """All parameters clipped to [−bound, bound]."""
    return jax.tree.map(lambda w: jnp.clip(w, -bound, bound), params)


def slopes(critic: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """‖∇f(x)‖ of each example of x [B, ...] under `critic`, [B, ...] → [B]: [B].

    The gradient is that of the sum of all scores: each example's own where scores do not depend on other examples.
    """
    gradient = jax.grad(lambda x: critic(x).sum())(x)
    return jnp.sqrt(jnp.square(gradient).reshape(len(x), -1).sum(1) + 1e-12)  # a root has no gradient at 0


def between(real: jax.Array, fake: jax.Array, mix: jax.Array) -> jax.Array:
    """mix · real + (1 − mix) · fake, for mix [B] in [0, 1]."""
    mix = mix.reshape(-1, *[1] * (real.ndim - 1))
    return mix * real + (1.0 - mix) * fake


def penalty(
    kind: Penalty, critic: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, mix: jax.Array
) -> jax.Array:
    """The penalty of each example, [B], before its weight: see the module; `mix` [B] is uniform in [0, 1)."""
    if kind == "r1":
        return 0.5 * jnp.square(slopes(critic, real))
    found = slopes(critic, between(real, fake, mix))
    return jnp.square(found - 1.0) if kind == "two_sided" else jax.nn.relu(found - 1.0)
