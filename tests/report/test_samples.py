import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.data import Spec
from jaxgen.report.images import grid
from jaxgen.report.samples import default_suffix, named_key, sample_grid, with_text, write_samples

spec_of = lambda names, **more: Spec({}, {}, {}, names, {}, **more)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def test_images_as_a_grid(tmp_path):
    write_samples(tmp_path / "s.PNG", {"image": jnp.asarray(IMAGES)})
    with Image.open(tmp_path / "s.PNG") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid(IMAGES))
    np.testing.assert_array_equal(sample_grid({"image": IMAGES}), grid(IMAGES))
    assert sample_grid({"text": ["a"]}) is None


def test_npz_keeps_every_array(tmp_path):
    samples = {"image": jnp.asarray(IMAGES), "label": np.arange(5), "text": ["a", "bc", "d", "e", "f"]}
    write_samples(tmp_path / "s.npz", {**samples, "latent": jnp.array([1.5, -2.0], jnp.bfloat16)})
    with np.load(tmp_path / "s.npz") as file:
        assert set(file.files) == {*samples, "latent"} and file["image"].dtype == np.uint8
        for name, value in samples.items():
            np.testing.assert_array_equal(file[name], np.asarray(value))
        np.testing.assert_array_equal(file["latent"], np.array([1.5, -2.0], np.float32))


def test_text(tmp_path):
    write_samples(tmp_path / "s.txt", {"text": ["Größe", "two"]})
    assert (tmp_path / "s.txt").read_text("utf-8") == "Größe\ntwo\n"
    write_samples(tmp_path / "s.txt", {"text": ["one\nverse", "two"]})
    assert (tmp_path / "s.txt").read_text("utf-8") == "one\nverse\n---\ntwo\n"


def test_numbers_that_the_data_names_become_text():
    names = {"tokens": ("the", "cat", "sat"), "label": ("a", "b")}
    samples = {"tokens": jnp.array([[1, 2], [0, 1]]), "label": jnp.array([0, 1])}
    assert with_text(samples, spec_of(names))["text"] == ["cat sat", "the cat"]
    assert named_key({"document": np.zeros((2, 3))}, spec_of({"document": ("x",)})) == "document"
    for kept in ({"label": np.zeros((2, 3), int)}, {"tokens": np.zeros(2, int)}, {**samples, "text": ["x", "y"]}):
        assert with_text(kept, spec_of(names)) == kept
    assert with_text(samples, spec_of({})) == samples
    written = {"tokens": np.array([[256, 72, 105, 256, -1], [256, 195, 169, 10, 88]])}
    assert with_text(written, spec_of({}, tokenizer="bytes"))["text"] == ["Hi", "é\nX"]


def test_recommendations_are_lines_of_a_user_and_the_items():
    names = {"user": ("ann", "bob"), "item": ("a film", "b", "c")}
    samples = {"user": jnp.array([1, 0]), "item": jnp.array([[2, 0], [1, -1]]), "score": jnp.ones((2, 2))}
    assert with_text(samples, spec_of(names))["text"] == ["bob\tc\ta film", "ann\tb"]


def test_points_are_drawn_where_they_lie(tmp_path):
    """One heap of points at the upper right, one at the lower left: the other two quarters have far less ink."""
    x = np.random.default_rng(0).normal(size=(500, 2)) * 0.1
    x = np.concatenate([x + 1, x - 1])
    write_samples(tmp_path / "s.png", {"x": x})
    with Image.open(tmp_path / "s.png") as file:
        picture = np.asarray(file.convert("RGB")).astype(int)
    ink = np.ptp(picture, axis=-1) > 30  # coloured; the frame is black
    height, width = ink.shape
    top, bottom = ink[: height // 2], ink[height // 2 :]
    half = width // 2 + 20  # the numbers of the axis stand at the left
    assert min(top[:, half:].sum(), bottom[:, :half].sum()) > 10 * max(top[:, :half].sum(), bottom[:, half:].sum(), 1)


@pytest.mark.parametrize(
    ("samples", "suffix"),
    [
        ({"image": IMAGES, "text": ["a"] * 5}, ".png"),
        ({"text": ["a"], "tokens": np.zeros((1, 3))}, ".txt"),
        ({"x": np.zeros((4, 2))}, ".png"),
        ({"x": np.zeros((4, 3))}, ".npz"),
        ({"tokens": np.zeros((4, 3))}, ".npz"),
    ],
)
def test_default_suffix_can_be_written(tmp_path, samples, suffix):
    assert default_suffix(samples) == suffix
    write_samples(tmp_path / f"s{suffix}", samples)
    assert (tmp_path / f"s{suffix}").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        ("s.txt", {"image": IMAGES}, r"have image \[5, 4, 4, 3\]; suffixes that fit: \.png, \.npz$"),
        ("s.png", {"text": ["a"]}, r"have text \[1\]; suffixes that fit: \.txt, \.npz$"),
        ("s.png", {"x": np.zeros((4, 3))}, r"suffixes that fit: \.npz$"),
        ("s.jpeg", {"image": IMAGES}, r"suffixes that fit: \.png, \.npz$"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, name, samples, message):
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / name, samples)
    assert not list(tmp_path.iterdir())
