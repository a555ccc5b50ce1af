"""What a person would look for in the training of a GAN, as numbers that stop and rollback rules can act on.

| what goes wrong | number | bound to set |
| --- | --- | --- |
| the critic tells all, so that a saturating generator learns nothing | `critic/auc` | above 0.99 for long |
| the generator repeats itself | `eval/duplicates` | above 0.2 |
| it has lost kinds of examples | `eval/coverage`, `eval/class_coverage` | below 0.3, 0.8 |
| it learns nothing more (Wasserstein) | `critic/falling` | below 0.01 for long |
| gradients vanish or explode | `critic/grad_norm`, `gen/grad_norm` | the run's own |

Duplicates and coverage compare within one evaluation batch, by the distance of pixels or coordinates: coarse, but
cheap, and the same for every data set. Only figures of one batch size compare. A last batch that is not full is filled
up with copies of one example, which distorts them: choose `data.validation` divisible by the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NEAR = 0.25  # a sample nearer to another than so much of the usual distance of real neighbours repeats it
SHARE = 0.1  # a class is covered when so much of its examples are
SHORT, LONG = 0.98, 0.998  # decays of the averages whose difference is the fall
WARM = 500  # steps until both have something to say


def auc(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The share of pairs of which the real example scores above the generated one: ½ by chance, 1 when it tells all.

    It means the same for every loss. Scores [N] and [M].
    """
    above = jnp.sign(real[:, None] - fake[None, :])
    return 0.5 * (1.0 + above.mean())


def distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distances [N, M] of a [N, ...] from b [M, ...]."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    shift = b.mean(0, keepdims=True)  # keeps the digits of close points far from 0
    a, b = a - shift, b - shift
    cross = jnp.matmul(a, b.T, precision="highest")
    return jnp.sqrt(jnp.maximum(jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)[None] - 2.0 * cross, 0.0))


def to_neighbour(x: jax.Array, k: int) -> jax.Array:
    """The distance [N] of each of x [N, ...] from its k-th nearest other one."""
    own = jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, distances(x, x))
    return jnp.sort(own, 1)[:, min(k, len(x) - 1) - 1]


def duplicates(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Which of fake [B, ...] are much nearer to another one than real examples usually are: 0 or 1, [B]."""
    return (to_neighbour(fake, 1) < NEAR * jnp.median(to_neighbour(real, 1))).astype(jnp.float32)


def covered(real: jax.Array, fake: jax.Array, k: int = 5) -> jax.Array:
    """Which of real [B, ...] have a generated example nearer than their k-th real neighbour: 0 or 1, [B].

    Its mean is the coverage of Naeem et al. (2020, arXiv 2002.09797, equation 7), within a batch.
    """
    return (distances(real, fake).min(1) <= to_neighbour(real, k)).astype(jnp.float32)


def class_covered(covered: jax.Array, label: jax.Array, num: int) -> jax.Array:
    """Which examples belong to a class of which a tenth at least is covered: `covered` [B], `label` [B] → 0 or 1, [B].

    Its mean is the share of the data whose class has not been lost.
    """
    hot = jax.nn.one_hot(label, num)
    share = covered @ hot / jnp.maximum(hot.sum(0), 1.0)  # [num]
    return hot @ (share >= SHARE).astype(jnp.float32)


def init_trend() -> dict[str, jax.Array]:
    """Before the first step."""
    return {"short": jnp.zeros(()), "long": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}


def follow(trend: dict[str, jax.Array], value: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    """The averages of a positive number that should fall, with a new `value`, and by how much it is falling.

    1 − short average / long one, about 50 and 500 steps: near 0 on a plateau; 1 in the first `WARM` steps.
    """
    count = trend["count"] + 1
    past = trend["count"] / count  # plain means at first
    mix = lambda old, decay: (keep := jnp.minimum(decay, past)) * old + (1.0 - keep) * value
    new = {"short": mix(trend["short"], SHORT), "long": mix(trend["long"], LONG), "count": count}
    falling = 1.0 - new["short"] / jnp.maximum(jnp.abs(new["long"]), 1e-8)
    return new, jnp.where(count < WARM, 1.0, falling)
