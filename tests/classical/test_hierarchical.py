"""Trees equal to scipy's, and their cuts."""

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import normalized_mutual_info_score

import harness
from jaxgen.classical import hierarchical

# How well ten clusters of the digits agree with their labels (scikit-learn's and scipy's figures).
NMI = {"ward": 0.868, "average": 0.713, "complete": 0.613, "single": 0.010}


@pytest.mark.parametrize("method", NMI)
def test_digits_have_scipys_tree_and_the_known_agreement(method):
    x, label = harness.digits()
    x = x.astype(np.float64)  # whose distances tie often
    tree = hierarchical.linkage(x, method)
    np.testing.assert_allclose(tree, hierarchy.linkage(x, method), rtol=0, atol=1e-5)
    found = normalized_mutual_info_score(label, hierarchical.cut(tree, num_clusters=10))
    assert found == pytest.approx(NMI[method], abs=5e-4)


@pytest.mark.parametrize("method", NMI)
def test_cuts_are_nested_and_agree_with_scipys(method):
    x = np.random.default_rng(0).normal(size=(60, 3))
    tree = hierarchical.linkage(x, method)
    coarser = np.zeros(60, int)
    for num in range(1, 61):
        label = hierarchical.cut(tree, num_clusters=num)
        assert set(label) == set(range(num))
        pairs = set(zip(label.tolist(), coarser.tolist(), strict=True))
        assert len(pairs) == num, "a finer cluster lies in two coarser ones"
        coarser = label
    for height in np.quantile(tree[:, 2], [0.1, 0.5, 0.9]):
        ours, theirs = hierarchical.cut(tree, height=height), hierarchy.fcluster(tree, height, "distance")
        assert len(set(zip(ours.tolist(), theirs.tolist(), strict=True))) == len(set(ours)) == len(set(theirs))


def test_labels_are_numbered_in_the_order_of_their_first_members():
    x = np.array([[0.0], [10.0], [0.1], [20.0], [10.1]])
    np.testing.assert_array_equal(hierarchical.cut(hierarchical.linkage(x), num_clusters=3), [0, 1, 0, 2, 1])


def test_a_table_of_distances_will_do_and_stays_as_it_was():
    x = np.random.default_rng(1).normal(size=(20, 2))
    table = squareform(pdist(x, "cityblock"))
    before = table.copy()
    tree = hierarchical.merge(table, "average")
    np.testing.assert_allclose(tree, hierarchy.linkage(pdist(x, "cityblock"), "average"), atol=1e-12)
    np.testing.assert_array_equal(table, before)


def test_heights_by_hand():
    """0 and 1 merge at 1; their mean 1/2 is 4.5 from 5: average 4.5, complete 5, single 4, ward √(2·2·1/3)·4.5."""
    x = np.array([[0.0], [1.0], [5.0]])
    heights = {"average": 4.5, "complete": 5.0, "single": 4.0, "ward": np.sqrt(4 / 3) * 4.5}
    for method, height in heights.items():
        np.testing.assert_allclose(hierarchical.linkage(x, method), [[0, 1, 1, 2], [2, 3, height, 3]], rtol=1e-12)


def test_what_cannot_be_clustered_is_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"unknown linkage 'wards' \(did you mean ward\?\)"):
        hierarchical.linkage(x, "wards")
    for bad in (np.zeros(4), np.zeros((1, 2)), np.full((4, 2), np.nan)):
        with pytest.raises(ValueError, match="needs finite rows"):
            hierarchical.linkage(bad)
    tree = hierarchical.linkage(x)
    for num in (0, 5):
        with pytest.raises(ValueError, match=f"num_clusters={num} must lie in 1…4"):
            hierarchical.cut(tree, num_clusters=num)
    for options in ({}, {"num_clusters": 2, "height": 1.0}):
        with pytest.raises(ValueError, match="either num_clusters or height"):
            hierarchical.cut(tree, **options)
