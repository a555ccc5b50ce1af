"""A critic of capsules (Sabour, Frosst & Hinton 2017, arXiv 1710.09829; as a critic Jaiswal et al. 2018, 1802.06167).

A capsule is a vector: its direction says how a part lies, its length whether it is there. Each primary capsule i, one
place of a convolutional map, predicts every output capsule j by a matrix of its own, û_{j|i} = W_ij u_i, and routing by
agreement (Sabour et al., procedure 1) lets it vote for those whose other votes agree with its own:

  s_j = Σ_i c_ij û_{j|i},   v_j = squash(s_j),   b_ij ← b_ij + û_{j|i} · v_j,   c_i = softmax(b_i).

The output capsules are `real` and `generated`. The score is log ‖s_real‖² − log ‖s_generated‖²: a logit as every loss
takes it, whose sigmoid is the share of `real` in the squared lengths.

Deviations: no reconstruction; two outputs, where Jaiswal et al. have one; small layers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.dcgan import DcganCritic, Layers
from jaxgen.nets.units import Activation, Norm
from jaxgen.sharding import constrain

EPS = 1e-7


def squash(s: jax.Array) -> jax.Array:
    """s ‖s‖ / (1 + ‖s‖²), of vectors along the last axis: same directions, lengths ‖s‖² / (1 + ‖s‖²) (equation 1)."""
    square = jnp.square(s).sum(-1, keepdims=True)
    return s * jnp.sqrt(square + EPS) / (1.0 + square)


def route(votes: jax.Array, num: int = 3) -> jax.Array:
    """Total inputs s [B, J, D] of J output capsules, from votes [B, I, J, D] of I capsules, by `num` rounds."""
    b = jnp.zeros(votes.shape[:3])
    for _ in range(num - 1):
        v = squash(jnp.einsum("bij,bijd->bjd", jax.nn.softmax(b, 2), votes))
        b = b + jnp.einsum("bijd,bjd->bij", votes, v)
    return jnp.einsum("bij,bijd->bjd", jax.nn.softmax(b, 2), votes)


class CapsuleCritic(nn.Module):
    """An image → a score.

    Attributes:
      widths: channels of each convolution, which halves the resolution; the last map is cut into primary capsules.
      dims: numbers of a primary and of an output capsule; the first divides the last width.
      norm, activation, layers: of the convolutions, see `DcganCritic`.
    """

    widths: tuple[int, ...]
    dims: tuple[int, int] = (8, 16)
    norm: Norm = "none"
    activation: Activation = "leaky_relu"
    layers: Layers = "strided"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """x [B, H, W, C] → [B]."""
        h = DcganCritic(self.widths, self.norm, self.activation, self.layers, name="trunk")(x, train)
        primary = squash(h.reshape(len(x), -1, self.dims[0]))  # [B, I, 8]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        shape = (primary.shape[1], self.dims[0], 2 * self.dims[1])
        votes = jnp.einsum("bip,ipq->biq", primary, self.param("votes", init, shape))
        s = constrain(route(votes.reshape(len(x), -1, 2, self.dims[1])))
        length = jnp.log(jnp.square(s).sum(-1) + EPS)
        return length[:, 0] - length[:, 1]
