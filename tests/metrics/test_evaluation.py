"""The report's own arithmetic, and the measures on real images of the bundled sets."""

import numpy as np
import pytest

from jaxgen.data import Images
from jaxgen.metrics import evaluation


def test_a_noisy_metric_is_repeated_until_its_error_is_small():
    rng = np.random.default_rng(0)
    noisy = evaluation.repeated(lambda repeat: {"a": 1 + 0.03 * rng.normal(), "b": 5.0})
    assert 3 <= noisy["a"]["repeats"] < 100 and 0 < noisy["a"]["standard_error"] <= 0.01
    assert noisy["a"]["value"] == pytest.approx(1, abs=0.05) and noisy["b"]["standard_error"] == 0
    wild = evaluation.repeated(lambda repeat: {"a": rng.normal()})
    assert wild["a"]["repeats"] == 100 and wild["a"]["standard_error"] > 0.05
    assert evaluation.repeated(lambda repeat: {"a": 2.0})["a"] == {"value": 2.0, "standard_error": 0.0, "repeats": 2}


def test_without_a_network_of_its_own_a_data_set_has_the_measures_of_pixels():
    reference = evaluation.make_reference(Images("digits").load(), "test", "digits")
    values = evaluation.measure(reference.test[:50], reference)
    assert set(values) == {"sharpness/n=50", "train_distance/n=50", "closer_than_test/n=50"}


@pytest.mark.parametrize("name", ["faces", "fashion", "emoji"])
def test_real_images_are_near_and_the_baseline_is_far(name):
    reference = evaluation.make_reference(Images(name).load(), "test", name)
    images = reference.test[:200]
    values = evaluation.measure(images, reference)
    gaussian = evaluation.fit_pixel_gaussian(reference.train[:2000], 256)
    baseline = evaluation.measure(evaluation.sample_pixel_gaussian(gaussian, 256, 200), reference)
    assert values["fd/n=200"] < 0.3 * baseline["fd/n=200"]
    assert values["precision/n=200"] > 0.8 and values["recall/n=200"] > 0.8
    assert baseline["precision/n=200"] < values["precision/n=200"] and baseline["recall/n=200"] < 0.5
    assert values["label_variation/n=200"] < 0.5 * baseline["label_variation/n=200"]
    assert abs(values["sharpness/n=200"] - 1) < 0.15


def test_what_was_asked_for_is_counted_value_by_value():
    data = Images("faces").load()
    reference = evaluation.make_reference(data, "test", "faces")
    batch = data.read("test", np.arange(300), ("image", "attribute"))
    table = evaluation.asked(batch["attribute"], batch["image"], reference.judge)
    for name in ("smiling", "long_hair", "glasses", "hat"):
        assert min(table[name]["recall"]) > 0.95
    wrong = batch["attribute"].copy()
    wrong[:, 0] = 1 - wrong[:, 0]
    assert evaluation.asked(wrong, batch["image"], reference.judge)["smiling"]["balanced_accuracy"] < 0.05
