"""The report's own arithmetic, and the measures on real images of the bundled sets."""

import numpy as np
import pytest

from jaxgen.data import Images
from jaxgen.metrics import evaluation
from jaxgen.metrics.repeats import repeated


def test_a_noisy_metric_is_repeated_until_its_error_is_small():
    rng = np.random.default_rng(0)
    for spread in (0.01, 0.05):
        noisy = repeated(lambda repeat, spread=spread: {"a": 1 + spread * rng.normal(), "b": 5.0})
        assert 0 < noisy["a"]["standard_error"] <= 0.01 and noisy["b"]["standard_error"] == 0
        assert noisy["a"]["value"] == pytest.approx(1, abs=0.04)
    wild = repeated(lambda repeat: {"a": rng.normal()})
    assert wild["a"]["repeats"] == 100 and wild["a"]["standard_error"] > 0.05
    assert repeated(lambda repeat: {"a": 2.0})["a"] == {"value": 2.0, "standard_error": 0.0, "repeats": 2}
    assert repeated(lambda repeat: {"a": [1.0, np.nan][repeat]})["a"]["repeats"] == 2


def test_the_error_is_as_small_as_asked_in_95_of_100_cases():
    """σ/√n of the true spread σ, not of the one that the first few repeats happened to have."""
    rng = np.random.default_rng(1)
    runs = [repeated(lambda repeat: {"a": 0.05 * rng.normal()})["a"]["repeats"] for _ in range(200)]
    small = np.mean(0.05 / np.sqrt(runs) <= 0.01)
    assert small >= 0.9


def test_without_a_network_of_its_own_a_data_set_has_the_measures_of_pixels():
    reference = evaluation.make_reference(Images("digits").load(), "test", "digits")
    values = evaluation.measure(reference.test[:50], reference)
    names = {"sharpness", "nyquist_energy", "train_distance", "closer_than_test"}
    assert set(values) == {f"{name}/n=50" for name in names}


@pytest.mark.parametrize("name", ["faces", "fashion", "emoji"])
def test_real_images_are_near_and_the_baseline_is_far(name):
    reference = evaluation.make_reference(Images(name).load(), "test", name)
    images = reference.test[:200]
    values = evaluation.measure(images, reference)
    baseline = evaluation.measure(evaluation.pixel_gaussian(reference.train[:2000], 256, 200), reference)
    assert values["fd/n=200"] < 0.3 * baseline["fd/n=200"]
    assert values["precision/n=200"] > 0.8 and values["recall/n=200"] > 0.8
    assert baseline["precision/n=200"] < values["precision/n=200"] and baseline["recall/n=200"] < 0.5
    assert values["label_variation/n=200"] < 0.5 * baseline["label_variation/n=200"]
    assert abs(values["sharpness/n=200"] - 1) < 0.15


def test_what_was_asked_for_is_counted_value_by_value():
    data = Images("faces").load()
    reference = evaluation.make_reference(data, "test", "faces")
    image = data.read("train", np.arange(300), ("image",))["image"]
    wanted = evaluation.labels_by_name(data, "faces", np.arange(300))
    table = evaluation.asked(wanted, image, reference.judge)
    for name in ("smiling", "long_hair", "glasses", "hat"):
        assert min(table[name]["recall"]) > 0.95 and table[name]["judge_accuracy"] >= 0.99
    wrong = {"smiling": 1 - wanted["smiling"]}
    found = evaluation.asked(wrong, image, reference.judge)
    assert set(found) == {"smiling"} and found["smiling"]["balanced_accuracy"] < 0.05


def test_a_judge_reads_the_label_of_a_set_under_its_own_name():
    data = Images("emoji").load()
    judge = evaluation.make_reference(data, "test", "emoji").judge
    image = data.read("train", np.arange(200), ("image",))["image"]
    found = evaluation.asked(evaluation.labels_by_name(data, "emoji", np.arange(200)), image, judge)
    assert set(found) == {"category"} and found["category"]["balanced_accuracy"] > 0.7  # images that it has trained on
