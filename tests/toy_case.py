"""A case of the benchmarks whose programs do nothing but write down that they ran."""

import sys
from functools import partial

from benchmarks.program import Program

if hasattr(sys.modules["__main__"], "LEAST"):  # in a program's own process: a measurement is one call
    sys.modules["__main__"].LEAST = 1e-9


def make(name: str, fails: bool) -> Program:
    """A program that prints what its parent must not take for an answer."""
    if fails and name == "b":
        raise ValueError("no such thing as a peer")

    def run() -> None:
        print("not an answer")
        with open("order.txt", "a") as file:
            file.write(name)

    return Program(run, facts=lambda: {"told": 1.0})


def judge(program: str, folder, fails: bool) -> dict[str, float]:
    """What the programs left behind."""
    return {"runs": float((folder / "order.txt").read_text().count(program[-1]))}


ROWS = {"works": {"fails": False}, "fails": {"fails": True}}
PROGRAMS = {"jaxgen a": partial(make, "a"), "b": partial(make, "b")}
CLOCK = "wall"
