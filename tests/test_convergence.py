"""Whole runs of a few hundred steps: the loss falls as far as it should, and the samples resemble the data."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import harness
from jaxgen import catalog
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.program import keys_of, make_evaluate, make_sample
from jaxgen.sharding import make_mesh

pytestmark = pytest.mark.slow

NET = UNetConfig(width=24, multipliers=(1, 2), attention_resolutions=(4,))
DIGITS = Experiment(
    method=ddpm.Config(net=NET, optimizer=AdamWConfig(2e-3, warmup_steps=50, decay_steps=300), ema_decay=0.98),
    data=Images("digits"),
    train=TrainConfig(steps=300, batch_size=128, log_every=50, eval_every=0, save_every=300, sample_every=0),
)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


# Measured: 0.852 → 0.314 and 1.001 → 0.194.
@pytest.mark.parametrize("prediction, untrained, trained", [("v", 0.85, 0.37), ("eps", 1.0, 0.24)])
def test_diffusion_learns_the_digits(prediction, untrained, trained, tmp_path):
    """The validation loss falls, and 512 samples have each pixel's mean and standard deviation (levels 0 … 16)."""
    experiment = dataclasses.replace(DIGITS, method=dataclasses.replace(DIGITS.method, prediction=prediction))
    data, size, keys = experiment.data.load(), experiment.train.batch_size, keys_of(experiment.train.seed)
    method = catalog.make(experiment.method, data.spec)
    mesh = make_mesh(experiment.mesh, jax.devices()[:1])
    images = data.read("train", np.arange(data.spec.counts["train"]), ("image",))["image"]
    harness.train(experiment, tmp_path)
    state = harness.saved_state(experiment, tmp_path)
    with jax.set_mesh(mesh):
        evaluate = make_evaluate(method, data, mesh, size, keys.evaluate)
        first = jax.jit(method.init)(keys.init, {"image": images[:size]})
        before, after = (evaluate(s, "validation")["loss"] for s in (first, state))
        drawn = np.asarray(make_sample(method, mesh)(state, keys.sample, 512)["image"], np.float32)
    assert before == pytest.approx(untrained, abs=0.03)
    assert after < trained
    # Measured: 0.25 and 0.38 (v), 0.28 and 0.34 (eps). The pixels' means spread by 4.2 around their own mean and their
    # standard deviations are 4.3; the means of 512 perfect samples would be 4.3 / √512 = 0.19 off.
    real = images.astype(np.float32)
    assert rms(drawn.mean(0) - real.mean(0)) < 0.6
    assert rms(drawn.std(0) - real.std(0)) < 0.8
