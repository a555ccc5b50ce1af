"""What critic and generator minimise, of the critic's scores f(x) before any sigmoid.

| name | critic, of a real x and a generated x̂ | generator | source (arXiv) |
| --- | --- | --- | --- |
| saturating | −log σ(f(x)) − log(1 − σ(f(x̂))) | log(1 − σ(f(x̂))) | Goodfellow et al. 2014, 1406.2661, equation 1 |
| non_saturating | the same | −log σ(f(x̂)) | the same, section 3 |
| least_squares | ½ (f(x) − 1)² + ½ f(x̂)² | ½ (f(x̂) − 1)² | Mao et al. 2017, 1611.04076, equation 9 |
| hinge | max(0, 1 − f(x)) + max(0, 1 + f(x̂)) | −f(x̂) | Miyato et al. 2018, 1802.05957, equations 16, 17 |
| wasserstein | f(x̂) − f(x) | −f(x̂) | Arjovsky et al. 2017, 1701.07875, equations 2, 3 |
| margin | max(0, .9 − p)² + ½ max(0, p̂ − .1)², p = σ(f) | max(0, .9 − p̂)² | Sabour et al. 2017, 1710.09829 |

Lecture errata: E16 (the maximum of its sums over N points is N times the mean that it goes on with: here are means, and
C* = −2 log 2 + 2 JS holds of them) and E17 (its generator loss log(1 − f(g(c))) is the saturating one, whose gradient
vanishes as soon as the critic tells the two apart; the paper trains on −log f(g(c))).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Name = Literal["saturating", "non_saturating", "least_squares", "hinge", "wasserstein", "margin"]


class Loss(NamedTuple):
    """A game: `critic` takes scores of real and of generated examples, `gen` those of generated ones; [B] → [B]."""

    critic: Callable[[jax.Array, jax.Array], jax.Array]
    gen: Callable[[jax.Array], jax.Array]


def _logistic(real: jax.Array, fake: jax.Array) -> jax.Array:
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def _margin(real: jax.Array, fake: jax.Array) -> jax.Array:
    return _short(real) + 0.5 * jnp.square(jax.nn.relu(jax.nn.sigmoid(fake) - 0.1))


def _short(score: jax.Array) -> jax.Array:
    return jnp.square(jax.nn.relu(0.9 - jax.nn.sigmoid(score)))


LOSSES: dict[str, Loss] = {
    "saturating": Loss(_logistic, lambda fake: -jax.nn.softplus(fake)),
    "non_saturating": Loss(_logistic, lambda fake: jax.nn.softplus(-fake)),
    "least_squares": Loss(
        lambda real, fake: 0.5 * (jnp.square(real - 1.0) + jnp.square(fake)), lambda fake: 0.5 * jnp.square(fake - 1.0)
    ),
    "hinge": Loss(lambda real, fake: jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake), lambda fake: -fake),
    "wasserstein": Loss(lambda real, fake: fake - real, lambda fake: -fake),
    "margin": Loss(_margin, _short),
}


def js_bound(loss: jax.Array) -> jax.Array:
    """log 2 − L/2 from the critic's logistic loss L: a lower bound of JS(P_data, P_g) in nats, tight for the best f.

    Goodfellow et al., theorem 1: max_f −L = −2 log 2 + 2 JS.
    """
    return math.log(2.0) - 0.5 * loss
