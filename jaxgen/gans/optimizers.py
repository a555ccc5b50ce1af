"""How a player descends: Adam, RMSProp or plain gradient descent, its rate falling if asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import optax

from jaxgen.config import check_choice

Kind = Literal["adam", "rmsprop", "sgd"]


@dataclass(frozen=True)
class PlayerConfig:
    """The optimizer of one player; two rates are two time scales (Heusel et al. 2017, arXiv 1706.08500)."""

    kind: Kind = "adam"
    """`adam`, `rmsprop` (what weight clipping needs) or `sgd`."""
    learning_rate: float = 2e-4
    """Rate at the start."""
    decay_steps: int | None = None
    """Training step at which the rate has fallen, linearly, to a twentieth, where it stays; None: no fall."""
    b1: float = 0.5
    """Decay of the gradients' average (adam)."""
    b2: float = 0.999
    """Decay of the squared gradients' average (adam, rmsprop)."""
    eps_root: float = 0.0
    """Added under Adam's root; above 0 where one differentiates through its steps, as unrolling does."""


def check_player(cfg: PlayerConfig, name: str) -> None:
    """Raises a ValueError for an option of method.`name` that is unknown or out of range."""
    check_choice(f"method.{name}.kind", cfg.kind, get_args(Kind))
    for fine, message in (
        (cfg.learning_rate > 0, f"learning_rate={cfg.learning_rate} must be above 0"),
        (cfg.decay_steps is None or cfg.decay_steps > 0, f"decay_steps={cfg.decay_steps} must be above 0, or None"),
        (0 <= cfg.b1 < 1 and 0 <= cfg.b2 < 1, f"b1={cfg.b1} and b2={cfg.b2} must lie in [0, 1)"),
        (cfg.eps_root >= 0, f"eps_root={cfg.eps_root} must be 0 or more"),
    ):
        if not fine:
            raise ValueError(f"method.{name}.{message}")


def optimizer(cfg: PlayerConfig, num_descents: int = 1) -> optax.GradientTransformation:
    """The optax transformation of a player that descends `num_descents` times in a training step."""
    rate: optax.ScalarOrSchedule = cfg.learning_rate
    if cfg.decay_steps is not None:
        rate = optax.linear_schedule(cfg.learning_rate, cfg.learning_rate / 20, cfg.decay_steps * num_descents)
    if cfg.kind == "adam":
        return optax.adam(rate, b1=cfg.b1, b2=cfg.b2, eps_root=cfg.eps_root)
    return optax.rmsprop(rate, decay=cfg.b2) if cfg.kind == "rmsprop" else optax.sgd(rate)
