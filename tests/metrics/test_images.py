import numpy as np
import pytest
from scipy import ndimage

from jaxgen.metrics import images as I


def noise(seed, num, size=8, channels=1, levels=256):
    return np.random.default_rng(seed).integers(0, levels, (num, size, size, channels)).astype(np.uint8)


def board(height, width):
    rows, columns = np.indices((height, width))
    return ((rows + columns) % 2)[None, :, :, None].astype(np.uint8)


def stretched(pattern, levels=256):
    return (pattern * (levels - 1)).astype(np.uint8)


def blurred(images, sigma):
    return np.round(ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0))).astype(np.uint8)


@pytest.mark.parametrize("levels", [17, 256])
def test_sharpness_of_constants_ramps_and_a_checkerboard(levels):
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None] + np.arange(8, dtype=np.uint8), (1, 8, 8))[..., None]
    assert I.sharpness(np.full((2, 6, 6, 1), 7, np.uint8), levels) == pytest.approx(0, abs=1e-25)
    assert I.sharpness(ramp, levels) == pytest.approx(0, abs=1e-25)
    assert I.sharpness(stretched(board(6, 8), levels), levels) == pytest.approx(16)  # ±4 at every inner pixel
    both = np.concatenate([stretched(board(6, 6), levels), np.zeros((3, 6, 6, 1), np.uint8)])
    assert I.sharpness(both, levels) == pytest.approx(4)  # the mean over images


def test_sharpness_of_independent_pixels_is_twenty_variances():
    images = noise(0, 3000, size=12)  # more than one batch
    assert I.sharpness(images, 256) == pytest.approx(20 * (images / 255).var(), rel=0.01)


def test_sharpness_is_the_variance_of_scipys_laplacian_of_the_luminance():
    images = noise(1, 5, channels=3)
    luminance = images / 255 @ [0.299, 0.587, 0.114]
    expected = [ndimage.laplace(y)[1:-1, 1:-1].var() for y in luminance]
    assert I.sharpness(images, 256) == pytest.approx(np.mean(expected))
    grey = np.repeat(images[..., :1], 3, axis=-1)
    assert I.sharpness(grey, 256) == pytest.approx(I.sharpness(images[..., :1], 256))


def test_a_blur_lowers_sharpness_and_nyquist_energy():
    images = noise(2, 20, size=16)
    for statistic in (I.sharpness, I.nyquist_energy):
        sharp, soft, softer = (statistic(x, 256) for x in (images, blurred(images, 0.5), blurred(images, 1.0)))
        assert sharp > 1.5 * soft > 1.5**2 * softer


def test_nyquist_energy_of_patterns_is_known():
    rows, columns = np.indices((8, 6))[:, None, :, :, None]
    stripes, wide = columns % 2, columns // 2 % 2
    slow = np.round(127.5 + 127.5 * np.cos(2 * np.pi * np.indices((8, 8))[0] / 8)[None, :, :, None]).astype(np.uint8)
    assert I.nyquist_energy(stretched(board(8, 6)), 256) == pytest.approx(1)
    assert I.nyquist_energy(stretched(stripes), 256) == pytest.approx(1)
    assert I.nyquist_energy(stretched(rows % 2), 256) == pytest.approx(1)
    assert I.nyquist_energy(slow, 256) < 1e-5  # but for rounding to bytes
    assert I.nyquist_energy(np.full((1, 8, 8, 3), 9, np.uint8), 256) == 0
    # 0 0 1 1 0 0 across: Σ (−1)ⁿ y_n = 0, nothing at the highest frequency.
    assert I.nyquist_energy(stretched(wide), 256) == pytest.approx(0, abs=1e-25)
    # A board of amplitude 1/2 on stripes of amplitude 1/2 two pixels wide: half of the energy each.
    assert I.nyquist_energy(board(8, 8) + np.indices((8, 8))[1][None, :, :, None].astype(np.uint8) // 2 % 2, 3) == (
        pytest.approx(0.5)
    )


def test_nyquist_energy_of_independent_pixels_is_the_share_of_its_frequencies():
    assert I.nyquist_energy(noise(3, 2000, size=8), 256) == pytest.approx(15 / 63, rel=0.02)
    assert I.nyquist_energy(noise(3, 2000, size=9), 256) == pytest.approx(15 / 63, rel=0.02)  # the ninth are left out


def test_memorisation_tells_copies_from_new_images():
    train, test, new = noise(4, 200), noise(5, 100), noise(6, 150)
    copies = I.memorisation(train[50:80], train, test)
    assert copies.median_ratio == 0 and copies.share_closer == 1 and not copies.distance.any()
    np.testing.assert_array_equal(copies.index, np.arange(50, 80))
    fresh = I.memorisation(new, train, test)
    assert fresh.median_ratio == pytest.approx(1, abs=0.03) and fresh.share_closer == pytest.approx(0.5, abs=0.1)
    itself = I.memorisation(test, train, test)
    assert itself.median_ratio == 1 and itself.share_closer == 0.5
    assert np.isnan(I.memorisation(new, train, train[:9]).median_ratio)  # nothing to compare with


def test_memorisation_is_made_of_nearest_neighbours_and_ordered_pairs():
    samples, train, test = noise(7, 9, 4, 3, levels=4), noise(8, 30, 4, 3, levels=4), noise(9, 11, 4, 3, levels=4)

    def nearest(images):
        gaps = images[:, None].astype(float) - train[None]
        return np.sqrt(np.square(gaps).sum((2, 3, 4))).min(1)

    found = I.memorisation(samples, train, test)
    np.testing.assert_allclose(found.distance, nearest(samples))
    assert found.median_ratio == pytest.approx(np.median(nearest(samples)) / np.median(nearest(test)))
    gaps = nearest(test)[None] - nearest(samples)[:, None]
    assert (gaps == 0).any()  # ties
    assert found.share_closer == pytest.approx(((gaps > 0) + 0.5 * (gaps == 0)).mean())


@pytest.mark.parametrize("levels", [17, 256])
def test_samples_of_a_pixel_gaussian_have_its_moments(levels):
    """Also where the covariance is singular: 12 pixels that three numbers determine."""
    rng = np.random.default_rng(11)
    factors = rng.uniform(-1, 1, size=(12, 3))
    factors /= 4 * np.abs(factors).sum(1, keepdims=True)
    given = 0.5 + rng.uniform(-1, 1, (1500, 3)) @ factors.T  # more than one batch
    given = np.round(given * (levels - 1)).astype(np.uint8).reshape(-1, 2, 2, 3)
    images = I.pixel_gaussian(given, levels, 5000)
    assert images.dtype == np.uint8 and images.shape == (5000, 2, 2, 3)
    real, found = given.reshape(-1, 12).astype(float), images.reshape(-1, 12).astype(float)
    cov, found_cov = np.cov(real.T), np.cov(found.T)
    deviations = np.sqrt(np.diag(cov) + 1 / 12)
    np.testing.assert_array_less(np.abs(found.mean(0) - real.mean(0)), 4.5 * deviations / np.sqrt(5000) + 0.01)
    error = np.sqrt((np.outer(deviations, deviations) ** 2 + cov**2) / 5000)
    rounding = np.eye(12) / 12
    np.testing.assert_array_less(np.abs(found_cov - cov - rounding), 4.5 * error + 0.03)
    if levels == 256:  # no variance but that of rounding, given and drawn, in the other nine directions
        assert np.linalg.eigvalsh(found_cov)[8] < 4 / 12 < np.linalg.eigvalsh(found_cov)[9]


def test_samples_of_a_pixel_gaussian_are_clipped_and_follow_the_seed():
    # A pixel that is black or white, standard deviation 8 about 8, and lands beyond 16 at one standard deviation.
    given = np.tile(np.array([0, 16], np.uint8), 2000).reshape(-1, 1, 1, 1)
    images = I.pixel_gaussian(given, 17, 4000, seed=3)
    for end in (0, 16):
        assert (images == end).mean() == pytest.approx(0.159 + 0.015, abs=0.025)  # P(z > 7.5/8)
    np.testing.assert_array_equal(images, I.pixel_gaussian(given, 17, 4000, seed=3))
    assert (images != I.pixel_gaussian(given, 17, 4000, seed=4)).any()
    assert (I.pixel_gaussian(np.full((3, 2, 2, 1), 5, np.uint8), 17, 4) == 5).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: I.sharpness(np.zeros((2, 8, 8, 1)), 256), r"uint8 .* not float64 \[2, 8, 8, 1\]"),
        (lambda: I.sharpness(np.zeros((2, 8, 8, 4), np.uint8), 256), r"not uint8 \[2, 8, 8, 4\]"),
        (lambda: I.sharpness(np.full((1, 8, 8, 1), 17, np.uint8), 17), "pixels reach 17, and levels=17 allows 0 to 16"),
        (lambda: I.sharpness(np.zeros((1, 2, 8, 1), np.uint8), 17), "3 x 3 pixels or more, not 2 x 8"),
        (lambda: I.nyquist_energy(np.zeros((1, 1, 8, 1), np.uint8), 17), "2 x 2 pixels or more, not 1 x 8"),
        (lambda: I.memorisation(noise(0, 2), noise(0, 2, 9), noise(0, 2)), "of one size"),
        (lambda: I.pixel_gaussian(noise(0, 1), 256, 4), "two images at least"),
    ],
)
def test_images_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
