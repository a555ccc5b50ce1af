"""The lecture's index: every method by name."""

from __future__ import annotations

from typing import Any

from jaxgen.autoencoders import ae, contractive, denoising, tangents, vae
from jaxgen.classical import kmeans, nmf, pca
from jaxgen.config import kind_of
from jaxgen.data import Spec
from jaxgen.diffusion import ddpm
from jaxgen.flows import glow
from jaxgen.gans import gan, inversion, minibatch, unrolled, wgan
from jaxgen.language import bert, classify, finetune, gpt, lora
from jaxgen.method import Method
from jaxgen.metrics import classifier
from jaxgen.words import doc2vec, word2vec

CATALOG: dict[str, tuple[type, Any]] = {
    "ae": (ae.Config, ae.make),
    "denoising": (denoising.Config, denoising.make),
    "contractive": (contractive.Config, contractive.make),
    "tangent_prop": (tangents.Config, tangents.make),
    "vae": (vae.Config, vae.make),
    "classifier": (classifier.Config, classifier.make),
    "ddpm": (ddpm.Config, ddpm.make),
    "glow": (glow.Config, glow.make),
    "gan": (gan.Config, gan.make),
    "wgan": (wgan.Config, wgan.make),
    "minibatch": (minibatch.Config, minibatch.make),
    "unrolled": (unrolled.Config, unrolled.make),
    "inversion": (inversion.Config, inversion.make),
    "kmeans": (kmeans.Config, kmeans.make),
    "pca": (pca.Config, pca.make),
    "nmf": (nmf.Config, nmf.make),
    "gpt": (gpt.Config, gpt.make),
    "gpt_classifier": (classify.Config, classify.make),
    "bert": (bert.Config, bert.make),
    "bert_finetune": (finetune.Config, finetune.make),
    "lora": (lora.Config, lambda cfg, spec: lora.adapt(make(cfg.base, spec), cfg, spec)),
    "word2vec": (word2vec.Config, word2vec.make),
    "doc2vec": (doc2vec.Config, doc2vec.make),
}


def kinds() -> dict[str, type]:
    """Each method's Config by name, as config.json tags it."""
    return {name: config for name, (config, _) in CATALOG.items()}


def make(config: Any, spec: Spec) -> Method:
    """The method that `config` configures, for data of this `spec`.

    Raises:
      ValueError: `config` is no Config of the catalog, or holds a value that the method refuses.
    """
    return CATALOG[kind_of(config, kinds())][1](config, spec)
