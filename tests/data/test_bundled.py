"""The bundled sets against what files/PROVENANCE.md says of them, and the config that opens them."""

import numpy as np
import pytest

from jaxgen.data import SOURCES, Images, Toy, bundled

SETS = {
    # name: counts of train and test, shapes, levels
    "faces": (20000, 2000, {"image": (16, 16, 3), "attribute": (10,), "tokens": (19,)}, 256),
    "fashion": (10000, 2000, {"image": (28, 28, 1), "label": ()}, 256),
    "digits": (1500, 297, {"image": (8, 8, 1), "label": ()}, 17),
    "emoji": (
        1711,
        200,
        {"image": (32, 32, 3), "label": (), "tokens": (19,), "source": (32, 32, 3), "target": (32, 32, 3)},
        256,
    ),
}


def everything(data, split: str) -> dict[str, np.ndarray]:
    return data.read(split, np.arange(data.spec.count(split)), tuple(data.spec.shapes))


def test_sources_are_named():
    assert (SOURCES["images"], SOURCES["toy"]) == (Images, Toy)


@pytest.mark.parametrize("name", SETS)
def test_shapes_counts_and_ranges(name):
    num_train, num_test, shapes, levels = SETS[name]
    data = Images(name=name, validation=100).load()
    assert data.spec.counts == {"train": num_train - 100, "validation": 100, "test": num_test}
    assert data.spec.shapes == shapes and data.spec.levels == levels
    train, test = everything(data, "train"), everything(data, "test")
    for key, shape in shapes.items():
        assert train[key].shape == (num_train - 100, *shape) and test[key].shape == (num_test, *shape)
        if key in ("label", "attribute"):
            assert train[key].dtype == np.int32
            columns = train[key].reshape(len(train[key]), -1)
            assert columns.min() == 0
            assert (columns.max(0) < data.spec.sizes[key]).all()
            names = data.spec.names[key]
            assert len(names) == (10 if key == "attribute" else data.spec.sizes[key][0]) and all(names)
        elif key == "tokens":
            assert train[key].dtype == np.int32 and train[key].min() == 0
            assert train[key].max() < data.spec.sizes[key][0] == len(data.spec.names[key])
        else:
            assert train[key].dtype == np.uint8 and train[key].max() == levels - 1 and train[key].min() == 0


def test_every_class_and_attribute_value_occurs():
    for name in ("fashion", "digits", "emoji"):
        data = Images(name=name).load()
        assert len(np.unique(everything(data, "train")["label"])) == data.spec.sizes["label"][0] == 10
    data = Images().load()
    attribute = everything(data, "train")["attribute"]
    assert data.spec.sizes["attribute"] == (2,) * 7 + (15, 15, 8)
    assert [len(np.unique(column)) for column in attribute[:, :7].T] == [2] * 7
    assert len(np.unique(attribute[:, 9])) == 8


@pytest.mark.parametrize("name", SETS)
def test_validation_is_the_end_of_train(name):
    whole = everything(Images(name=name, validation=0).load(), "train")
    data = Images(name=name).load()
    assert data.spec.count("validation") == round(0.05 * SETS[name][0])
    train, validation = everything(data, "train"), everything(data, "validation")
    for key in whole:
        np.testing.assert_array_equal(np.concatenate([train[key], validation[key]]), whole[key])
    assert "validation" not in Images(name=name, validation=0).load().spec.counts


def test_digits_are_those_of_scikit_learn():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data = Images(name="digits", validation=0).load()
    images = np.concatenate([everything(data, split)["image"] for split in ("train", "test")])
    labels = np.concatenate([everything(data, split)["label"] for split in ("train", "test")])
    np.testing.assert_array_equal(images[..., 0], digits.images)
    np.testing.assert_array_equal(labels, digits.target)


def test_emoji_are_paired_with_the_source_as_image():
    train = everything(Images(name="emoji").load(), "train")
    np.testing.assert_array_equal(train["image"], train["source"])
    assert (train["source"] != train["target"]).any((1, 2, 3)).mean() > 0.99


def test_drawings_are_both_vendors_in_turn():
    emoji, drawings = (everything(Images(name=name).load(), "test") for name in ("emoji", "emoji_drawings"))
    np.testing.assert_array_equal(drawings["image"][::2], emoji["source"])
    np.testing.assert_array_equal(drawings["image"][1::2], emoji["target"])
    np.testing.assert_array_equal(drawings["attribute"][:, 0], np.repeat(emoji["label"], 2))
    np.testing.assert_array_equal(drawings["attribute"][:, 1], np.tile([0, 1], 200))
    np.testing.assert_array_equal(drawings["tokens"], np.repeat(emoji["tokens"], 2, 0))


def test_tokens_are_the_words_of_captions_and_tags():
    data = Images(name="emoji").load()
    tokens, words = everything(data, "test")["tokens"], data.spec.names["tokens"]
    captions, tags = (bundled.texts("emoji", f"test_{kind}") for kind in ("caption", "tags"))
    for row, caption, more in zip(tokens, captions, tags, strict=True):
        for token in row[row > 1]:
            assert words[token] in f"{caption} {more}".lower()
    assert (tokens > 1).any(1).mean() > 0.95  # hardly an unseen caption without a known word


def test_captions_agree_with_attributes():
    captions = bundled.texts("faces", "train_caption")
    data = Images(validation=0).load()
    attribute, names = everything(data, "train")["attribute"], data.spec.names["attribute"]
    assert len(captions) == len(attribute) == 20000
    colors = bundled.texts("faces", "color_names")
    for caption, row in zip(captions[:500], attribute[:500], strict=True):
        value = dict(zip(names, row, strict=True))
        assert ("smiling" in caption) == value["smiling"]
        assert (", a hat" in caption) == value["hat"]
        assert f"{colors[value['hair_color']]} hair" in caption
        assert caption.endswith(f"a {colors[value['clothing_color']]} top")


def test_texts_match_their_images():
    for split, count in (("train", 1711), ("test", 200)):
        assert len(bundled.texts("emoji", f"{split}_caption")) == len(bundled.texts("emoji", f"{split}_tags")) == count


def test_records():
    speeches = bundled.records("speeches")
    assert len(speeches) == 233 and {speech["year"] for speech in speeches} >= {1790, 2021}
    assert sum(speech["split"] == "test" for speech in speeches) == 23
    reviews = bundled.records("reviews")
    assert len(reviews) == 10603 and sum(abs(review["rating"]) < 0.5 for review in reviews) == 533
    for review in reviews[:100]:
        assert -4 <= review["rating"] <= 4
        assert review["rating"] == pytest.approx(np.mean(review["scores"]), abs=1e-3)


def test_shared_arrays_cannot_be_changed():
    batch = everything(Images(name="digits").load(), "train")
    batch["image"][:] = 0  # a copy
    assert everything(Images(name="digits").load(), "train")["image"].any()


def test_unknown_names_suggest_the_closest():
    with pytest.raises(ValueError, match="'fases' \\(did you mean faces"):
        Images(name="fases").load()
    with pytest.raises(ValueError, match="no bundled data set 'speeches'; there are: faces, fashion, digits, emoji"):
        bundled.texts("speeches", "text")
    with pytest.raises(ValueError, match="'captions' .*did you mean test_caption"):
        bundled.texts("faces", "captions")
    with pytest.raises(ValueError, match="no bundled text set 'review' \\(did you mean reviews"):
        bundled.records("review")


def test_bundled_images_are_not_resized():
    assert Images(name="faces", size=16).load().spec.shape("image") == (16, 16, 3)
    with pytest.raises(ValueError, match="'faces' are 16 x 16.*leave out --data.size 32"):
        Images(name="faces", size=32).load()
    with pytest.raises(ValueError, match="--data.size"):
        Images(size=0).load()
