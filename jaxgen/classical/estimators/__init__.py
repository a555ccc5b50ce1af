"""The classical methods as scikit-learn estimators: `KMeans(10).fit(x).predict(x)`, in pipelines and grid searches.

Names and meanings of parameters and attributes are scikit-learn's. Arrays of float64 are computed with in double
precision, those of float32 in single precision, in which the speed was measured.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("jaxgen.classical.estimators needs scikit-learn: pip install 'jaxgen[sklearn]'") from error

from jaxgen.classical.estimators.clustering import AgglomerativeClustering, KMeans
from jaxgen.classical.estimators.nmf import NMF
from jaxgen.classical.estimators.pca import PCA

__all__ = ["NMF", "PCA", "AgglomerativeClustering", "KMeans"]
