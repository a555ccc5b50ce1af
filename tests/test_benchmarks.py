"""Benchmarks: what counts as disturbed, medians and ratios, and a results file whose other sections stay."""

from __future__ import annotations

import types

import pytest

from benchmarks import results
from benchmarks.pairs import Row, quiet


@pytest.mark.parametrize(
    ("cpu", "wall", "others", "alone", "fine"),
    [
        (1.0, 1.1, 0.1, True, True),
        (1.0, 1.2, 0.0, True, False),  # it waited for its core
        (1.9, 1.0, 0.0, False, True),  # two cores
        (1.9, 1.0, 0.2, False, False),  # others had a part of them
        (0.1, 1.0, 0.0, False, True),  # it waited for the disk
    ],
)
def test_a_round_that_others_disturbed_is_thrown_away(cpu, wall, others, alone, fine):
    assert quiet({"cpu": cpu, "wall": wall, "others": others}, alone) == fine


def row(seconds: float) -> Row:
    facts = {"jaxgen": {"parameters": 12.0, "error": 0.5}, "peer": {"parameters": 12.0, "error": 0.25}}
    return Row({"jaxgen": seconds, "peer": 0.02}, {"peer": [0.5, 3.0, 2.0]}, facts, 3, 4)


def test_a_row_has_medians_ranges_and_what_was_missed():
    text = results.describe("small", row(0.01), goal=2.5)
    assert "jaxgen 10 ms, peer 20 ms" in text and "peer 2.00 (0.50 … 3.00)" in text and "3 of 4 rounds" in text
    assert "below the goal of 2.50" in text and "below" not in results.describe("small", row(0.01), goal=2.0)
    assert "parameters 12; error 0.5 (jaxgen), 0.25 (peer)" in text


def test_a_case_replaces_its_own_section_only(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")

    def write(name, seconds):
        case = types.SimpleNamespace(__doc__=f"{name}.\n\nWhat it is.\n", PROGRAMS={"jaxgen": None, "peer": None})
        results.write(name, case, {"small": row(seconds)}, "a machine")

    write("First", 0.001)
    write("Second", 0.002)
    write("First", 0.003)
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert text.startswith("# Benchmarks") and text.index("## First") < text.index("## Second")
    assert text.count("## First") == 1 and "| small | 3 ms | 20 ms |" in text and "| small | 2 ms |" in text
    assert "| small | 1 ms |" not in text
