"""The reader's network: its labels, its augmentation, and that it learns to read digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import Experiment
from jaxgen.data import Images, batch_at
from jaxgen.metrics import classifier
from jaxgen.optimizer import AdamWConfig

OPTIMIZER = AdamWConfig(learning_rate=3e-3, warmup_steps=5)
TINY = Experiment(
    classifier.Config("label", widths=(8, 8), num_features=8, dropout=0.1, noise=0.1, optimizer=OPTIMIZER),
    Images("digits"),
)


def test_readings_of_several_attributes():
    net = classifier.Classifier(classifier.Config(widths=(8,), num_features=4), (2, 3))
    params = net.init(jax.random.key(0), jnp.zeros((1, 5, 5, 3)))
    readings = net.apply(params, jnp.ones((2, 5, 5, 3)))
    assert readings.features.shape == (2, 4)
    assert [logits.shape for logits in readings.logits] == [(2, 2), (2, 3)]


def test_images_move_and_edges_are_repeated():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    still, moved = (classifier.shifted(x, jnp.array([offset]), 1)[0, :, :, 0] for offset in ([1, 1], [2, 0]))
    np.testing.assert_array_equal(still, x[0, :, :, 0])
    np.testing.assert_array_equal(moved, [[3, 3, 4], [6, 6, 7], [6, 6, 7]])  # down by one pixel, and to the left


def test_it_learns_to_read_digits():
    data = TINY.data.load()
    method = classifier.make(dataclasses.replace(TINY.method, widths=(16, 32), num_features=32, shift=0), data.spec)
    batches = [batch_at(data, seed=0, step=i, batch_size=128, keys=method.reads) for i in range(60)]
    state = jax.jit(method.init)(jax.random.key(0), batches[0])
    step = jax.jit(method.step)
    for i, batch in enumerate(batches):
        state, _ = step(state, batch, jax.random.fold_in(jax.random.key(1), i))
    test = data.read("test", np.arange(297), method.reads)
    right, of = jax.jit(method.evaluate)(state, test, jax.random.key(2))["accuracy/label"]
    assert of.sum() == 297 and 0.9 < float(right.mean()) < 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (classifier.Config("attribute"), "no 'attribute' to read; there are: label"),
        (classifier.Config("label", widths=(12,)), "multiples of 8"),
        (classifier.Config("label", widths=()), "multiples of 8"),
        (classifier.Config("label", widths=(8, 0)), "multiples of 8"),
        (classifier.Config("label", num_blocks=-1), "method.num_blocks=-1 must be 1 or more"),
        (classifier.Config("label", num_features=0), "method.num_features=0 must be 1 or more"),
        (classifier.Config("label", dropout=1.5), "method.dropout=1.5 must lie"),
        (classifier.Config("label", shift=-1), "method.shift=-1 must be 0"),
        (classifier.Config("label", noise=-1.0), "method.noise=-1.0 must be 0"),
        (classifier.Config("label", ema_decay=1.0), "method.ema_decay=1.0 must lie"),
    ],
)
def test_what_cannot_be_read_is_said(config, message):
    with pytest.raises(ValueError, match=message):
        classifier.make(config, TINY.data.load().spec)
