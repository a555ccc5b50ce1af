"""Samples of a trained run: split over the devices of any mesh, and the same whatever it is."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import harness
from jaxgen import catalog
from jaxgen.classical import kmeans, nmf
from jaxgen.config import Experiment, MeshConfig
from jaxgen.data import Ratings, Toy
from jaxgen.program import abstract_state, make_sample
from jaxgen.sharding import make_mesh
from jaxgen.trained import Run, chunk_size, draw_samples


@pytest.mark.parametrize(("ways", "num", "chunk"), [(8, 50, 56), (8, 1, 8), (1, 50, 50), (6, 5000, 258), (512, 9, 512)])
def test_a_chunk_of_samples_splits_over_the_mesh(ways, num, chunk):
    mesh = SimpleNamespace(shape={"data": ways, "fsdp": 1, "tensor": 1})
    assert chunk_size(mesh, num) == chunk and chunk % ways == 0


@pytest.fixture(scope="module")
def run():
    experiment = harness.tiny("ddpm")
    spec = experiment.data.load().spec
    return Run(None, experiment, spec, catalog.make(experiment.method, spec))


def mesh_of(num):
    return make_mesh(MeshConfig(data=num), jax.devices()[:num])


def test_every_device_draws_its_share(run):
    flops = {}
    for num in (1, 8):
        mesh = mesh_of(num)
        with jax.set_mesh(mesh):
            abstract = abstract_state(run.method, run.spec, 8, mesh, run.config.mesh)
            lowered = make_sample(run.method, mesh).lower(abstract, jax.random.key(0), 16)
            flops[num] = lowered.compile().cost_analysis()["flops"]
    assert flops[8] < flops[1] / 6


def test_samples_do_not_depend_on_their_number_or_the_devices(run):
    found, batch = {}, {"image": np.zeros((1, *run.spec.shape("image")), np.uint8)}
    first = jax.device_get(jax.jit(run.method.init)(jax.random.key(0), batch))
    for devices, num in ((1, 3), (1, 11), (8, 11)):
        mesh = mesh_of(devices)
        with jax.set_mesh(mesh):
            state = jax.device_put(first, jax.NamedSharding(mesh, jax.P()))
            found[devices, num] = draw_samples(run, mesh, state, num)["image"]
    assert found[1, 11].shape[0] == 11
    np.testing.assert_array_equal(found[1, 3], found[1, 11][:3])
    np.testing.assert_array_equal(found[8, 11], found[1, 11])


@pytest.mark.parametrize(
    ("config", "data", "key"),
    [
        (nmf.Config(num_parts=2), Ratings(num_users=300, num_items=4, observed=1.0), "user"),
        (kmeans.Config(num_clusters=300, init="random"), Toy(size=400), "x"),
    ],
)
def test_samples_that_are_listed_come_each_before_any_comes_again(config, data, key):
    """300 users, or centroids, where a chunk of other samples is 256."""
    experiment, spec = Experiment(config, data), data.load().spec
    run, mesh = Run(None, experiment, spec, catalog.make(config, spec)), mesh_of(8)
    batch = data.load().read("train", np.arange(320), run.method.reads)
    with jax.set_mesh(mesh):
        state = jax.jit(run.method.init, out_shardings=jax.NamedSharding(mesh, jax.P()))(jax.random.key(0), batch)
        found = draw_samples(run, mesh, state, 310)[key]
    assert len(np.unique(found[:300], axis=0)) == 300
    np.testing.assert_array_equal(found[300:], found[:10])
