"""Flips counted on a world in which everything is known: pictures whose pixels are their attributes."""

import numpy as np
import pytest

from jaxgen.gans import flips
from jaxgen.metrics.readers import Reader

NAMES = ("hat", "beard", "glasses")


def reader():
    read = lambda images: (np.zeros((len(images), 1)), (images[:, 0, :3, 0] > 0).astype(np.int32))
    return Reader("pixels", ("glasses", "hat", "beard"), (2, 2, 2), {}, read)


@pytest.mark.parametrize(("obeys", "spoils", "success", "kept"), [(8, 0, 1, 1), (6, 0, 0.75, 1), (8, 4, 1, 0.75)])
def test_success_and_what_is_kept_are_shares(obeys, spoils, success, kept):
    """The judge has the attributes in another order; `spoils` pictures also lose one of their two others."""
    base = np.random.default_rng(0).integers(0, 2, (8, 3))

    def draw(asked):
        values = base.copy()
        if asked is not None:
            assert (asked[:, 1:] == -1).all()
            values[:obeys, 1] = asked[:obeys, 0]
            values[:spoils, 2] = 1 - values[:spoils, 2]
        return {"image": values[:, None, :, None].astype(np.uint8)}

    done = flips.flip(draw, reader(), NAMES, "hat")
    assert (done.success, done.kept) == (success, kept)
    assert done.pictures.shape == (8, 2, 1, 3, 1)
