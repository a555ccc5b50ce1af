"""The optimizer that most methods share: AdamW behind clipped gradients, its rate warmed up and, if asked, decayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a schedule and clipped gradients."""

    learning_rate: float = 1e-3
    """Peak rate."""
    warmup_steps: int = 100
    """Steps in which the rate rises from 0 to its peak."""
    decay_steps: int | None = None
    """Step at which the rate has fallen, along a cosine, to a twentieth of its peak, where it stays; None: no fall."""
    b1: float = 0.9
    """Decay of the gradients' average."""
    b2: float = 0.999
    """Decay of the squared gradients' average."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    grad_clip: float = 1.0
    """Global norm above which gradients are scaled down."""

    def __post_init__(self) -> None:
        warmup, decay = self.warmup_steps, self.decay_steps
        for fine, message in (
            (self.learning_rate > 0, f"learning_rate={self.learning_rate} must be above 0"),
            (warmup >= 0, f"warmup_steps={warmup} must be 0 (no warm-up) or more"),
            (decay is None or decay > warmup, f"decay_steps={decay} must exceed warmup_steps={warmup}, or be None"),
            (0 <= self.b1 < 1 and 0 <= self.b2 < 1, f"b1={self.b1} and b2={self.b2} must lie in [0, 1)"),
            (self.weight_decay >= 0, f"weight_decay={self.weight_decay} must be 0 or more"),
            (self.grad_clip > 0, f"grad_clip={self.grad_clip} must be above 0"),
        ):
            if not fine:
                raise ValueError(f"optimizer.{message}")


def adamw(cfg: AdamWConfig, decayed: Callable[[Any], Any] | None = None) -> optax.GradientTransformation:
    """The optax transformation that `cfg` describes; `decayed(params)` says which of them weight decay shrinks."""
    peak, warmup = cfg.learning_rate, cfg.warmup_steps
    start = 0.0 if warmup else peak  # optax stays at the start of a ramp of no steps
    rate = optax.linear_schedule(start, peak, warmup)
    if cfg.decay_steps is not None:
        rate = optax.warmup_cosine_decay_schedule(start, peak, warmup, cfg.decay_steps, peak / 20)
    return optax.chain(
        optax.clip_by_global_norm(cfg.grad_clip),
        optax.adamw(rate, b1=cfg.b1, b2=cfg.b2, weight_decay=cfg.weight_decay, mask=decayed),
    )
