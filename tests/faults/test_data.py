"""Data that are cut short, damaged or of the wrong kind are refused before training starts, by the file's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import harness
import toy_methods
from jaxgen.config import Experiment
from jaxgen.data import Corpus, Images, Ratings, bundled, folder
from jaxgen.diffusion import ddpm

toy_methods.register()
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 16, 12, 3), np.uint8)


def write(place: Path, suffix: str = "png", pictures=PICTURES) -> list[Path]:
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{i}.{suffix}" for i in range(len(pictures))]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def load(place: Path, **options):
    return Images(f"folder:{place}", **options).load()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("few", [True, False])
def test_a_picture_that_is_cut_short_is_named(tmp_path, monkeypatch, suffix, few):
    """In large folders, too, where not every picture is decoded."""
    if not few:
        monkeypatch.setattr(folder, "DECODED", 0)
    path = write(tmp_path, suffix)[3]
    assert load(tmp_path).spec.shape("image") == (16, 12, 3)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"cannot read the image {path}: "):
            load(tmp_path)


def test_a_flipped_bit_in_a_png_is_named(tmp_path):
    path = write(tmp_path)[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"cannot read the image {path}: "):
        load(tmp_path)


def test_large_folders_are_not_decoded_to_be_opened(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(folder, "DECODED", 0)
    monkeypatch.setattr(folder, "decode", lambda *args: pytest.fail("decoded"))
    assert load(tmp_path, validation=0).spec.counts["train"] == 6


def test_a_picture_of_another_shape_is_named_before_anything_is_written(tmp_path):
    """By the whole way of `train`: from the config to the data."""
    paths = write(tmp_path / "pictures")
    Image.fromarray(PICTURES[0][:8]).save(paths[4])
    data = Images(f"folder:{tmp_path / 'pictures'}")
    experiment = Experiment(ddpm.Config(), data)
    with pytest.raises(ValueError, match=rf"differ in shape: \S+ is 16 x 12, {paths[4]} is 8 x 12; pass --data.size"):
        harness.train(experiment, tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()


def test_empty_folders_and_missing_labels(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no image folder {tmp_path / 'absent'}"):
        load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"no \.png, .* files in {tmp_path / 'empty'}"):
        load(tmp_path / "empty")
    write(tmp_path / "plain")
    experiment = Experiment(ddpm.Config(condition=("label",)), Images(f"folder:{tmp_path / 'plain'}"))
    with pytest.raises(ValueError, match="the data has no 'label' to condition on"):
        harness.train(experiment, tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: data[:-3], lambda data: b""])
def test_a_damaged_bundled_file_is_named(tmp_path, monkeypatch, harm):
    own = Path(bundled.__file__).parent / "files"
    (tmp_path / "files").mkdir()
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path)
    for name, read in (("digits.npz", bundled._arrays), ("reviews.jsonl.xz", bundled._lines)):
        path = tmp_path / "files" / name
        path.write_bytes(harm((own / name).read_bytes()))
        with pytest.raises(ValueError, match=f"{path}, a part of jaxgen, is damaged: .*install jaxgen anew"):
            read.__wrapped__(name.partition(".")[0])


def test_texts_and_ratings_that_are_cut_short_or_none(tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes("ein Fluß und noch ein Fluß".encode()[:-1])
    with pytest.raises(ValueError, match=f"{text} holds text that is not UTF-8"):
        Corpus(f"file:{text}").load()
    text.write_bytes(b"")
    with pytest.raises(ValueError, match="lower min_count, or bring more text"):
        Corpus(f"file:{text}").load()
    table = tmp_path / "ratings.csv"
    table.write_text("user,item,rating\na,b,3\na,c")
    with pytest.raises(ValueError, match=rf"{table}, line 3: 'a,c' is not user,item,rating"):
        Ratings(str(table)).load()
    table.write_bytes(b"user,item,rating\n\xff\xfe,b,3\n")
    with pytest.raises(ValueError, match=f"{table} holds what is not UTF-8 text"):
        Ratings(str(table)).load()
