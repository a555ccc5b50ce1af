"""Features of a batch, by which a critic sees that a generator repeats itself, over explicit groups of examples.

- Minibatch discrimination (Salimans et al. 2016, arXiv 1606.03498, section 3.2): M_i = f(x_i) T, B kernels of C numbers
  each, and o(x_i)_b = Σ_{j ≠ i} exp(−‖M_ib − M_jb‖₁).
- Minibatch standard deviation (Karras et al. 2018, arXiv 1710.10196, section 3): the standard deviation of each feature
  over the group, averaged to one number.

Groups are runs of `size` consecutive examples of the global batch. They are the same on any number of devices, and no
example leaves its device where a device's share of the batch is a multiple of `size`.

Deviations: Salimans et al. take the whole batch for a group, and sum over j = i as well, which is a constant; Karras et
al. append the number as a map before the last layers, here it joins the features before the last one.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


def grouped(h: jax.Array, size: int) -> jax.Array:
    """h [N, D] in groups of `size` consecutive examples, [N / size, size, D].

    Raises:
      ValueError: the batch is no multiple of `size`.
    """
    if len(h) % size:
        raise ValueError(
            f"batch features over groups of {size} do not fit a critic's batch of {len(h)}: choose critic.group_size "
            "to divide train.batch_size / num_critic"
        )
    return h.reshape(-1, size, h.shape[1])


def closeness(kernels: jax.Array) -> jax.Array:
    """Σ_{j ≠ i} exp(−‖M_ib − M_jb‖₁) for M [G, n, B, C] → [G, n, B]."""
    distance = jnp.abs(kernels[:, :, None] - kernels[:, None]).sum(-1)  # [G, n, n, B]
    return jnp.exp(-distance).sum(2) - 1.0  # without j = i


def deviation(h: jax.Array) -> jax.Array:
    """The mean over features of the standard deviation over a group: h [G, n, D] → [G]."""
    return jnp.sqrt(jnp.square(h - h.mean(1, keepdims=True)).mean(1) + 1e-8).mean(1)


class Discrimination(nn.Module):
    """Features [N, D] with minibatch discrimination's beside them, [N, D + num_kernels].

    Attributes:
      size: examples of a group.
      num_kernels: B.
      dim: C.
    """

    size: int
    num_kernels: int = 32
    dim: int = 5

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """Appends the closeness to the others of the group."""
        kernels = nn.Dense(self.num_kernels * self.dim, use_bias=False, name="kernels")(h)
        found = closeness(grouped(kernels, self.size).reshape(-1, self.size, self.num_kernels, self.dim))
        return jnp.concatenate([h, found.reshape(len(h), -1)], 1)


def with_deviation(h: jax.Array, size: int) -> jax.Array:
    """Features [N, D] with the group's standard deviation beside them, [N, D + 1]."""
    found = deviation(grouped(h, size))
    return jnp.concatenate([h, jnp.repeat(found, size)[:, None]], 1)
