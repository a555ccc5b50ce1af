"""Wasserstein GANs, with clipped weights (Arjovsky et al. 2017, arXiv 1701.07875) or a gradient penalty.

The penalty is that of Gulrajani et al. (2017, arXiv 1704.00028). By Kantorovich and Rubinstein,

  W_1(P_data, P_g) = max_{‖f‖_L ≤ 1} E_x f(x) − E_z f(g(z)), which g is to make small.

The penalty takes the place of the constraint:

  min_g max_f E_x f(x) − E_z f(g(z)) − λ E_x̃ (‖∇f(x̃)‖ − 1)².

It is `gan` with the critic's loss `wasserstein`, several descents of the critic for each of the generator, and one of
the ways to keep f smooth: by default the penalty with λ = 10 and Adam with β = (0, 0.9); `clip=0.01` with
`penalty="none"` and RMSProp at 5e-5 are algorithm 1 of the first paper; `critic.spectral` does it too. The estimate is
`critic/wasserstein` in training, `critic/falling` says by how much it falls, and `eval/wasserstein` is of held-out
examples, divided by the critic's mean slope: with clipped weights the estimate has no scale of its own. It is no bound
of W_1: a critic's greatest slope, not its mean, would make it one.

Lecture errata E10 and E11: see `penalties`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxgen.gans import gan, losses
from jaxgen.gans.optimizers import PlayerConfig
from jaxgen.gans.penalties import Penalty
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config(gan.Config):
    """A Wasserstein GAN; by default with a gradient penalty."""

    loss: losses.Name = "wasserstein"
    """`wasserstein`; a game of another loss is `gan`."""
    num_critic: int = 5
    """Descents of the critic for each one of the generator; the batch is cut into so many parts."""
    gen_optimizer: PlayerConfig = PlayerConfig(learning_rate=1e-4, b1=0.0, b2=0.9)
    """How the generator descends."""
    critic_optimizer: PlayerConfig = PlayerConfig(learning_rate=1e-4, b1=0.0, b2=0.9)
    """How the critic descends."""
    penalty: Penalty = "two_sided"
    """On the critic's gradient: `two_sided` (WGAN-GP), `one_sided` (the lecture's), `r1` or `none`."""


def make(cfg: Config, spec: Spec) -> Method:
    """A Wasserstein GAN of the data of `spec`; see `gan.make`.

    Raises:
      ValueError: another loss, nothing or two things that keep the critic smooth, and see `gan.make`.
    """
    if cfg.loss != "wasserstein":
        raise ValueError(f"method.loss={cfg.loss} is no Wasserstein GAN's: choose the method gan")
    ways = [cfg.penalty != "none", cfg.clip is not None, cfg.critic.spectral]
    if sum(ways) != 1:
        raise ValueError(
            "a Wasserstein GAN needs one way to keep its critic smooth: method.penalty, method.clip or "
            f"method.critic.spectral, not {sum(ways)} of them"
        )
    return gan.build(cfg, spec)
