"""Seeds of k-means: rows of the data, drawn ∝ D²."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.classical import rows, seeding

# Eight tight clumps of eight on a circle of radius 10.
ANGLE = jnp.repeat(jnp.arange(8) * jnp.pi / 4, 8)
CLUMPS = 10 * jnp.stack([jnp.cos(ANGLE), jnp.sin(ANGLE)], 1)
CLUMPS = CLUMPS + 0.01 * jax.random.normal(jax.random.key(9), CLUMPS.shape)


def rows_of(x):
    return {tuple(row) for row in np.asarray(x)}


@pytest.mark.parametrize("name", ["k-means++", "k-means||"])
def test_every_clump_gets_a_seed(name):
    """Uniform draws hit all eight with probability 8!/8⁸ = 0.0024."""
    seeds = jax.jit(lambda key: seeding.SEEDS[name](key, CLUMPS, 8))
    for key in jax.random.split(jax.random.key(0), 5):
        found = np.asarray(seeds(key))
        clump = np.linalg.norm(found[:, None] - CLUMPS[None], axis=-1).argmin(1) // 8
        assert sorted(clump) == list(range(8))
        assert rows_of(found) <= rows_of(CLUMPS)


@pytest.mark.parametrize("name", seeding.SEEDS)
def test_rows_of_weight_zero_are_no_seeds_and_others_are_distinct(name):
    weight = jnp.where(jnp.arange(64) % 2 == 0, 1.0, 0.0)
    found = np.asarray(jax.jit(lambda key: seeding.SEEDS[name](key, CLUMPS, 8, weight))(jax.random.key(3)))
    assert rows_of(found) <= rows_of(CLUMPS[::2]) and len(rows_of(found)) == 8


def test_seeds_do_not_depend_on_chunks(monkeypatch):
    whole = jax.jit(lambda key: seeding.plus_plus(key, CLUMPS, 8))(jax.random.key(4))
    monkeypatch.setitem(rows.CHUNK, "cpu", 2 * 10)
    np.testing.assert_array_equal(whole, jax.jit(lambda key: seeding.plus_plus(key, CLUMPS, 8))(jax.random.key(4)))


def test_draws_follow_their_mass():
    mass = jnp.array([0.0, 1.0, 3.0, 0.0, 4.0])
    drawn = np.bincount(seeding._draw(jax.random.key(0), mass, 20_000), minlength=5) / 20_000
    np.testing.assert_allclose(drawn, [0, 0.125, 0.375, 0, 0.5], atol=0.015)  # four standard deviations
    first = jax.vmap(lambda key: seeding.draw_distinct(key, mass, 2))(jax.random.split(jax.random.key(1), 20_000))
    np.testing.assert_allclose(np.bincount(first[:, 0], minlength=5) / 20_000, [0, 0.125, 0.375, 0, 0.5], atol=0.015)
    assert (first[:, 0] != first[:, 1]).all()
    # Given that 4 came first, 2 comes second three times as often as 1.
    assert np.mean(first[first[:, 0] == 4, 1] == 2) == pytest.approx(0.75, abs=0.02)


def test_nearest_agrees_with_brute_force_and_takes_the_first_of_equals():
    x, c = jax.random.normal(jax.random.key(0), (40, 3)), jax.random.normal(jax.random.key(1), (6, 3))
    c = c.at[5].set(c[1])
    label, distance = jax.jit(seeding.nearest)(x, c)
    table = np.sum((np.asarray(x)[:, None] - np.asarray(c)[None]) ** 2, -1)
    np.testing.assert_array_equal(label, table.argmin(1))
    np.testing.assert_allclose(distance, table.min(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seeding.squared_distances(x, c), table, rtol=1e-4, atol=1e-5)


def test_more_seeds_than_different_rows_are_still_rows():
    x = jnp.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    for seeds in (seeding.plus_plus, functools.partial(seeding.parallel, rounds=2)):
        assert rows_of(jax.jit(seeds, static_argnums=2)(jax.random.key(0), x, 3)) == {(0.0, 0.0), (1.0, 1.0)}
