"""Minibatch discrimination (Salimans et al. 2016, arXiv 1606.03498): a critic sees when a generator repeats itself.

A critic that scores each example by itself lets the generator map all codes to the example that scores best. Here it
also sees how close an example is to the others of its group (`nets.batch_features`), in a batch of real ones or of
generated ones: a collapsed generator is told by that alone, and has to draw examples that differ. `deviation` in place
of `discrimination` is the parameter-free form of Karras et al. (2018, arXiv 1710.10196). The rest is `gan`.

Lecture erratum E21: progressive growing uses the latter, not minibatch discrimination.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxgen.gans import gan
from jaxgen.gans.networks import CriticConfig
from jaxgen.method import Method

if TYPE_CHECKING:
    from jaxgen.data import Spec


@dataclass(frozen=True)
class Config(gan.Config):
    """A GAN whose critic sees its batch."""

    critic: CriticConfig = CriticConfig(batch_features="discrimination")
    """The critic, with `batch_features` `discrimination` or `deviation`."""


def make(cfg: Config, spec: Spec) -> Method:
    """A GAN of the data of `spec` whose critic sees groups of examples; see `gan.make`.

    Raises:
      ValueError: a critic without batch features, and see `gan.make`.
    """
    if cfg.critic.batch_features == "none":
        raise ValueError(
            "method.critic.batch_features=none leaves a plain GAN: choose discrimination, or the method gan"
        )
    return gan.build(cfg, spec)
