"""Benchmarks: what counts as disturbed, medians and ratios, and a results file whose other sections stay."""

from __future__ import annotations

import collections
import math
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy_case
from benchmarks import __main__ as command
from benchmarks import child, pairs, results, text_rates
from benchmarks.cases import costs, start
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
    return Row({"jaxgen": seconds, "peer": 0.02}, {"peer": [0.5, 3.0, 2.0]}, facts, 3, 4, asked=3)


def test_a_row_has_medians_ranges_and_what_was_missed():
    text = results.describe(SMALL, "small", row(0.01))
    assert "jaxgen 10 ms, peer 20 ms" in text and "peer 2.00 (0.50 … 3.00)" in text and "3 of 4 rounds" in text
    assert "below the goal of 2.50" in text
    assert "below" not in results.describe(SMALL, "another", Row(*row(0.01)))  # the goal of 1 is every other row's
    assert "images/s 500 (jaxgen), 250 (peer); parameters 12; error 0.5 (jaxgen), 0.25 (peer)" in text


def test_a_row_with_too_few_rounds_says_so():
    few = Row(*row(0.01))._replace(asked=5)
    assert "[3 of 4 rounds, fewer than 5]" in results.describe(SMALL, "small", few)
    assert "| 3 of 4, fewer than 5 |" in results.section("small", SMALL, {"small": few}, "a machine")


def test_a_row_without_rounds_is_not_measured():
    """It is neither reached nor missed, and does not take the other rows with it."""
    none = Row({}, {"peer": []}, {"jaxgen": {"bytes": 1.0}, "peer": {}}, 0, 30)
    text = results.section("small", SMALL, {"small": none, "another": row(0.01)}, "a machine")
    assert "| small | not measured | not measured |  | 0 of 30, fewer than 5 |" in text
    assert "Goal of 1.00: reached." in text  # of the other
    assert "oal" not in results.section("small", SMALL, {"small": none}, "a machine")


def test_a_goal_may_have_words_of_its_own():
    case = types.SimpleNamespace(**{**vars(SMALL), "GOAL": 1 / 1.1, "GOAL_TEXT": "at most 1.1 times"})
    assert "Goal of at most 1.1 times: reached." in results.section("small", case, {"small": row(0.01)}, "")
    slow = row(0.01)._replace(ratios={"peer": [0.5]})
    assert "Below the goal: small (goal at most 1.1 times)." in results.section("small", case, {"small": slow}, "")


def test_utilisation_is_the_share_of_the_peak():
    """989 TFLOP/s for 10 ms are 9.89 TFLOP; the peer does the same work in twice the time."""
    found = Row({"jaxgen": 0.01, "peer": 0.02}, {"peer": [2.0]}, {"jaxgen": {}, "peer": {"peak GB": 2.0}}, 5, 5)
    assert "MFU" not in results.describe(SMALL, "small", found)
    found.facts["jaxgen"].update({"GFLOP": 4945.0, "peak TFLOP/s": 989.0})
    assert "MFU 0.5 (jaxgen), 0.25 (peer)" in results.describe(SMALL, "small", found)


def test_a_case_without_facts_leaves_no_gap():
    case = types.SimpleNamespace(__doc__="Bare.\n\nText.\n", PROGRAMS={"jaxgen": None, "peer": None}, ROWS={"a": {}})
    bare = Row({"jaxgen": 1.0, "peer": 2.0}, {"peer": [2.0]}, {"jaxgen": {}, "peer": {}}, 5, 5)
    assert "\n\n\n" not in results.section("bare", case, {"a": bare}, "a machine")


def test_a_section_names_the_commit_and_its_changes(tmp_path, monkeypatch):
    def git(*args):
        options = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *options, *args], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.commit() == ""  # no repository
    git("init", "-q")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("old")
    (tmp_path / "code.py").write_text("old")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("new")  # by the run itself
    clean = results.commit()
    assert re.fullmatch(r", commit [0-9a-f]{10}", clean) and clean[9:] in git("rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("new")
    assert results.commit() == clean + " + changes"


def test_cpu_time_is_finer_than_a_tick():
    begin = child.used()
    spent = [child.used() - begin for _ in range(1000)]
    assert any(0 < seconds < 0.01 for seconds in spent)


PYTHONS = {"jaxgen": Path(sys.executable), "peers": Path(sys.executable)}


@pytest.fixture
def toys(monkeypatch):
    """Has the programs find the case where pytest does."""
    monkeypatch.setattr(pairs, "ROOT", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    return [min(os.sched_getaffinity(0))]


def test_programs_take_turns_and_disturbed_rounds_are_left_out(toys, tmp_path, monkeypatch):
    verdicts, asked = iter([True, True, False, False, True, True]), []
    monkeypatch.setattr(pairs, "quiet", lambda times, alone: asked.append((times["wall"], alone)) or next(verdicts))
    found = pairs.compare(toy_case, "works", PYTHONS, toys, 2, tmp_path, lambda text: None)
    # The first of two programs settles a round that was disturbed, the second and the third.
    assert (found.kept, found.rounds, found.asked) == (2, 4, 2)
    order = (tmp_path / "order.txt").read_text()
    assert order == "aaabbb" + "ab" + "ba" + "ab" + "ba"  # three calls each before anything counts
    assert not any(alone for _, alone in asked)  # wall time: nothing is said of waiting
    assert [len(values) for values in found.ratios.values()] == [2]
    walls = [wall for wall, _ in asked]
    assert found.ratios["b"][0] == pytest.approx(walls[1] / walls[0])
    assert found.facts["jaxgen a"] == {"told": 1.0, "runs": 7.0} == found.facts["b"]


def test_a_row_whose_rounds_were_all_disturbed_is_empty(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "quiet", lambda times, alone: False)
    monkeypatch.setattr(pairs, "MOST", 2)
    found = pairs.compare(toy_case, "works", PYTHONS, toys, 1, tmp_path, lambda text: None)
    assert (found.seconds, found.ratios, found.kept, found.rounds) == ({}, {"b": []}, 0, 2)


def test_a_program_that_dies_shows_its_log(toys, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)b has ended:.*no such thing as a peer"):
        pairs.compare(toy_case, "fails", PYTHONS, toys, 1, tmp_path, lambda text: None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["scanned", "--row", "nothing"], "no row has 'nothing' in its name; there are: ddpm_faces"),
        (["nothing"], "no case nothing"),
        (["classical", "--peers", "missing"], "make peers"),
        (["scanned", "--pairs", "3"], "fewer go with --dry"),
        (["unet_two_cores"], "more cores are needed"),
        (["gpu_attention", "--peers", sys.executable], "a GPU is needed, and not found by jaxgen: "),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(options, why, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0} if "unet_two_cores" in options else {0, 1})
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and why in " ".join(capsys.readouterr().err.split())


def test_a_case_without_peers_runs_without_their_environment(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "scanned", "--row", "ddpm_faces", "--peers", "missing"])
    monkeypatch.setattr(command, "compare", lambda *args: Row({}, {}, {}, 0, 30))
    command.main()
    assert "ddpm_faces: every one of 30 rounds was disturbed" in capsys.readouterr().out


def test_a_start_ends_with_the_line_of_its_step(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert not start.logged(log, 1)
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 12, "loss": 2.0}\n')
    assert start.logged(log, 1) and not start.logged(log, 2)


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


def test_an_n_gram_models_bits_are_those_of_its_formula():
    """By counting in a dictionary, byte by byte."""
    train, test = [b"abracadabra", b"abba"], [b"cab", b"abracab"]
    counts = collections.Counter()
    for order in range(3):
        for document in train:
            padded = bytes(order) + document
            counts.update((padded[i : i + order], padded[i + order]) for i in range(len(document)))

    def probability(context, byte):
        if context is None:
            return 1 / 256
        behind = {x: num for (known, x), num in counts.items() if known == context}
        shorter = probability(context[1:] if context else None, byte)
        return (
            (behind.get(byte, 0) + len(behind) * shorter) / (sum(behind.values()) + len(behind)) if behind else shorter
        )

    for order, found in enumerate(text_rates.ngram_bits(train, test, range(1, 3))):
        bits = [
            -math.log2(probability((bytes(order) + text)[i : i + order], text[i]))
            for text in test
            for i in range(len(text))
        ]
        assert found == pytest.approx(np.mean(bits), rel=1e-6)
