"""Prompts as text: no, one or a few examples before a question, and a way to the answer before the answer.

A model that continues text is told by its prompt what to do: by a task in words (Radford et al. 2019), by examples
(Brown et al. 2020, arXiv 2005.14165: zero-, one- and few-shot), or to write down the steps first (Wei et al. 2022,
arXiv 2201.11903; Kojima et al. 2022, arXiv 2205.11916). No parameter changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

THINK = "let's work this out step by step."


class Example(NamedTuple):
    """A question, its answer, and how one gets there, "" where nobody says."""

    question: str
    answer: str
    reasoning: str = ""


def prompt(question: str, examples: Sequence[Example] = (), task: str = "", think: bool = False) -> str:
    """The text before an answer.

    Args:
      question: what is asked.
      examples: answered ones that stand before it: none, one or a few.
      task: what is to be done, in words; stands first.
      think: whether the way to the answer is to be written down first, and stands in the examples as well.
    """
    lines = [f"{task}:"] if task else []
    for example in examples:
        way = f" {THINK} {example.reasoning}. so:" if think and example.reasoning else ""
        lines.append(f"q: {example.question} a:{way} {example.answer}")
    lines.append(f"q: {question} a:" + (f" {THINK}" if think else ""))
    return "\n".join(lines)


def answer_of(continuation: str, think: bool = False) -> str:
    """The answer in what a model wrote behind a prompt: its first line, or what follows the way to it."""
    line = continuation.partition("\n")[0]
    return (line.rpartition("so:")[2] if think else line).strip()
