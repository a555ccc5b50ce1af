"""The league: what it ranks, what it refuses to compare, and the command on tiny runs."""

import dataclasses
import json

import numpy as np
import pytest

import harness
from jaxgen import cli
from jaxgen.data import Images
from jaxgen.metrics import repeats
from jaxgen.metrics.league import Entry, fingerprint, is_likelihood, ranked
from jaxgen.metrics.repeats import estimate


def entry(name, bits):
    return Entry(name, 1, "bits_per_dim/exact", estimate(np.stack([bits, bits]), np.ones((2, len(bits)))))


def test_models_that_find_the_same_examples_hard_are_told_apart():
    """0.05 ± 0.003 by pairs of examples, where each figure alone is known to ± 0.05."""
    rng = np.random.default_rng(0)
    hard = rng.normal(3.0, 1.0, 400)
    first, second = ranked([entry("b", hard + 0.05 + rng.normal(0, 0.05, 400)), entry("a", hard)])
    assert (first["run"], second["run"]) == ("a", "b")
    assert first["difference"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    gap = second["difference"]
    assert 0.04 < gap["low"] < gap["difference"] < gap["high"] < 0.06
    assert gap["high"] - gap["low"] == pytest.approx(4 * 0.05 / 20, rel=0.3)
    assert min(first["standard_error"], second["standard_error"]) > 0.04
    json.dumps([first, second])


def test_parts_of_a_bound_are_no_likelihoods():
    names = ("exact", "bound", "bound/k=16", "bound/variance=beta", "prior", "diffusion", "reconstruction")
    kept = [name for name in names if is_likelihood(f"bits_per_dim/{name}")]
    assert kept == list(names[:4]) and not is_likelihood("loss")


def test_a_fingerprint_knows_every_example_and_their_order():
    data = Images("digits").load()
    same, other = fingerprint(data, "test", "image"), fingerprint(data, "validation", "image")
    assert same == fingerprint(Images("digits", validation=100).load(), "test", "image") != other

    def turned(split, indices, keys):
        return data.read(split, data.spec.count(split) - 1 - indices, keys)

    assert fingerprint(data._replace(read=turned), "test", "image") != same
    levels = dataclasses.replace(data.spec, levels=256)
    assert fingerprint(data._replace(spec=levels), "test", "image") != same


def test_the_command_ranks_bounds_and_refuses_what_does_not_compare(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(repeats, "MOST_REPEATS", 3)
    vae = harness.tiny("vae")

    def train(name, validation=0.05, **options):
        method = dataclasses.replace(vae.method, **options)
        experiment = dataclasses.replace(vae, method=method, data=Images("digits", validation=validation))
        harness.train(experiment, tmp_path / name, steps=1, log_every=1, eval_every=0, sample_every=0)

    train("one", likelihood="gaussian", num_importance=1)
    train("three", validation=100, likelihood="logistic")
    train("grey", likelihood="bernoulli")
    assert cli.run_command(cli.league, ["one", "three", "--out", "league.json"]) == 0
    text = capsys.readouterr().out
    assert "test split" in text and "bound/k=3" in text
    rows = json.loads((tmp_path / "league.json").read_text())["rows"]
    values = {(row["run"], row["metric"].removeprefix("bits_per_dim/")): row["value"] for row in rows}
    assert values.keys() == {("one", "bound"), ("three", "bound"), ("three", "bound/k=3")}
    assert values["three", "bound/k=3"] < values["three", "bound"]
    assert [row["value"] for row in rows] == sorted(values.values())
    assert all(0 < row["noise"] <= row["standard_error"] < 0.2 * row["value"] for row in rows)
    for args, message in (
        (["one", "grey"], "the method of grey has no likelihood in bits/dim; it reports: loss"),
        (["one", "three", "--split", "validation"], "three and one differ in the examples of their validation split"),
    ):
        assert cli.run_command(cli.league, args) == 2
        assert message in capsys.readouterr().err
