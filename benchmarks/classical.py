"""k-means, PCA and NMF beside scikit-learn, on one core, in float32 and at equal settings.

Run: python benchmarks/classical.py [pairs]

The two take turns; what is compared is the process's CPU time. A pair in which either one's wall time exceeds its CPU
time by 15 % is thrown away (something else had the core). Compilation, a second or two the first time that a shape is
seen, is not counted. The ratio is scikit-learn's time through ours: above 1, ours is the faster.
"""

import os
import statistics
import sys
import time
import warnings

CORE = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})  # before the libraries count their threads
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

import numpy as np  # noqa: E402
from sklearn import cluster, decomposition  # noqa: E402

from jaxgen.classical import estimators as ours  # noqa: E402

warnings.filterwarnings("ignore", category=UserWarning)  # "Maximum number of iterations reached": so it was asked
SIZES = ((100_000, 64), (60_000, 784))
MOST = 8  # times as many tries as pairs are asked for


def kmeans(x, num):
    """Ten iterations from the same rows."""
    options = {"init": x[:num].copy(), "n_init": 1, "max_iter": 10, "tol": 0.0}
    value = lambda found: found.inertia_
    return lambda: ours.KMeans(num, **options).fit(x), lambda: cluster.KMeans(num, **options).fit(x), value


def pca(x, num, solver):
    """The same solver; five power iterations where it is randomised."""
    options = {"n_components": num, "svd_solver": solver, "iterated_power": 5, "random_state": 0}
    value = lambda found: found.explained_variance_ratio_.sum()
    return lambda: ours.PCA(**options).fit(x), lambda: decomposition.PCA(**options).fit(x), value


def nmf(x, num, solver, loss="frobenius", iters=20):
    """So many iterations from the same factors."""
    rng = np.random.default_rng(1)
    w, h = (rng.uniform(0.1, 1, shape).astype(np.float32) for shape in ((len(x), num), (num, x.shape[1])))
    options = {"n_components": num, "max_iter": iters, "tol": 0.0, "beta_loss": loss}
    peer = decomposition.NMF(solver={"hals": "cd"}.get(solver, solver), init="custom", **options)
    mine = ours.NMF(solver=solver, **options)

    def value(found):  # in float64: a sum of so many squares in float32 is off by 5e-4
        parts = found[1].astype(float)
        return sum(np.sum((x[i : i + 5000] - found[0][i : i + 5000] @ parts) ** 2) for i in range(0, len(x), 5000))

    def run(estimator):
        return estimator.fit_transform(x, W=w.copy(), H=h.copy()), estimator.components_

    return lambda: run(mine), lambda: run(peer), value


def timed(fn):
    """CPU seconds, wall seconds and result of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = fn()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def compare(name, mine, peer, value, pairs):
    """Prints medians over `pairs` undisturbed pairs, their ratio, and how far the results are apart."""
    mine()
    peer()
    kept, tries = [], 0
    while len(kept) < pairs and tries < MOST * pairs:
        (a, wall_a, found_a), (b, wall_b, found_b) = timed(mine), timed(peer)
        tries += 1
        if wall_a <= 1.15 * a and wall_b <= 1.15 * b:
            kept.append((a, b))
    apart = value(found_a) / value(found_b) - 1
    if not kept:
        print(f"{name:40} every one of {tries} pairs was disturbed", flush=True)
        return
    a, b = (statistics.median(times) for times in zip(*kept, strict=True))
    ratio = statistics.median(b / a for a, b in kept)
    print(
        f"{name:40} {1000 * a:8.1f} ms {1000 * b:8.1f} ms  {ratio:5.2f}x  results {apart:+.1e}  "
        f"({len(kept)} of {tries} pairs)",
        flush=True,
    )


def main(pairs):
    """All cases."""
    print(f"{'':40} {'jaxgen':>11} {'scikit-learn':>11}")
    for num, dim in SIZES:
        rng = np.random.default_rng(0)
        x = rng.uniform(size=(num, 20)) @ rng.uniform(size=(20, dim)) + rng.uniform(size=(num, dim))
        x = x.astype(np.float32)
        cases = {f"k-means, {k} clusters, 10 iterations": kmeans(x, k) for k in (10, 64)}
        solvers = ("covariance_eigh", "randomized") + (("full",) if dim < 100 else ())  # full: a minute on 784 columns
        cases |= {f"PCA, {solver}, 16 components": pca(x, 16, solver) for solver in solvers}
        cases |= {f"NMF, {solver}, 16 parts, 20 iterations": nmf(x, 16, solver) for solver in ("hals", "mu")}
        cases["NMF, divergence, 16 parts, 3 iterations"] = nmf(x, 16, "mu", "kullback-leibler", 3)
        print(f"{num} x {dim}")
        for name, case in cases.items():
            compare(name, *case, pairs)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
