"""Unrolled GANs (Metz et al. 2017, arXiv 1611.02163): the generator looks ahead to what the critic will answer.

The generator descends on G(f_U(g(z))), where f_U is the critic after U more of its own steps against this generator,

  θ_f^{u+1} = θ_f^u − step(∇ C(θ_f^u, θ_g)),

and the gradient goes through all of them (equations 7 to 9): moving all mass to the point that f now likes best is no
gain, since f will have changed its mind. The critic itself is only moved by its own step, and U = 0 is the plain GAN,
bit for bit. The steps are those of the critic's own optimizer on the batch at hand, as in the authors' code.

A gradient through Adam's root is NaN where a gradient was 0, so that `critic_optimizer.eps_root` has to be above 0. The
rest is `gan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxgen.gans import gan
from jaxgen.gans.optimizers import PlayerConfig
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config(gan.Config):
    """A GAN whose generator looks ahead."""

    num_unrolled: int = 5
    """U, steps of the critic that the generator looks ahead; 0 for the plain GAN."""
    gen_optimizer: PlayerConfig = PlayerConfig(learning_rate=1e-3)
    """How the generator descends."""
    critic_optimizer: PlayerConfig = PlayerConfig(learning_rate=1e-4, eps_root=1e-8)
    """How the critic descends, ahead too."""


def make(cfg: Config, spec: Spec) -> Method:
    """An unrolled GAN of the data of `spec`; see `gan.make`.

    Raises:
      ValueError: fewer than 0 steps, an optimizer that has no gradient, and see `gan.make`.
    """
    if cfg.num_unrolled < 0:
        raise ValueError(f"method.num_unrolled={cfg.num_unrolled} must be 0 (a plain GAN) or more")
    smooth = cfg.critic_optimizer.kind == "sgd" or (
        cfg.critic_optimizer.kind == "adam" and cfg.critic_optimizer.eps_root
    )
    if cfg.num_unrolled and not smooth:
        raise ValueError(
            "the generator's gradient goes through the critic's optimizer: method.critic_optimizer needs kind=sgd, or "
            "kind=adam with eps_root above 0, such as 1e-8"
        )
    if cfg.num_unrolled and cfg.critic.spectral:
        raise ValueError(
            "the singular vectors of method.critic.spectral are held fixed in gradients, which through the critic's "
            "steps would be wrong: set spectral=False"
        )
    return gan.build(cfg, spec, cfg.num_unrolled)
