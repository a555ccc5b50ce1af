"""The estimators keep scikit-learn's conventions, and agree with its own."""

import importlib
import sys

import numpy as np
import pytest
import sklearn.cluster
import sklearn.decomposition
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import harness
from jaxgen.classical.estimators import NMF, PCA, AgglomerativeClustering, KMeans, pca

FAILS = {
    "KMeans": {
        # scikit-learn's own KMeans is exempt for the same reason.
        "check_sample_weight_equivalence_on_dense_data": "the random start draws other rows when rows are repeated",
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        KMeans(random_state=0),
        KMeans(batch_size=32, max_iter=20, random_state=0),
        AgglomerativeClustering(),
        PCA(random_state=0),
        NMF(max_iter=500, random_state=0),  # scikit-learn checks its own with 500 iterations
    ],
    expected_failed_checks=lambda estimator: FAILS.get(type(estimator).__name__, {}),
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def blobs(num=90):
    rng = np.random.default_rng(0)
    return (6 * rng.normal(size=(3, 4)))[rng.integers(3, size=num)] + rng.normal(size=(num, 4))


def test_kmeans_gives_the_clusters_and_figures_of_scikit_learn():
    x = blobs()
    ours = KMeans(3, init=x[:3], tol=0).fit(x)
    peer = sklearn.cluster.KMeans(3, init=x[:3], n_init=1, tol=0).fit(x)
    np.testing.assert_array_equal(ours.labels_, peer.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, peer.cluster_centers_)  # in double precision, like the data
    assert ours.inertia_ == pytest.approx(peer.inertia_) and ours.n_iter_ == peer.n_iter_
    new = blobs(20) + 0.5
    np.testing.assert_array_equal(ours.predict(new), peer.predict(new))
    np.testing.assert_allclose(ours.transform(new), peer.transform(new))
    assert ours.score(new) == pytest.approx(peer.score(new))


def test_kmeans_far_from_zero_gives_the_clusters_of_scikit_learn():
    """In float32, which has four digits of the rows left, and none of their squares'."""
    x = (blobs(400) + 1000).astype(np.float32)
    ours = KMeans(5, init=x[:5], tol=0).fit(x)
    peer = sklearn.cluster.KMeans(5, init=x[:5], n_init=1, tol=0).fit(x.astype(np.float64))
    np.testing.assert_array_equal(ours.labels_, peer.labels_)
    np.testing.assert_array_equal(ours.predict(x), peer.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, peer.cluster_centers_, atol=1e-3)
    np.testing.assert_allclose(ours.transform(x), peer.transform(x), atol=1e-2)
    assert ours.inertia_ == pytest.approx(peer.inertia_, rel=1e-4) and ours.cluster_centers_.dtype == np.float32


def test_the_best_of_ten_starts_is_as_good_as_scikit_learns():
    x, label = harness.digits()
    found = KMeans(10, n_init=10, random_state=0).fit(x)
    assert found.inertia_ <= 4555 and normalized_mutual_info_score(label, found.labels_) >= 0.74
    assert found.cluster_centers_.dtype == np.float32 and found.labels_.dtype == np.int32


def test_minibatches_find_clear_clusters_and_the_seed_decides():
    x = blobs(200).astype(np.float32)
    fit = lambda seed: KMeans(3, batch_size=32, random_state=seed).fit(x)
    a, b = fit(1), fit(1)
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    assert (a.cluster_centers_ != fit(2).cluster_centers_).any()
    assert adjusted_rand_score(a.labels_, KMeans(3, n_init=5, random_state=1).fit_predict(x)) > 0.95
    assert a.n_iter_ < 300


def test_a_minibatch_centroid_without_rows_finds_some():
    x = blobs(200)
    start = np.concatenate([x[:3], np.full((1, 4), 1e3)])
    assert set(KMeans(4, init=start, batch_size=32, random_state=0).fit(x).labels_) == set(range(4))


def test_weights_of_minibatches_may_be_small():
    """Only their proportions count."""
    x = blobs(64)
    fit = lambda weight: KMeans(3, batch_size=32, max_iter=3, random_state=0).fit(x, sample_weight=weight)
    weight = np.random.default_rng(1).uniform(0.5, 1, 64)
    np.testing.assert_allclose(fit(weight).cluster_centers_, fit(weight * 1e-3).cluster_centers_, rtol=1e-6)


@pytest.mark.parametrize("solver", ["full", "covariance_eigh", "randomized", "auto"])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_gives_the_codes_and_figures_of_scikit_learn(solver, whiten):
    x = blobs()
    ours = PCA(2, svd_solver=solver, whiten=whiten, iterated_power=8, random_state=0).fit(x)
    peer = sklearn.decomposition.PCA(2, svd_solver="full", whiten=whiten).fit(x)
    for name in (
        "components_",
        "explained_variance_",
        "explained_variance_ratio_",
        "singular_values_",
        "mean_",
        "noise_variance_",
    ):
        np.testing.assert_allclose(getattr(ours, name), getattr(peer, name), rtol=1e-6, atol=1e-9, err_msg=name)
    z = ours.transform(x)
    np.testing.assert_allclose(z, peer.transform(x), atol=1e-6)
    np.testing.assert_allclose(ours.inverse_transform(z), peer.inverse_transform(z), atol=1e-6)


def test_a_share_of_the_variance_decides_the_number_of_components():
    x, _ = harness.digits()
    ours, peer = PCA(0.9).fit(x), sklearn.decomposition.PCA(0.9).fit(x)
    assert ours.n_components_ == peer.n_components_ and ours.components_.shape == peer.components_.shape


def test_pca_of_chunks_is_pca_of_all(monkeypatch):
    monkeypatch.setattr(pca, "CHUNK", 4 * 20)
    x = blobs()
    whole, parts = PCA(2, svd_solver="full").fit(x), PCA(2, svd_solver="covariance_eigh")
    for part in np.split(x, 3):
        parts.partial_fit(part)
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-9)
    np.testing.assert_allclose(parts.explained_variance_ratio_, whole.explained_variance_ratio_)
    assert parts.n_samples_ == 90
    parts.fit(x[:50] + 5).partial_fit(x[50:] + 5)  # a fit forgets what came before it
    assert parts.n_samples_ == 90
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-9)
    np.testing.assert_allclose(parts.mean_, whole.mean_ + 5)


def test_nmf_finds_parts_and_their_weights():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(50, 3)) @ rng.uniform(size=(3, 8))
    found = NMF(3, max_iter=2000, tol=1e-9, random_state=0)
    w = found.fit_transform(x)
    assert found.reconstruction_err_ < 1e-2 * np.linalg.norm(x)
    assert found.reconstruction_err_ == pytest.approx(np.linalg.norm(x - w @ found.components_), rel=1e-6)
    np.testing.assert_allclose(found.inverse_transform(found.transform(x)), x, atol=2e-2)
    kl = NMF(3, solver="mu", beta_loss="kullback-leibler", random_state=0)
    y = kl.fit_transform(x) @ kl.components_
    assert kl.reconstruction_err_ == pytest.approx(np.sqrt(2 * np.sum(x * np.log(x / y) - x + y)), rel=1e-6)


def test_nan_is_missing_and_not_zero():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 1, (60, 3)) @ rng.uniform(0.2, 1, (3, 20))
    gaps = np.where(rng.uniform(size=x.shape) < 0.3, np.nan, x)
    found = NMF(3, max_iter=3000, tol=0, random_state=0)
    filled = found.fit_transform(gaps) @ found.components_
    error = (filled - x)[np.isnan(gaps)]
    assert np.sqrt(np.mean(error**2)) < 0.05 * x.std()
    new = found.inverse_transform(found.transform(gaps[:5]))
    assert np.sqrt(np.mean((new - x[:5]) ** 2)) < 0.05 * x.std()


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
def test_agglomerative_clusters_are_scikit_learns(linkage):
    x = blobs()
    ours = AgglomerativeClustering(5, linkage=linkage).fit(x)
    peer = sklearn.cluster.AgglomerativeClustering(5, linkage=linkage).fit(x)
    assert adjusted_rand_score(ours.labels_, peer.labels_) == 1 and ours.n_clusters_ == 5
    height = ours.distances_[-3]
    options = {"n_clusters": None, "distance_threshold": height + 1e-9, "linkage": linkage}
    assert AgglomerativeClustering(**options).fit(x).n_clusters_ == 3


def test_estimators_clone_and_join_pipelines():
    x = blobs().astype(np.float32)
    pipeline = make_pipeline(PCA(2), KMeans(3, random_state=0))
    assert clone(pipeline).fit(x).predict(x).shape == (90,)
    assert pipeline.fit(x)[0].get_feature_names_out().tolist() == ["pca0", "pca1"]
    assert clone(KMeans(5, init="k-means||")).get_params()["init"] == "k-means||"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KMeans(init="kmeans||"), r"unknown init='kmeans\|\|' \(did you mean k-means\|\|\?\)"),
        (lambda: KMeans(91), "n_samples=90 should be >= n_clusters=91"),
        (lambda: KMeans(3, init=np.zeros((2, 4))), r"init has the shape \(2, 4\), not \(3, 4\)"),
        (lambda: KMeans(3, batch_size=2), "batch_size=2 must be 3 or more"),
        (lambda: KMeans(3, n_init="foo"), "n_init='foo' must be 1 or more"),
        (lambda: KMeans(2.5), "n_clusters=2.5"),
        (lambda: KMeans(3, n_init=0), "n_init=0 must be 1 or more"),
        (lambda: PCA(5), r"n_components=5 must be a whole number in 1…4, min\(n_samples, n_features\), or lie in"),
        (lambda: PCA(1.0), r"n_components=1.0 must be a whole number"),
        (lambda: PCA(2.5), r"n_components=2.5 must be a whole number"),
        (
            lambda: PCA(0.9, svd_solver="randomized"),
            "svd_solver='randomized' needs a whole number n_components, not 0.9",
        ),
        (lambda: PCA(svd_solver="ful"), r"unknown svd_solver='ful' \(did you mean full\?\)"),
        (lambda: NMF(solver="cd"), "unknown solver='cd'; there are: hals, mu"),
        (lambda: NMF(beta_loss="kl"), "unknown beta_loss='kl'"),
        (lambda: NMF(beta_loss="kullback-leibler"), "set solver='mu'"),
        (lambda: NMF(0), "n_components=0 must be 1 or more"),
        (lambda: NMF(5, init="nndsvd"), r"init='nndsvd' needs 5 rows and columns or more, .*, not \(90, 4\)"),
        (lambda: AgglomerativeClustering(linkage="wards"), r"did you mean ward\?"),
        (lambda: AgglomerativeClustering(2, distance_threshold=1.0), "either num_clusters or height"),
    ],
)
def test_parameters_that_cannot_be_followed_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().fit(np.abs(blobs()))


def test_more_components_than_columns_are_refused_in_chunks_too():
    with pytest.raises(ValueError, match="n_components=5 must be a whole number in 1…4, n_features"):
        PCA(5).partial_fit(blobs())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"W": np.ones((90, 2))}, "a start needs both W and H"),
        ({"H": np.ones((2, 4))}, "a start needs both W and H"),
        ({"W": np.ones((90, 3)), "H": np.ones((2, 4))}, r"W must be a table \(90, 2\)"),
        ({"W": np.ones((90, 2)), "H": -np.ones((2, 4))}, r"H must be a table \(2, 4\) without a negative number"),
    ],
)
def test_starts_that_do_not_fit_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        NMF(2).fit_transform(np.abs(blobs()), **start)


def test_negative_entries_are_refused_even_beside_missing_ones():
    x = np.abs(blobs())
    x[0, 0], x[1, 1] = np.nan, -1
    with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
        NMF(2).fit(x)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxgen.classical.estimators")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxgen\[sklearn\]'"):
        importlib.import_module("jaxgen.classical.estimators")
