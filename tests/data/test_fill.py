import numpy as np
import pytest
from PIL import Image

from jaxgen.data import Images
from jaxgen.data.fill import known_pixels, mask_of, pictures

DATA = Images("faces").load()


def test_an_example_of_the_data_by_number():
    expected = DATA.read("test", np.array([3]), ("image",))["image"][0]
    np.testing.assert_array_equal(known_pixels("test:3", DATA.spec, lambda: DATA), expected)


def test_a_split_gives_its_first_pictures_and_one_picture_copies():
    load = lambda: DATA
    expected = DATA.read("test", np.arange(3), ("image",))["image"]
    np.testing.assert_array_equal(pictures("test", DATA.spec, load, 3), expected)
    np.testing.assert_array_equal(pictures("test:2", DATA.spec, load, 2), expected[[2, 2]])
    with pytest.raises(ValueError, match="test has 2000 pictures"):
        pictures("test", DATA.spec, load, 2001)


def test_a_picture_file_without_opening_the_data(tmp_path):
    pixels = DATA.read("test", np.array([3]), ("image",))["image"][0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(known_pixels(str(tmp_path / "a.png"), DATA.spec, pytest.fail), pixels)


def test_a_file_is_scaled_to_the_models_levels(tmp_path):
    spec = Images("digits").load().spec
    Image.fromarray(np.array([[0, 128], [255, 64]] * 4 * 4, np.uint8).reshape(8, 8)).save(tmp_path / "d.png")
    assert set(np.unique(known_pixels(str(tmp_path / "d.png"), spec, pytest.fail))) == {0, 4, 8, 16}


@pytest.mark.parametrize(
    ("part", "rows", "columns"),
    [
        ("left", slice(None), slice(0, 8)),
        ("right", slice(None), slice(8, 16)),
        ("top", slice(0, 8), slice(None)),
        ("bottom", slice(8, 16), slice(None)),
        ("centre", slice(4, 12), slice(4, 12)),
    ],
)
def test_parts_of_the_image(part, rows, columns):
    expected = np.zeros((16, 16, 1))
    expected[rows, columns] = 1
    np.testing.assert_array_equal(mask_of(part, DATA.spec), expected)


def test_a_mask_file_is_white_where_it_is_drawn(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 3] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_of(str(tmp_path / "m.png"), DATA.spec)[..., 0], mask > 0)


def test_what_does_not_fit_is_said(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "black.png")
    for error, message, function, text in (
        (FileNotFoundError, "no picture nowhere.png", known_pixels, "nowhere.png"),
        (ValueError, "the model draws 16×16", known_pixels, str(tmp_path / "small.png")),
        (ValueError, "examples 0 … 1999", known_pixels, "test:2000"),
        (ValueError, r"did you mean train\?", known_pixels, "tran:1"),
        (ValueError, r"did you mean left\?", mask_of, "lft"),
        (ValueError, "8×8, the images 16×16", mask_of, str(tmp_path / "small.png")),
        (ValueError, "nothing is to be drawn", mask_of, str(tmp_path / "black.png")),
    ):
        with pytest.raises(error, match=message):
            function(text, DATA.spec, *([lambda: DATA] if function is known_pixels else []))
