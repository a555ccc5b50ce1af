"""The networks that ship: they come back as they were saved, and read real images as well as their headers say."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data import Images
from jaxgen.metrics import classifier, readers


def test_a_reader_comes_back_as_it_was_saved(tmp_path):
    config, path = classifier.Config(widths=(8,), num_features=4), tmp_path / "r.safetensors"
    net = classifier.Classifier(config, (2, 3))
    images = np.random.default_rng(0).integers(0, 17, (7, 6, 6, 1), np.uint8)
    params = net.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    readers.save("r", config, ("a", "b"), (2, 3), 17, params, {"a": 0.5, "b": 0.25}, path)
    reader = readers.load("r", path)
    features, labels = reader.read(images)
    expected = net.apply(params, images / 8 - 1)
    np.testing.assert_allclose(features, expected.features, atol=5e-3)  # stored in half precision
    np.testing.assert_array_equal(labels, np.stack([logits.argmax(1) for logits in expected.logits], 1))
    assert reader.labels == ("a", "b") and reader.accuracy == {"a": 0.5, "b": 0.25}


SETS = {
    "classifier_faces": "faces",
    "classifier_faces_judge": "faces",
    "classifier_fashion": "fashion",
    "classifier_emoji": "emoji_drawings",
}


@pytest.mark.parametrize("name", SETS)
def test_the_readers_read_as_well_as_their_headers_say(name):
    reader, data = readers.load(name), Images(SETS[name]).load()
    target = "attribute" if "attribute" in data.spec.shapes else "label"
    num = data.spec.count("test")
    batch = data.read("test", np.arange(num), ("image", target))
    labels, real = reader.read(batch["image"])[1], batch[target].reshape(num, -1)
    share = {label: (labels[:, i] == real[:, i]).mean() for i, label in enumerate(reader.labels)}
    assert share == pytest.approx(reader.accuracy, abs=0.003)  # measured before the weights were halved in precision
    if name == "classifier_faces_judge":
        assert min(share[label] for label in ("smiling", "long_hair", "glasses", "hat")) >= 0.99


NETWORK = """
from __future__ import annotations

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import numpy as np


@dataclass(frozen=True)
class Config:
    width: int = 3
    names: tuple[str, ...] = field(default=())


class Net(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.config.width)(x.reshape(len(x), -1))


def features(images):
    net = Net(Config())
    return np.asarray(net.apply(net.init(jax.random.key(0), images), images))
"""


def test_features_come_from_any_module_and_it_hides_no_package(tmp_path):
    (tmp_path / "optax.py").write_text(NETWORK)  # a file may have a package's name
    package = sys.modules["optax"]
    function = readers.feature_function(f"{tmp_path}/optax.py:features")
    assert function(np.ones((2, 4, 4, 1), np.float32)).shape == (2, 3)
    assert sys.modules["optax"] is package


def test_mistakes_name_what_there_is(tmp_path):
    (tmp_path / "f.py").write_text("def pixels(images):\n    return images.reshape(len(images), -1)\n")
    assert readers.feature_function(f"{tmp_path}/f.py:pixels")(np.zeros((2, 3, 3, 1))).shape == (2, 9)
    for error, message, call in (
        (ValueError, r"did you mean classifier_faces_judge\?", lambda: readers.load("classifier_faces_judg")),
        (ValueError, "takes FILE.py:FUNCTION", lambda: readers.feature_function("inception")),
        (FileNotFoundError, "no file nowhere.py", lambda: readers.feature_function("nowhere.py:f")),
        (ValueError, r"did you mean pixels\?", lambda: readers.feature_function(f"{tmp_path}/f.py:pixel")),
    ):
        with pytest.raises(error, match=message):
            call()
