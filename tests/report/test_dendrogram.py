import numpy as np
from PIL import Image

from jaxgen.classical.hierarchical import linkage
from jaxgen.report.dendrogram import write_dendrogram


def test_the_picture_shows_the_tree(tmp_path):
    """Three tight clumps, two near and one far: the picture has ink where their merges are, and is no constant."""
    rng = np.random.default_rng(0)
    x = np.repeat([[0.0, 0.0], [4.0, 0.0], [40.0, 0.0]], 5, axis=0) + 0.1 * rng.normal(size=(15, 2))
    write_dendrogram(linkage(x), tmp_path / "trees" / "tree.png", num_leaves=3)
    with Image.open(tmp_path / "trees" / "tree.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 600
    colored = pixels.max(-1) - pixels.min(-1) > 60
    horizontal = colored.sum(1) > 100  # the bars of the merges
    assert np.count_nonzero(np.diff(horizontal.astype(int)) == 1) == 2
    assert [path.name for path in (tmp_path / "trees").iterdir()] == ["tree.png"]
