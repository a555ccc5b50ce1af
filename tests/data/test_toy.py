"""Toy densities: their geometry, and that the seed alone decides them."""

import numpy as np
import pytest

from jaxgen.data import Toy
from jaxgen.data.toy import points


def test_ring_is_eight_gaussians_on_the_unit_circle():
    x, label = points("ring", 20_000, noise=0.02, seed=0)
    for k in range(8):
        cluster = x[label == k].astype(np.float64)
        center = np.array([np.cos(np.pi * k / 4), np.sin(np.pi * k / 4)])
        np.testing.assert_allclose(cluster.mean(0), center, atol=5 * 0.02 / np.sqrt(len(cluster)))
        np.testing.assert_allclose(cluster.std(0), 0.02, rtol=0.1)
    assert np.bincount(label, minlength=8).min() > 2200


def test_lines_and_moons_without_noise_lie_on_their_curves():
    x, label = points("lines", 500, noise=0, seed=1)
    np.testing.assert_array_equal(x[:, 1], np.where(label, 0.5, -0.5))
    assert np.abs(x[:, 0]).max() <= 1
    x, label = points("moons", 500, noise=0, seed=1)
    radius = np.linalg.norm(x - np.where(label[:, None], [1.0, 0.5], [0.0, 0.0]), axis=1)
    np.testing.assert_allclose(radius, 1, rtol=1e-6)
    assert (x[label == 0, 1] >= -1e-6).all() and (x[label == 1, 1] <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("name", ["ring", "lines", "moons"])
def test_toy_is_a_function_of_its_seed(name):
    config = Toy(name=name, size=100)
    data, again, other = config.load(), config.load(), Toy(name=name, size=100, seed=1).load()
    assert data.spec.counts == {"train": 100, "validation": 10, "test": 10}
    assert data.spec.shapes == {"x": (2,), "label": ()} and data.spec.dtypes == {"x": "float32", "label": "int32"}
    assert len(data.spec.names["label"]) == data.spec.sizes["label"][0]

    def read(dataset, split):
        return dataset.read(split, np.arange(10), ("x",))["x"]

    np.testing.assert_array_equal(read(data, "train"), read(again, "train"))
    assert (read(data, "train") != read(other, "train")).all()
    assert (read(data, "train") != read(data, "validation")).all()
    assert (read(data, "validation") != read(data, "test")).all()


def test_bad_toys_are_refused():
    with pytest.raises(ValueError, match="no toy data set 'rings' \\(did you mean ring"):
        Toy(name="rings").load()
    with pytest.raises(ValueError, match="size >= 1"):
        Toy(size=0).load()
