"""The report's own arithmetic, and the measures on real images of the bundled sets."""

import contextlib
import functools
import json

import jax
import numpy as np
import pytest

import toy_methods
from jaxgen import catalog
from jaxgen.checkpoint import Restored
from jaxgen.config import Experiment, MeshConfig
from jaxgen.data import Images, Spec
from jaxgen.diffusion import ddpm
from jaxgen.method import Method
from jaxgen.metrics import evaluation, readers, reporting
from jaxgen.metrics.repeats import estimate, repeated
from jaxgen.sharding import make_mesh
from jaxgen.trained import Run
from jaxgen.watch import NonFiniteError

toy_methods.register()


def test_the_standard_error_is_that_of_a_mean_and_of_a_ratio_of_means():
    """By the textbook for a mean; for a ratio (words an example, say) beside 4000 resamplings of the examples."""
    rng = np.random.default_rng(0)
    x, words = rng.normal(3.0, 0.5, 400), rng.integers(1, 30, 400).astype(float)
    found = estimate(np.stack([x, x]), np.ones((2, 400)))
    assert found.value == pytest.approx(x.mean()) and found.noise == 0 and found.repeats == 2
    assert found.standard_error == pytest.approx(x.std(ddof=1) / 20)
    np.testing.assert_allclose(found.examples, x)
    total = 4.0 * words + rng.normal(0, 3, 400)
    found = estimate(np.stack([total, total]), np.stack([words, words]))
    rows = rng.integers(400, size=(4000, 400))
    resampled = total[rows].sum(1) / words[rows].sum(1)
    assert found.value == pytest.approx(total.sum() / words.sum()) == pytest.approx(found.examples.mean())
    assert found.standard_error == pytest.approx(resampled.std(), rel=0.06)


def drawn(rng, spread, size=50):
    """`evaluate(repeat)` of a metric of 1, the same for every example of a repeat, and of one without noise."""
    ones = np.ones(size)
    return lambda repeat: {"a": ((1 + spread * rng.normal()) * ones, ones), "b": (5 * ones, ones)}


def test_a_noisy_metric_is_repeated_until_its_error_is_small():
    rng = np.random.default_rng(0)
    for spread in (0.01, 0.05):
        noisy = repeated(drawn(rng, spread))
        assert 0 < noisy["a"].noise <= 0.01 and noisy["b"].noise == noisy["b"].standard_error == 0
        assert noisy["a"].value == pytest.approx(1, abs=0.04) and noisy["a"].standard_error >= noisy["a"].noise
    wild = repeated(drawn(rng, 1.0))["a"]
    assert wild.repeats == 100 and wild.noise > 0.05 and not wild.settled
    ones = np.ones(3)
    assert repeated(lambda repeat: {"a": (2 * ones, ones)})["a"].to_json() == {
        "value": 2.0,
        "standard_error": 0.0,
        "noise": 0.0,
        "repeats": 2,
        "settled": True,
    }


def test_noise_far_below_what_the_examples_leave_open_is_not_averaged_away():
    """Examples of 100 nats' spread: an error of 5 in their mean, beside which noise of 0.1 is nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(1800, 100, 400)
    found = repeated(lambda repeat: {"nats": (x + rng.normal(0, 2, 400), np.ones(400))})["nats"]
    assert found.repeats < 20 and 0.01 < found.noise < 0.1 * found.standard_error and found.settled


def test_noise_in_bits_per_dimension_is_averaged_away_whatever_the_examples_leave_open(capsys):
    rng, hard = np.random.default_rng(0), np.random.default_rng(1).normal(3, 20, 400)  # a whole error of 1

    def noisy(spread):
        return repeated(lambda repeat: {"bits_per_dim/bound": (hard + spread * rng.normal(), np.ones(400))})

    fine, given_up = noisy(0.03)["bits_per_dim/bound"], noisy(1.0)["bits_per_dim/bound"]
    assert fine.settled and fine.noise <= 0.01 and 2 < fine.repeats < 100
    assert not given_up.settled and given_up.repeats == 100 and 0.05 < given_up.noise < 0.2
    reporting.say_unsettled({"fine": fine.to_json(), "rough": given_up.to_json()})
    text = capsys.readouterr().out
    assert text.startswith("rough: after 100 repeats its noise is still 0.1") and text.count("\n") == 1


def test_the_error_is_as_small_as_asked_in_95_of_100_cases():
    """σ/√n of the true spread σ, not of the one that the first few repeats happened to have."""
    rng = np.random.default_rng(1)
    runs = [repeated(drawn(rng, 0.05, size=1))["a"].repeats for _ in range(200)]
    small = np.mean(0.05 / np.sqrt(runs) <= 0.01)
    assert small >= 0.9


def test_nan_is_an_error_that_names_metric_step_and_example():
    """One example is poisoned: neither another nor padding is counted as such."""
    experiment = toy_methods.EXPERIMENTS["toy_kmeans"]
    data = experiment.data.load()
    poison = data.read("test", np.array([9]), ("x",))["x"]
    method = catalog.make(experiment.method, data.spec)
    state = method.init(jax.random.key(0), {"x": data.read("train", np.arange(8), ("x",))["x"]})

    def evaluate(value, weight=1.0):
        def broken(state, batch, key):
            (loss, ones) = method.evaluate(state, batch, key)["loss"]
            return {"nats/exact": (jax.numpy.where((batch["x"] == poison).all(1), value, loss), weight * ones)}

        run = Run(None, experiment, data.spec, method._replace(evaluate=broken))
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        with jax.set_mesh(mesh):
            return evaluation.measured(run, data, mesh, Restored(70, state, {}), "test")["nats/exact"]

    assert len(evaluate(1.0).examples) == data.spec.count("test")
    for value in (np.nan, -np.inf):
        with pytest.raises(NonFiniteError, match="^nats/exact is not finite at step 70, for 1 of the .* number 9 the"):
            evaluate(value)
    with pytest.raises(ValueError, match="no example of the test split counts for nats/exact"):
        evaluate(1.0, weight=0.0)


def test_without_a_network_of_its_own_a_data_set_has_the_measures_of_pixels():
    reference = evaluation.make_reference(Images("digits").load(), "test", "digits")
    values = evaluation.measure(reference.test[:50], reference)
    names = {"sharpness", "nyquist_energy", "train_distance", "closer_than_test"}
    assert set(values) == {f"{name}/n=50" for name in names}


@functools.cache
def reference_of(name):
    """A bundled set's reference of 3000 training images, which suffice, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "REFERENCE", 3000)
        return evaluation.make_reference(Images(name).load(), "test", name)


@pytest.mark.parametrize("name", ["faces", "fashion", "emoji"])
def test_real_images_are_near_and_the_baseline_is_far(name):
    reference = reference_of(name)
    images = reference.test[:200]
    values = evaluation.measure(images, reference)
    baseline = evaluation.measure(evaluation.pixel_gaussian(reference.train[:2000], 256, 200), reference)
    assert values["fd/n=200"] < 0.3 * baseline["fd/n=200"]
    assert values["precision/n=200"] > 0.8 and values["recall/n=200"] > 0.8
    assert baseline["precision/n=200"] < values["precision/n=200"]
    assert baseline["recall/n=200"] < 2 / 3 * values["recall/n=200"]
    assert values["label_variation/n=200"] < 0.5 * baseline["label_variation/n=200"]
    assert abs(values["sharpness/n=200"] - 1) < 0.15


def test_what_was_asked_for_is_counted_value_by_value():
    data = Images("faces").load()
    reference = reference_of("faces")
    image = data.read("train", np.arange(300), ("image",))["image"]
    cond = data.read("train", np.arange(300), ("attribute",))
    wanted = evaluation.labels_by_name(cond, data.spec, "faces")
    read = reference.judge.read(image)[1]
    table = evaluation.asked(wanted, read, reference.judge)
    for name in ("smiling", "long_hair", "glasses", "hat"):
        assert min(table[name]["recall/n=300"]) > 0.95 and table[name]["judge_accuracy"] >= 0.99
    wrong = {"smiling": 1 - wanted["smiling"]}
    found = evaluation.asked(wrong, read, reference.judge)
    assert set(found) == {"smiling"} and found["smiling"]["balanced_accuracy/n=300"] < 0.05


def test_what_was_asked_for_is_shown_with_its_number_of_samples(capsys):
    row = {"balanced_accuracy/n=20": 0.625, "recall/n=20": [0.25, None], "judge_accuracy": 0.875}
    reporting.show({"metrics": {}, "num": 20, "asked": {"hat": row}})
    text = capsys.readouterr().out
    assert "n=20" in text and all(word in text for word in ("hat", "0.625", "0.250 –", "0.8750"))


def test_the_values_that_samples_lack_are_named():
    judge = readers.Reader("r", ("hat", "colour"), (2, 3), {}, None)
    spec = Spec({}, {}, {}, names={"colour": ("red", "green", "blue")}, sizes={}, levels=256)
    real = np.stack([np.repeat([0, 1], [6, 4]), np.repeat([0, 1, 2], [5, 3, 2])], 1)
    read = np.stack([np.repeat([0, 1], [18, 2]), np.repeat([0, 2], [17, 3])], 1)
    assert evaluation.least_covered(real, read, judge, spec) == [
        {"label": "colour", "value": "green", "real": 0.3, "samples": 0.0},
        {"label": "hat", "value": 1, "real": 0.4, "samples": 0.1},
        {"label": "colour", "value": "blue", "real": 0.2, "samples": 0.15},
    ]
    assert evaluation.least_covered(real, real, judge, spec) == []


@pytest.mark.parametrize(("devices", "seconds"), [(1, 2.0), (8, None)])
def test_the_first_chunk_is_not_timed_and_one_alone_has_no_time(monkeypatch, devices, seconds):
    """A chunk of 3 of 5 samples on one device, of all 5 on eight; the clock moves by 6 a chunk."""
    clock = iter(range(0, 600, 6))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))

    def draw(run, mesh, state, num, seed, cond, note, chunk):
        for i in range(0, num, chunk):
            note(min(i + chunk, num))
        return {"image": np.zeros((num, 2, 2, 1), np.uint8)}

    class Quiet(contextlib.nullcontext):
        update = staticmethod(lambda done: None)

    monkeypatch.setattr(evaluation, "draw_samples", draw)
    monkeypatch.setattr(evaluation, "Progress", lambda *args, **kwargs: contextlib.nullcontext(Quiet()))
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    images, found = evaluation.timed_samples(None, mesh, None, 5, 0, None)
    assert len(images) == 5 and found == seconds


def test_what_is_left_out_of_a_comparison_is_said(monkeypatch, tmp_path, capsys):
    """Few samples, which have no time, and more features than an interval is computed for."""
    data = Images("digits").load()
    train = data.read("train", np.arange(12), ("image",))["image"]
    monkeypatch.setattr(evaluation, "timed_samples", lambda *args: (train, None))
    monkeypatch.setattr(evaluation, "BOOTSTRAP_FEATURES", 63)
    (tmp_path / "f.py").write_text("def pixels(images):\n    return images.reshape(len(images), -1)\n")
    method = Method(None, None, sample=lambda *args: None)
    run = Run(None, Experiment(ddpm.Config(), Images("digits")), data.spec, method)
    found = Restored(7, None, {})
    text = f"{tmp_path}/f.py:pixels"
    report = evaluation.evaluate(run, data, None, found, "test", num=12, features=text, against=run)
    assert report["seconds_a_sample"] is None and report["against"]["times_slower"] is None
    assert "64 features" in report["against"]["left_out"]["fd_difference/n=12"]
    assert report["num"] == 12 and "asked" not in report
    reporting.show(report)
    shown = capsys.readouterr().out
    assert "fd_difference/n=12 is left out: its interval takes hours with 64 features" in shown
    assert "f.py:pixels" in shown.replace("\n", "")
    json.loads(reporting.write(report, tmp_path).read_text())


def test_a_judge_reads_the_label_of_a_set_under_its_own_name():
    data = Images("emoji").load()
    judge = evaluation.make_reference(data, "test", "emoji").judge
    image = data.read("train", np.arange(200), ("image",))["image"]
    cond = data.read("train", np.arange(200), ("label", "tokens"))
    found = evaluation.asked(evaluation.labels_by_name(cond, data.spec, "emoji"), judge.read(image)[1], judge)
    assert (
        set(found) == {"category"} and found["category"]["balanced_accuracy/n=200"] > 0.7
    )  # images that it has trained on
    assert not evaluation.labels_by_name({"tokens": cond["tokens"]}, data.spec, "emoji")  # nobody asked for a category
