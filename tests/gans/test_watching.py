"""The numbers that watch a GAN, by brute force and on cases made to go wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data.toy import points
from jaxgen.gans import watching

REAL, LABEL = points("ring", 128, 0.02, seed=0)


def test_auc_counts_pairs():
    real, fake = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 2.0, 2.5, 5.0])
    wins = [[1, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 0]]
    assert float(watching.auc(real, fake)) == pytest.approx(np.mean(wins))
    assert float(watching.auc(real + 9, fake)) == 1


def test_distances_are_euclidean_and_copies_are_near():
    a, b = np.random.default_rng(0).normal(5, 1, (2, 7, 3, 4)).astype(np.float32)
    found = watching.distances(jnp.asarray(a), jnp.asarray(b))
    want = np.linalg.norm((a[:, None] - b[None]).reshape(7, 7, -1), axis=2)
    np.testing.assert_allclose(found, want, rtol=1e-4)
    assert (np.diag(watching.distances(jnp.asarray(a), jnp.asarray(a))) < 1e-2).all()


@pytest.mark.parametrize("lost", [0, 2, 6])
def test_lost_modes_show_in_both_coverages(lost):
    fake, label = points("ring", 512, 0.02, seed=1)
    fake = fake[label >= lost][:128]
    near = watching.covered(jnp.asarray(REAL), jnp.asarray(fake))
    classes = watching.class_covered(near, jnp.asarray(LABEL), 8)
    assert float(classes.mean()) == pytest.approx((LABEL >= lost).mean())
    assert float(near.mean()) == pytest.approx((LABEL >= lost).mean(), abs=0.1)


def test_samples_that_are_nowhere_cover_nothing():
    assert watching.covered(jnp.asarray(REAL), jnp.asarray(0.5 * REAL)).sum() == 0


def test_repeats_are_counted_and_real_neighbours_are_not():
    fake = points("ring", 128, 0.02, seed=2)[0]
    assert float(watching.duplicates(jnp.asarray(REAL), jnp.asarray(fake)).mean()) < 0.25
    fake[:96] = fake[0]
    found = np.asarray(watching.duplicates(jnp.asarray(REAL), jnp.asarray(fake)))
    assert found[:96].all() and found[96:].mean() < 0.25


def test_the_fall_of_an_estimate_ends_on_a_plateau():
    estimate = jnp.maximum(10.0 - jnp.arange(5000) / 100, 1.0)
    found = np.asarray(jax.lax.scan(watching.follow, watching.init_trend(), estimate)[1])
    assert set(found[: watching.WARM - 1]) == {1.0}
    assert found[watching.WARM : 900].min() > 0.25
    assert abs(found[-1]) < 0.01
