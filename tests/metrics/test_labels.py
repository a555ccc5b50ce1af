import numpy as np
import pytest

from jaxgen.metrics import labels as L


def repeated(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def test_class_coverage_counts_the_classes_with_a_tenth_of_their_share():
    real = repeated(50, 30, 20, 0)
    found = L.class_coverage(real, repeated(95, 3, 1, 1), 4)  # .03 is a tenth of .3, .01 is less than a tenth of .2
    assert found.share == pytest.approx(2 / 3)
    np.testing.assert_allclose(found.real, [0.5, 0.3, 0.2, 0])
    np.testing.assert_allclose(found.fake, [0.95, 0.03, 0.01, 0.01])
    assert found.total_variation == pytest.approx(0.46)  # .45 too many of the first, .01 of the last
    assert L.class_coverage(real, repeated(970, 29, 1, 0), 4).share == pytest.approx(1 / 3)


def test_equal_histograms_have_no_distance_whatever_their_sizes():
    found = L.class_coverage(repeated(2, 1, 1), repeated(200, 100, 100), 3)
    assert found.share == 1 and found.total_variation == 0


def test_a_collapsed_generator_has_one_class():
    found = L.class_coverage(np.arange(10), np.full(7, 3), 10)
    assert found.share == pytest.approx(0.1) and found.total_variation == pytest.approx(0.9)
    assert L.class_coverage(repeated(1, 0), repeated(0, 1), 2)[:2] == (0, 1)


def test_attribute_coverage_is_the_mean_over_the_attributes():
    real = np.stack([[0, 0, 1, 1], [0, 1, 2, 2]], axis=1)
    fake = np.stack([[1, 1, 1, 1], [0, 1, 2, 2]], axis=1)
    found = L.attribute_coverage(real, fake, (2, 3))
    assert found[:2] == pytest.approx((0.75, 0.25))
    assert [a.share for a in found.attributes] == [0.5, 1]
    np.testing.assert_allclose(found.attributes[1].fake, [0.25, 0.25, 0.5])


def test_balanced_accuracy_weighs_every_value_alike():
    asked = np.array([0] * 8 + [1, 1] + [3])
    read = np.array([0] * 8 + [0, 1] + [2])
    found = L.balanced_accuracy(asked, read, 5)
    np.testing.assert_array_equal(found.recall, [1, 0.5, np.nan, 0, np.nan])
    assert found.mean == pytest.approx(0.5)
    assert L.balanced_accuracy(asked, np.zeros(11, int), 5).mean == pytest.approx(1 / 3)  # always the commonest


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: L.class_coverage(np.zeros(3), repeated(1, 1), 2),
            r"real_labels must be integers .* not float64 \[3\]",
        ),
        (lambda: L.class_coverage(repeated(1, 1), np.zeros(0, int), 2), r"fake_labels must be .* not int64 \[0\]"),
        (lambda: L.class_coverage(repeated(1, 1), repeated(1, 1, 1), 2), "0 to 1, and run from 0 to 2"),
        (lambda: L.class_coverage(np.array([-1]), repeated(1), 2), "and run from -1 to -1"),
        (
            lambda: L.attribute_coverage(np.zeros((3, 2), int), np.zeros((3, 1), int), (2, 2)),
            r"fake attributes .* \[N, 2\]",
        ),
        (lambda: L.balanced_accuracy(np.zeros(3, int), np.zeros(2, int), 2), "not of 3 and 2$"),
        (lambda: L.balanced_accuracy(np.zeros(3, int), np.full(3, 7), 2), "read must lie in 0 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
