"""Benchmarks: what counts as disturbed, medians and ratios, and a results file whose other sections stay."""

from __future__ import annotations

import subprocess
import sys
import time
import types

import pytest
from PIL import Image

from benchmarks import child, results
from benchmarks.cases import costs
from benchmarks.pairs import ROOT, Row, quiet
from benchmarks.program import Program


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


SMALL = types.SimpleNamespace(
    __doc__="Small.\n\nWhat it is.\n",
    PROGRAMS={"jaxgen": None, "peer": None},
    ROWS={"small": {}},
    GOAL={"small": 2.5},
    WORK={"small": (5, "images")},
)


def row(seconds: float) -> Row:
    facts = {"jaxgen": {"parameters": 12.0, "error": 0.5}, "peer": {"parameters": 12.0, "error": 0.25}}
    return Row({"jaxgen": seconds, "peer": 0.02}, {"peer": [0.5, 3.0, 2.0]}, facts, 3, 4)


def test_a_row_has_medians_ranges_and_what_was_missed():
    text = results.describe(SMALL, "small", row(0.01))
    assert "jaxgen 10 ms, peer 20 ms" in text and "peer 2.00 (0.50 … 3.00)" in text and "3 of 4 rounds" in text
    assert "below the goal of 2.50" in text
    assert "below" not in results.describe(SMALL, "another", Row(*row(0.01)))  # the goal of 1 is every other row's
    assert "images/s 500 (jaxgen), 250 (peer); parameters 12; error 0.5 (jaxgen), 0.25 (peer)" in text


def test_a_case_without_peers_has_times_alone():
    case = types.SimpleNamespace(__doc__="Alone.\n", PROGRAMS={"jaxgen": None}, ROWS={"small": {}})
    alone = Row({"jaxgen": 0.01}, {}, {"jaxgen": {"bytes": 12_345_678.0}}, 5, 5)
    assert results.describe(case, "small", alone) == "small: jaxgen 10 ms [5 of 5 rounds]\n  bytes 12,345,678"
    text = results.section("alone", case, {"small": alone}, "a machine")
    assert "|  | jaxgen | rounds |" in text and "| small | 10 ms | 5 of 5 |" in text
    assert "oal" not in text and "ratio" not in text


def test_what_a_program_leaves_in_the_background_is_not_timed():
    calls = []
    program = Program(lambda: calls.append("run"), after=lambda: (calls.append("after"), time.sleep(0.05)))
    assert child.measure(program, 3, [0])["wall"] < 0.03
    assert calls == ["run", "after"] * 3
    assert child.measure(Program(lambda: time.sleep(0.05)), 2, [0])["wall"] >= 0.05


def test_cases_load_without_either_environment_and_are_whole():
    """The peers' environment has no JAX, and ours no peers: neither NumPy nor anything beyond it may be needed."""
    code = (
        "import sys, pkgutil, importlib\n"
        "for name in ('numpy', 'jax', 'jaxgen', 'torch', 'sklearn', 'gensim', 'matplotlib'): sys.modules[name] = None\n"
        "from benchmarks import cases\n"
        "for module in pkgutil.iter_modules(cases.__path__):\n"
        "    case = importlib.import_module(f'benchmarks.cases.{module.name}')\n"
        "    assert case.ROWS and next(iter(case.PROGRAMS)).startswith('jaxgen'), module.name\n"
        "    assert set(getattr(case, 'WORK', {})) <= set(case.ROWS), module.name\n"
        "    goal = getattr(case, 'GOAL', 1.0)\n"
        "    assert not isinstance(goal, dict) or set(goal) <= set(case.ROWS), module.name\n"
        "    print(module.name, case.__doc__.splitlines()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list((ROOT / "benchmarks" / "cases").glob("[a-z]*.py")))


def test_costs_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "PICTURE", tmp_path / "costs.png")
    costs.draw({name: Row({"jaxgen": 0.1 * i}, {}, {}, 5, 5) for i, name in enumerate(costs.ROWS, 1)})
    with Image.open(tmp_path / "costs.png") as picture:
        assert picture.size[0] > picture.size[1]
    disturbed = Row({}, {}, {}, 0, 30)
    costs.draw(dict.fromkeys(costs.ROWS, disturbed))  # a gap


def test_a_case_replaces_its_own_section_only(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")

    def write(name, seconds):
        case = types.SimpleNamespace(**{**vars(SMALL), "__doc__": f"{name}.\n\nWhat it is.\n"})
        results.write(name, case, {"small": row(seconds)}, "a machine")

    write("First", 0.001)
    write("Second", 0.002)
    write("First", 0.003)
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert text.startswith("# Benchmarks") and text.index("## First") < text.index("## Second")
    assert text.count("## First") == 1 and "| small | 3 ms | 20 ms |" in text and "| small | 2 ms |" in text
    assert "| small | 1 ms |" not in text
