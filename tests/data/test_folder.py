"""Folders of pictures: decoding, resizing, classes, splits, and what is said of folders that do not fit."""

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import Images
from jaxgen.data.folder import fit


def save(path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def pixels(seed: int, shape=(4, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def load(folder, **options):
    return Images(name=f"folder:{folder}", **options).load()


def everything(data, split, keys=("image",)):
    return data.read(split, np.arange(data.spec.count(split)), keys)


def test_pictures_come_back_exactly(tmp_path):
    originals = [pixels(i) for i in range(20)]
    for i, original in enumerate(originals):
        save(tmp_path / f"{i:02}.{'PNG' if i % 2 else 'png'}", original, format="PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._00.png").write_text("not one either")
    data = load(tmp_path, validation=5)
    assert data.spec.shapes == {"image": (4, 6, 3)} and data.spec.counts == {"train": 15, "validation": 5}
    found = np.concatenate([everything(data, split)["image"] for split in ("train", "validation")])
    assert sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in originals)
    np.testing.assert_array_equal(everything(load(tmp_path, validation=5), "train")["image"], found[:15])


def test_subfolders_are_classes_and_validation_has_both(tmp_path):
    for i in range(20):
        save(tmp_path / "cat" / "deep" / f"{i}.png", np.full((4, 4, 3), 10, np.uint8))
        save(tmp_path / "dog" / f"{i}.jpg", np.full((4, 4, 3), 200, np.uint8))
    data = load(tmp_path, validation=0.25)
    assert data.spec.names == {"label": ("cat", "dog")} and data.spec.sizes == {"label": (2,)}
    for split in ("train", "validation"):
        batch = everything(data, split, ("image", "label"))
        np.testing.assert_array_equal(batch["label"], batch["image"][:, 0, 0, 0] > 100)
        assert set(batch["label"]) == {0, 1}
    assert set(everything(data, "train", ("label",))) == {"label"}


def test_one_subfolder_is_no_class(tmp_path):
    for i in range(3):
        save(tmp_path / "all" / f"{i}.png", pixels(i))
    data = load(tmp_path)
    assert set(data.spec.shapes) == {"image"}
    with pytest.raises(ValueError, match="no batch key 'label'; there are: image"):
        data.read("train", np.arange(1), ("label",))
    with pytest.raises(ValueError, match="no split 'test'; there are: train, validation"):
        data.read("test", np.arange(1), ("image",))


def test_train_and_test_folders_are_splits(tmp_path):
    for split, value in (("train", 1), ("test", 2)):
        for name in ("a", "b"):
            for i in range(4):
                save(tmp_path / split / name / f"{i}.png", np.full((2, 2, 3), value, np.uint8))
    data = load(tmp_path, validation=2)
    assert data.spec.counts == {"train": 6, "validation": 2, "test": 8}
    assert data.spec.names == {"label": ("a", "b")}
    assert (everything(data, "validation")["image"] == 1).all() and (everything(data, "test")["image"] == 2).all()
    save(tmp_path / "validation" / "a" / "0.png", np.full((2, 2, 3), 3, np.uint8))
    data = load(tmp_path)
    assert data.spec.counts == {"train": 8, "validation": 1, "test": 8}
    assert (everything(data, "validation")["image"] == 3).all()


def test_grey_stays_grey_only_when_all_are(tmp_path):
    grey = pixels(0, (4, 4))
    save(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(everything(load(tmp_path), "train")["image"][0, ..., 0], grey)
    save(tmp_path / "b.png", pixels(1, (4, 4, 3)))
    data = load(tmp_path, validation=0)
    assert data.spec.shape("image") == (4, 4, 3)
    rows = everything(data, "train")["image"]
    assert any((row == grey[..., None]).all() for row in rows)


def test_transparency_is_white_and_photographs_stand_upright(tmp_path):
    save(tmp_path / "clear" / "a.png", np.zeros((2, 2, 4), np.uint8))
    assert (everything(load(tmp_path / "clear"), "train")["image"] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise for display
    upright = np.repeat(np.array([[0, 80, 160], [200, 240, 40]], np.uint8), 8, 0).repeat(8, 1)  # [16, 24]
    save(tmp_path / "turned" / "a.jpg", np.rot90(upright).copy(), exif=exif, quality=100)
    data = load(tmp_path / "turned")
    assert data.spec.shape("image") == (16, 24, 1)
    np.testing.assert_allclose(everything(data, "train")["image"][0, ..., 0], upright, atol=3)


def test_fit_crops_the_centre_and_averages():
    wide = pixels(0, (4, 8, 3))
    np.testing.assert_array_equal(fit(wide, 4), wide[:, 2:6])
    np.testing.assert_array_equal(fit(wide.swapaxes(0, 1), 4), wide.swapaxes(0, 1)[2:6])
    np.testing.assert_array_equal(fit(np.full((9, 6, 1), 77, np.uint8), 3), np.full((3, 3, 1), 77))
    halves = np.repeat(np.array([[0, 200]], np.uint8), 16, 0).repeat(16, 1)[..., None]  # [16, 32, 1]
    small = fit(halves, 8)[..., 0]
    assert (small[:, :2] == 0).all() and (small[:, -2:] == 200).all()


def test_size_brings_different_shapes_together(tmp_path):
    save(tmp_path / "a.png", pixels(0, (4, 6, 3)))
    save(tmp_path / "b.png", pixels(1, (8, 6, 3)))
    with pytest.raises(ValueError, match="a.png is 4 x 6, .*b.png is 8 x 6; pass --data.size"):
        load(tmp_path)
    data = load(tmp_path, size=4, validation=0)
    assert data.spec.shape("image") == (4, 4, 3)
    assert everything(data, "train")["image"].shape == (2, 4, 4, 3)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no .png, .jpg, .jpeg files in"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no image data set 'folder:'"):
        load("")


def test_a_picture_outside_the_classes(tmp_path):
    for name in ("a/0.png", "b/0.png", "stray.png"):
        save(tmp_path / name, pixels(0))
    with pytest.raises(ValueError, match="stray.png lies in no class folder, while others lie in a, b"):
        load(tmp_path)


def test_broken_files_are_named(tmp_path):
    save(tmp_path / "good.png", pixels(0))
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot read the image .*bad.png"):
        load(tmp_path)
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(whole[: len(whole) - 40])  # its header is fine
    with pytest.raises(ValueError, match="cannot read the image .*bad.png"):
        load(tmp_path)
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "bad.png")
    with pytest.raises(ValueError, match="bad.png is no 8-bit image"):
        load(tmp_path)
