import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.gans.augment import NUM_UNIFORMS, augment, color, cutout, translation

X = np.random.default_rng(0).uniform(-1, 1, (5, 16, 12, 3)).astype(np.float32)
U = np.random.default_rng(1).uniform(0, 1, (5, NUM_UNIFORMS)).astype(np.float32)


def test_translation_moves_pixels_and_black_moves_in():
    found = np.asarray(translation(jnp.asarray(X), jnp.asarray(U[:, :2])))
    offsets = set()
    for x, y, u in zip(X, found, U, strict=True):
        down, right = int(np.floor(u[0] * 5)) - 2, int(np.floor(u[1] * 5)) - 2  # an eighth of 16, and of 12 rounded
        offsets |= {down, right}
        wide = np.pad(x, ((2, 2), (2, 2), (0, 0)), constant_values=-1.0)
        np.testing.assert_allclose(y, wide[2 + down :][:16, 2 + right :][:, :12], atol=1e-6)
    assert len(offsets) > 2


def test_cutout_greys_a_rectangle_of_half_of_each_side():
    whole = np.array([[0.5, 0.5]], np.float32)
    found = np.asarray(cutout(jnp.ones((1, 16, 12, 1)), jnp.asarray(whole)))[0, :, :, 0]
    assert (found == 0).sum() == 8 * 6
    rows, columns = np.where(found == 0)
    assert np.ptp(rows) == 7 and np.ptp(columns) == 5
    corner = np.asarray(cutout(jnp.ones((1, 16, 12, 1)), jnp.zeros((1, 2))))[0, :, :, 0]
    assert (corner == 0).sum() == 4 * 3 and corner[0, 0] == 0  # the centre is in the corner


def test_color_keeps_grey_grey_and_half_changes_nothing():
    half = np.full((5, 3), 0.5, np.float32)
    np.testing.assert_allclose(color(jnp.asarray(X), jnp.asarray(half)), X, atol=1e-5)
    grey = np.repeat(X[..., :1], 3, -1)
    found = np.asarray(color(jnp.asarray(grey), jnp.asarray(U[:, :3])))
    np.testing.assert_allclose(found - found[..., :1], 0, atol=1e-5)
    np.testing.assert_allclose(found.mean((1, 2, 3)), grey.mean((1, 2, 3)) + U[:, 0] - 0.5, atol=1e-5)


@pytest.mark.parametrize("policies", [(), ("color",), ("translation", "cutout")])
def test_policies_are_differentiable_and_none_is_the_identity(policies):
    found = augment(jnp.asarray(X), jnp.asarray(U), policies)
    slope = jax.grad(lambda x: augment(x, jnp.asarray(U), policies).sum())(jnp.asarray(X))
    assert (np.abs(np.asarray(slope)).sum((1, 2, 3)) > 0).all()
    assert (not policies) == np.array_equal(found, X)
