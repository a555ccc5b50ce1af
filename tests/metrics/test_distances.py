import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxgen.metrics import distances as D
from jaxgen.metrics import pairs


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def gaussian(mean, cov, count=1000):
    return D.Moments(count, np.asarray(mean, float), np.asarray(cov, float))


def rotation(dim, seed=9):
    return np.linalg.qr(normal(seed, dim, dim))[0]


def pairwise(a, b):
    return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


def test_moments_are_the_mean_and_the_unbiased_covariance():
    x = normal(0, 50, 4) * [1, 10, 0.1, 1] + 5
    count, mean, cov = D.moments(x)
    assert count == 50 and cov.dtype == np.float64
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(cov, np.cov(x, rowvar=False))


def test_moments_of_float32_features_far_from_zero_keep_their_digits():
    x = (normal(2, 5000, 3) + 1000).astype(np.float32)
    np.testing.assert_allclose(D.moments(jnp.asarray(x)).cov, np.cov(x.astype(float), rowvar=False), rtol=1e-9)


def test_frechet_distance_agrees_with_a_matrix_square_root():
    a, b = D.moments(normal(3, 200, 12) @ normal(4, 12, 12)), D.moments(normal(5, 150, 12) @ normal(6, 12, 12) + 1)
    distance, mean_part, cov_part = D.frechet_distance(a, b)
    root = scipy.linalg.sqrtm(a.cov @ b.cov)
    expected = np.trace(a.cov + b.cov - 2 * root).real
    assert mean_part == pytest.approx(np.square(a.mean - b.mean).sum(), rel=1e-12)
    assert cov_part == pytest.approx(expected, rel=1e-9)
    assert distance == mean_part + cov_part


def test_frechet_distance_of_diagonal_gaussians_is_that_of_their_deviations():
    s, r = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 4.0])  # one direction without any spread
    found = D.frechet_distance(gaussian([0, 0, 1], np.diag(s**2)), gaussian([1, 2, 1], np.diag(r**2)))
    assert found == pytest.approx((5 + np.square(s - r).sum(), 5, np.square(s - r).sum()))


@pytest.mark.parametrize(("rows", "dim"), [(200, 12), (9, 30)])  # the second set's covariance is singular
def test_a_distance_from_one_set_is_the_frechet_distance(rows, dim):
    real, x = D.moments(normal(3, 200, dim) @ normal(4, dim, dim)), normal(5, rows, dim) @ normal(6, dim, dim) + 1
    distance = D.distance_from(real)
    assert distance(x) == pytest.approx(D.frechet_distance(D.moments(x), real).distance, rel=1e-8)
    for wrong, message in ((x[:, 1:], f"of {dim - 1} and of {dim} features"), (x[:1], "have 1 and 200$")):
        with pytest.raises(ValueError, match=message):
            distance(wrong)


def test_frechet_distance_ignores_rotations_and_empty_dimensions():
    x, y = normal(7, 40, 3), normal(8, 40, 3) * 2
    expected = D.frechet_distance(D.moments(x), D.moments(y))
    turn = rotation(60)[:3]  # into 60 dimensions: both covariances are singular
    found = D.frechet_distance(D.moments(x @ turn), D.moments(y @ turn))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    full, singular = D.moments(normal(9, 300, 20) * 100), D.moments(normal(10, 10, 200) * 100)
    for m in (full, singular, D.moments(np.ones((5, 3)))):
        assert D.frechet_distance(m, m).distance == pytest.approx(0, abs=1e-12 * np.trace(m.cov))


def test_frechet_distance_of_singular_sets_in_orthogonal_spaces_is_the_sum_of_their_variances():
    turn = rotation(60)
    a, b = D.moments(normal(11, 6, 4) @ turn[:4]), D.moments(normal(12, 6, 4) @ turn[4:8])
    assert D.frechet_distance(a, b).cov_part == pytest.approx(np.trace(a.cov) + np.trace(b.cov), rel=1e-12)


def kernel(a, b):
    return (np.dot(a, b) / len(a) + 1) ** 3


def unbiased_mmd(x, y):
    n, m = len(x), len(y)
    xx = np.mean([kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j])
    yy = np.mean([kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j])
    return xx + yy - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kernel_distance_is_the_unbiased_mmd_and_its_error_the_jackknife():
    x, y = normal(13, 7, 4), normal(14, 5, 4) + 0.5
    value, error = D.kernel_distance(x, y)
    assert value == pytest.approx(unbiased_mmd(x, y), rel=1e-9)
    without_x = [unbiased_mmd(np.delete(x, i, 0), y) for i in range(7)]
    without_y = [unbiased_mmd(x, np.delete(y, i, 0)) for i in range(5)]
    assert error == pytest.approx(np.sqrt(6 * np.var(without_x) + 4 * np.var(without_y)), rel=1e-9)


def test_kernel_distance_is_zero_on_average_for_one_distribution_and_its_error_tells_the_spread():
    rng = np.random.default_rng(17)
    estimate = lambda shift: D.kernel_distance(rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + shift)
    same = np.array([estimate(0.0) for _ in range(150)])
    assert same[:, 0].mean() == pytest.approx(0, abs=4 * same[:, 0].std() / np.sqrt(150))
    assert (same[:, 0] < 0).any()  # unbiased, and so sometimes negative
    apart = np.array([estimate(1.0) for _ in range(150)])
    assert apart[:, 1].mean() == pytest.approx(apart[:, 0].std(), rel=0.2)


def brute_force_precision_recall(real, fake, k, k_density):
    def radii(x, k):
        return np.sort(pairwise(x, x), axis=1)[:, k]

    between = pairwise(real, fake)
    in_real, in_fake = between <= radii(real, k)[:, None], between <= radii(fake, k)[None]
    in_wide = between <= radii(real, k_density)[:, None]
    density = in_wide.sum() / (k_density * len(fake))
    return in_real.any(0).mean(), in_fake.any(1).mean(), density, in_wide.any(1).mean()


@pytest.mark.parametrize("chunk", [7, 1000])
def test_precision_and_recall_agree_with_brute_force(chunk):
    real, fake = normal(18, 37, 3), normal(19, 23, 3) * 0.7 + 0.4
    for k, k_density in ((3, 5), (2, 1)):
        found = D.precision_recall(real, fake, k, k_density, chunk=chunk)
        assert found == pytest.approx(brute_force_precision_recall(real, fake, k, k_density), rel=1e-12)


def test_samples_of_one_of_two_modes_are_precise_and_recall_half():
    modes = np.repeat([[0.0, 0.0], [100.0, 0.0]], 50, axis=0) + normal(20, 100, 2)
    found = D.precision_recall(modes, modes[:50])
    assert found.precision == 1 and found.recall == 0.5 and found.coverage == 0.5
    # Each sample lies in its own ball and, on average, in five others.
    assert found.density == pytest.approx(6 / 5)


def test_samples_that_are_wide_of_the_data_recall_without_precision():
    real, turn = normal(21, 50, 2) * 0.01, 2 * np.pi * np.arange(8) / 8
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)  # the third neighbour is √2 away, the middle 1
    assert D.precision_recall(real, ring) == (0, 1, 0, 0)
    assert D.precision_recall(real, ring + 1e6) == (0, 0, 0, 0)


def test_an_outlier_inflates_precision_but_not_density():
    # Naeem et al., figure 1: the outlier's ball spans all, and holds samples that no other ball does.
    real = np.concatenate([normal(23, 60, 2) * 0.1, [[100.0, 0.0]]])
    fake = normal(24, 60, 2) * 0.1 + [50.0, 0.0]
    found = D.precision_recall(real, fake)
    assert found.precision == 1 and found.density == pytest.approx(1 / 5) and found.coverage == pytest.approx(1 / 61)


def test_balls_without_extent_hold_copies_and_nothing_else():
    real = np.repeat(normal(25, 4, 30) * 1e3, 6, axis=0)  # four points, six times each: every radius is 0
    copies, others = np.repeat(real[:6], 2, axis=0), normal(26, 12, 30) * 1e3
    found = D.precision_recall(real, copies)
    assert found == pytest.approx((1, 0.25, 6 / 5, 0.25))
    found = D.precision_recall(real, others)
    assert found.precision == 0 and found.coverage == 0
    assert D.precision_recall(real, real[0] + 1e-3 * normal(27, 12, 30)).precision == 0  # near, but no copies


@pytest.mark.parametrize("chunk", [7, 1000])
def test_a_copy_of_the_data_lies_on_the_edge_of_its_balls_and_counts(chunk):
    real = normal(35, 60, 200)
    fake = real[np.random.default_rng(36).permutation(60)]
    # Every ball holds its centre and five neighbours, the fifth of them on its edge.
    assert D.precision_recall(real, fake, chunk=chunk) == pytest.approx((1, 1, 6 / 5, 1))


def test_a_ball_holds_its_edge_whatever_the_rounding():
    x, y = normal(37, 40, 50), normal(38, 40, 50)
    edge = np.sort(np.square(pairwise(x, y)), axis=1)[:, 9]  # another sum than the one that it is compared with
    for scale, num in ((1, 10), (1 - 1e-9, 9)):
        own, others = pairs.inside(x, y, edge * scale, np.zeros(40), np.zeros(50))
        assert (own == num).all() and not others.any()
        assert (pairs.inside(y, x, np.zeros(40), edge * scale, np.zeros(50))[1].sum()) == 40 * num


def test_coverage_and_density_of_one_distribution_are_naeem_et_als_expectations():
    # Lemma 2: a ball is empty when its k nearest of the other N−1+M points are all real. E[density] = 1.
    n, m, k = 300, 200, 2
    found = np.array([D.precision_recall(normal(s, n, 5), normal(s + 500, m, 5), k_density=k) for s in range(30)])
    expected = 1 - (n - 1) * (n - 2) / ((n + m - 1) * (n + m - 2))
    for column, value in ((3, expected), (2, 1.0)):
        assert found[:, column].mean() == pytest.approx(value, abs=4 * found[:, column].std() / np.sqrt(30))
    assert found[:, 3].std() < 0.05


@pytest.mark.parametrize("chunk", [4, 9, 1000])
def test_nearest_neighbours_agree_with_brute_force(chunk):
    queries, references = normal(28, 18, 6), normal(29, 31, 6)
    distance, index = D.nearest(queries, references, chunk)
    expected = pairwise(queries, references)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-12)


def test_nearest_neighbours_far_from_zero_are_not_mixed_up():
    """Steps of 1/16 about 1e8, where float64 resolves squared norms of 3e16 to 4."""
    references = np.arange(50)[:, None] * np.ones((1, 3)) / 16 + 1e8
    order = np.random.default_rng(30).permutation(50)
    distance, index = D.nearest(references[order], references)
    np.testing.assert_array_equal(index, order)
    assert not distance.any()
    assert D.nearest(references[order] + 1 / 64, references)[0] == pytest.approx(3**0.5 / 64)


def test_nearest_takes_pixels_of_one_byte():
    queries, references = (np.random.default_rng(s).integers(0, 256, (9, 40), np.uint8) for s in (31, 32))
    distance, index = D.nearest(queries, references)
    expected = pairwise(queries.astype(float), references.astype(float))
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_array_equal(distance, expected.min(1))


def test_pairs_leave_the_precision_of_the_rest_alone():
    D.nearest(normal(33, 4, 2), normal(34, 4, 2))
    assert jnp.ones(2).dtype == jnp.float32 and not jax.config.jax_enable_x64


def test_memory_does_not_grow_with_the_number_of_pairs():
    def temporary(blocks, size=64, dim=8):
        with jax.enable_x64(True):
            shapes = [((size, dim), "float32"), ((blocks, size, dim), "float32"), ((blocks, size), "int32")]
            x, y, rows = (jax.ShapeDtypeStruct(*shape) for shape in shapes)
            lowered = pairs._smallest.lower((x,), (y, rows), np.zeros(dim), 4)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) <= temporary(2) + 1024 < 64 * 64 * 64 * 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.moments(np.zeros(3)), r"features must be an array \[N, D\] .* not \[3\]"),
        (lambda: D.moments(np.array([[0.0], [np.nan]])), "NaN or infinite values, in row 1 first"),
        (lambda: D.frechet_distance(gaussian([0], [[1]]), gaussian([0, 0], np.eye(2))), "of 1 and of 2 features"),
        (lambda: D.frechet_distance(D.moments(np.ones((1, 2))), D.moments(np.ones((3, 2)))), "have 1 and 3$"),
        (lambda: D.kernel_distance(np.ones((2, 2)), np.ones((4, 2))), "x must be an array"),
        (lambda: D.precision_recall(np.ones((5, 2)), np.ones((9, 2))), r"real must be .* at least 6, not \[5, 2\]"),
        (lambda: D.precision_recall(np.ones((9, 2)), np.ones((9, 2)), k=0), "1 or more, not 0 and 5"),
        (lambda: D.nearest(np.ones((2, 3)), np.ones((2, 2))), "queries and references differ .* 3 and 2$"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
