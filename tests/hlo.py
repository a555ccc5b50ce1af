"""Reading a compiled program: which arrays cross devices, and how much of what was gathered is alive at a time."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8, "u64": 8}


class Instruction(NamedTuple):
    """One line of a computation; `arrays` are the (dtype, dimensions) of its result."""

    name: str
    op: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    operands: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(BYTES[dtype] * math.prod(dims) for dtype, dims in self.arrays)


def computations(text: str) -> list[list[Instruction]]:
    """The computations of a scheduled module, each in the order of its schedule."""
    assert "is_scheduled=true" in text[: text.index("\n")]
    found: list[list[Instruction]] = []
    for line in text.splitlines():
        if re.match(r"(ENTRY )?%?[\w.\-]+ .*\{$", line):
            found.append([])
        elif match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$", line):
            name, result, op, rest = match.groups()
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
            dims = tuple((dtype, tuple(map(int, filter(None, d.split(","))))) for dtype, d in arrays if dtype in BYTES)
            found[-1].append(Instruction(name, op, dims, tuple(re.findall(r"%([\w.\-]+)", rest.split("), ")[0]))))
    return found


MOVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def crossing(text: str, ops: tuple[str, ...] = MOVES) -> list[tuple[str, tuple[int, ...]]]:
    """Operation and dimensions of every array that comes from other devices."""
    every = [instruction for computation in computations(text) for instruction in computation]
    found = [(i.op.removesuffix("-start"), dims) for i in every for _, dims in i.arrays]
    return [(op, dims) for op, dims in found if op in ops]


def peak_of_gathered(text: str) -> int:
    """Most bytes, at any place of the schedule, of arrays gathered from other devices and of their rearrangements.

    An array counts that is an all-gather's result, or is computed of such alone (a transpose or cast of a parameter);
    it lives from its instruction to the last one that reads it, or a view of it.
    """
    peak = 0
    for computation in computations(text):
        place = {instruction.name: i for i, instruction in enumerate(computation)}
        last = list(range(len(computation)))
        for i, instruction in reversed(list(enumerate(computation))):  # a view's readers come before the view
            for name in instruction.operands:
                if name in place:
                    view = instruction.op in ("bitcast", "get-tuple-element", "tuple")
                    last[place[name]] = max(last[place[name]], last[i] if view else i)
        gathered: set[str] = set()
        alive = [0] * len(computation)
        for i, instruction in enumerate(computation):
            known = [name for name in instruction.operands if name in place]
            constant = {name for name in known if computation[place[name]].op == "constant"}
            derived = set(known) - constant and set(known) <= gathered | constant
            if not (instruction.op.startswith("all-gather") or derived):
                continue
            gathered.add(instruction.name)
            if instruction.op not in ("bitcast", "get-tuple-element", "tuple"):
                for j in range(i, last[i] + 1):
                    alive[j] += instruction.num_bytes
        peak = max([peak, *alive])
    return peak
