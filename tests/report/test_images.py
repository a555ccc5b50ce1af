import numpy as np
import pytest
from PIL import Image

from jaxgen.report.atomic import replacing
from jaxgen.report.images import grid, write_png


def test_grid_by_hand():
    images = np.array([10, 20, 30], np.uint8).reshape(3, 1, 1, 1)
    w = 255
    expected = [
        [w, w, w, w, w],
        [w, 10, w, 20, w],
        [w, w, w, w, w],
        [w, 30, w, w, w],
        [w, w, w, w, w],
    ]
    sheet = grid(images, columns=2, scale=1)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet, np.repeat(np.array(expected)[..., None], 3, axis=-1))
    np.testing.assert_array_equal(grid(images, columns=2, scale=3), sheet.repeat(3, 0).repeat(3, 1))


def test_grid_keeps_colours_and_orientation():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
    np.testing.assert_array_equal(grid(image, scale=1, padding=0), image[0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 16, 16, 3), (8 * 17 * 6 + 6, 8 * 17 * 6 + 6)),  # ×6
        ((16, 128, 128, 1), (4 * 129 + 1, 4 * 129 + 1)),  # large images stay as they are
        ((4, 32, 8, 1), (33 * 3 + 3, 4 * 9 * 3 + 3)),  # tall images: 1 row of 4, nearly square
    ],
)
def test_grid_is_visible_and_nearly_square(shape, expected):
    assert grid(np.zeros(shape, np.uint8)).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 8, 8, 3), float), ((8, 8, 3), "uint8"), ((4, 8, 8, 2), "uint8"), ((0, 8, 8, 3), "uint8")]
)
def test_grid_says_what_it_needs(shape, dtype):
    with pytest.raises(ValueError, match=r"uint8 images \[N, H, W, 1 or 3\]"):
        grid(np.zeros(shape, dtype))


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_png_is_read_back_the_same(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_png(tmp_path / "new" / "a.png", array)
    with Image.open(tmp_path / "new" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), array)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
