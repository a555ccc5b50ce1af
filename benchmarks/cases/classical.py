"""k-means, PCA and NMF.

Equal settings and equal starts in float32; the peer is scikit-learn. Compilation, a second or two the first time that a
shape is seen, is not counted. `hals` is scikit-learn's `cd`.
"""

from functools import partial

from benchmarks.program import Program

SIZES = ((100_000, 64), (60_000, 784))


def rows(num: int, dim: int):
    """Rows of rank 20 with noise, all positive."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(num, 20)) @ rng.uniform(size=(20, dim)) + rng.uniform(size=(num, dim))
    return x.astype(np.float32)


def make(ours: bool, num: int, dim: int, method: str, parts: int, solver: str = "", loss: str = "", steps: int = 0):
    """An estimator that is fitted anew each time, and what it has reached: inertia, variance explained, error."""
    import warnings

    import numpy as np

    if ours:
        import jaxgen.classical.estimators as cluster

        decomposition = cluster
    else:
        from sklearn import cluster, decomposition
    warnings.filterwarnings("ignore", category=UserWarning)  # "Maximum number of iterations reached": so it was asked
    x = rows(num, dim)
    if method == "k-means":
        model = cluster.KMeans(parts, init=x[:parts].copy(), n_init=1, max_iter=steps, tol=0.0)
        return Program(lambda: model.fit(x), facts=lambda: {"inertia": float(model.inertia_)})
    if method == "PCA":
        model = decomposition.PCA(parts, svd_solver=solver, iterated_power=5, random_state=0)
        explained = lambda: {"variance explained": float(model.explained_variance_ratio_.sum())}
        return Program(lambda: model.fit(x), facts=explained)
    start = np.random.default_rng(1)
    w, h = (start.uniform(0.1, 1, shape).astype(np.float32) for shape in ((num, parts), (parts, dim)))
    options = {"n_components": parts, "max_iter": steps, "tol": 0.0, "beta_loss": loss or "frobenius"}
    options |= {} if ours else {"init": "custom"}
    model = decomposition.NMF(solver=solver if ours else {"hals": "cd"}.get(solver, solver), **options)
    found = {}

    def run() -> None:
        found["w"] = model.fit_transform(x, W=w.copy(), H=h.copy())

    def error() -> dict[str, float]:  # in float64: a sum of so many squares in float32 is off by 5e-4
        h = model.components_.astype(float)
        return {"squared error": sum(float(np.sum((x[i::100] - found["w"][i::100] @ h) ** 2)) for i in range(100))}

    return Program(run, facts=error)


ROWS = {
    f"{name}, {num:,} × {dim}": {"num": num, "dim": dim, **options}
    for num, dim in SIZES
    for name, options in {
        "k-means, 10 clusters, 10 iterations": {"method": "k-means", "parts": 10, "steps": 10},
        "k-means, 64 clusters, 10 iterations": {"method": "k-means", "parts": 64, "steps": 10},
        "PCA, covariance_eigh, 16 components": {"method": "PCA", "parts": 16, "solver": "covariance_eigh"},
        "PCA, randomized, 16 components": {"method": "PCA", "parts": 16, "solver": "randomized"},
        "PCA, full, 16 components": {"method": "PCA", "parts": 16, "solver": "full"},
        "NMF, hals, 16 parts, 20 iterations": {"method": "NMF", "parts": 16, "solver": "hals", "steps": 20},
        "NMF, mu, 16 parts, 20 iterations": {"method": "NMF", "parts": 16, "solver": "mu", "steps": 20},
        "NMF, divergence, 16 parts, 3 iterations": {
            "method": "NMF",
            "parts": 16,
            "solver": "mu",
            "loss": "kullback-leibler",
            "steps": 3,
        },
    }.items()
    if (dim, options.get("solver")) != (784, "full")  # a minute
}
PROGRAMS = {"jaxgen": partial(make, True), "scikit-learn": partial(make, False)}
