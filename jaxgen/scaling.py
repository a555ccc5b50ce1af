"""How large a language model, on how many tokens, for how much: rules of thumb as arithmetic.

C ≈ 6 N D FLOPs to train N parameters on D tokens (Kaplan et al. 2020, arXiv 2001.08361, section 2.1),
D ≈ 20 N where a given C buys the lowest loss (Hoffmann et al. 2022, arXiv 2203.15556, "Chinchilla"),
L ≈ (N₀ / N)^α, a line in a plot of log L over log N (Kaplan et al., equation 1.1; their N leaves embeddings out, and
their networks are trained until that is what limits them. Of networks that all see the same few tokens, α is another).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TOKENS_A_PARAMETER = 20


class PowerLaw(NamedTuple):
    """y = factor · x^exponent, and the share of the variance of log y that it explains."""

    exponent: float
    factor: float
    r_squared: float

    def __call__(self, x: float) -> float:
        """The y of x."""
        return self.factor * x**self.exponent


def training_flops(parameters: float, tokens: float) -> float:
    """6 N D."""
    return 6 * parameters * tokens


def optimal_tokens(parameters: float) -> float:
    """The D that suits N parameters best."""
    return TOKENS_A_PARAMETER * parameters


def optimal_size(flops: float) -> float:
    """The N for which `optimal_tokens` take so many FLOPs."""
    return (flops / (6 * TOKENS_A_PARAMETER)) ** 0.5


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The line of least squares through (log x, log y).

    Raises:
      ValueError: fewer than two different x, or a number that has no logarithm.
    """
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        raise ValueError(f"a power law needs two different x at least, and numbers above 0: {list(x)}, {list(y)}")
    log_x, log_y = np.log(x), np.log(y)
    exponent, intercept = np.polyfit(log_x, log_y, 1)
    left = log_y - intercept - exponent * log_x
    spread = np.sum((log_y - log_y.mean()) ** 2)
    return PowerLaw(float(exponent), float(np.exp(intercept)), 1.0 - float(np.sum(left**2) / spread) if spread else 1.0)
