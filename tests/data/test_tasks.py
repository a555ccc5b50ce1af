"""Made-up tasks: every answer is right, what is held out does not stand in train; prompts by hand."""

import itertools
import re

import pytest

from jaxgen.data import Text
from jaxgen.data.prompts import Example, answer_of, prompt
from jaxgen.data.tasks import COLOURS, KINDS, WORDS


def texts(name, split, num=400):
    found = (d.text for d in Text(f"tasks:{name}").documents() if d.split == split)
    return list(itertools.islice(found, num))


def test_copy():
    for text in texts("copy", "test"):
        first, second = text.split("|")
        assert first == second and re.fullmatch("[a-z]{24}", first)


def test_multitask():
    kinds = set()
    for text in texts("multitask", "train"):
        task, question, answer = re.fullmatch(r"(.*):\nq: (.*) a: (.*)", text).groups()
        kinds.add(task)
        if task == "read and answer":
            name = re.search(r"what has (\w+)\?", question)[1]
            assert f"{name} has {answer}" in question
        else:
            table = WORDS if task == "translate to french" else COLOURS
            assert answer.split() == [table[word] for word in question.split()]
    assert len(kinds) == 3


def test_mappings():
    """In every document a kind has one label, no two the same; the held-out assignments are others than train's."""
    seen = {}
    for split in ("train", "test"):
        seen[split] = set()
        for text in texts("mappings", split):
            pairs = re.findall(r"q: (\w+) a: (\w+)", text)
            assert len({word for word, _ in pairs}) == len(pairs) and 1 <= len(pairs) <= 13
            labels = [{label for word, label in pairs if word in kind.split()} for kind in KINDS]
            assert all(len(own) <= 1 for own in labels) and len(set.union(*labels)) == sum(map(len, labels))
            if all(labels):
                seen[split].add(tuple(own.pop() for own in labels))
    assert len(seen["test"]) > 10 and not seen["train"] & seen["test"]


def test_parity():
    asked = {}
    for split in ("train", "test"):
        asked[split] = set()
        with_steps = 0
        for text in texts("parity", split):
            bits, way, answer = re.fullmatch(r"q: ([01]{8}) a:( .*so:)? (odd|even)", text).groups()
            asked[split].add(bits)
            assert (answer == "odd") == bits.count("1") % 2
            if way:
                with_steps += 1
                steps = re.findall("([01]):([01])", way)
                assert "".join(bit for bit, _ in steps) == bits
                assert [int(p) for _, p in steps] == [bits[: i + 1].count("1") % 2 for i in range(8)]
        assert 120 < with_steps < 280
    assert not asked["train"] & asked["test"]


def test_an_unknown_task_gets_a_message():
    with pytest.raises(ValueError, match="did you mean parity"):
        list(Text("tasks:party").documents())


def test_prompts_by_hand():
    shots = [Example("2", "4", "2 and 2"), Example("3", "6")]
    assert prompt("5") == "q: 5 a:"
    assert prompt("5", shots[:1], "double") == "double:\nq: 2 a: 4\nq: 5 a:"
    assert prompt("5", shots, think=True) == (
        "q: 2 a: let's work this out step by step. 2 and 2. so: 4\nq: 3 a: 6\nq: 5 a: let's work this out step by step."
    )
    assert answer_of(" 10\nq: 6") == "10" and answer_of(" 5 and 5. so: 10", think=True) == "10"
