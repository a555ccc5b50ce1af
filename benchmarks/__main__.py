"""Runs cases in ours and in the peers, alternating, on pinned cores, and writes the medians to benchmarks/RESULTS.md.

Each program is a process of its own that stands still while another works. What counts is CPU time (children's
included), or wall time where a case says so. A round is thrown away in which others had a program's cores, all of them
together, for more than 15 % of its wall time; where CPU time on one core counts, also one in which the wall time of a
program exceeds its CPU time by more than 15 %.

    make peers                                   the peers' environment, once; for a GPU `make peers TORCH_INDEX=`
    python -m benchmarks unet_train classical    these cases; all of a CPU without a name
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cases, gpu
from benchmarks.pairs import LEAST, ROOT, Row, compare
from benchmarks.results import describe, versions, write

PEERS = ROOT / "benchmarks" / ".venv" / "bin" / "python"


def has_peers(case: Any) -> bool:
    """Whether a case needs the peers' environment."""
    return not all(program.startswith("jaxgen") for program in case.PROGRAMS)


def device_of(case: Any) -> str:
    """What a case runs on, `cpu` or `gpu`."""
    return getattr(case, "DEVICE", "cpu")


def main() -> None:
    """The command line."""
    known = sorted(module.name for module in pkgutil.iter_modules(cases.__path__))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(known))
    parser.add_argument("--row", help="only the rows whose name has this in it; nothing is written then")
    parser.add_argument("--pairs", type=int, default=LEAST, help=f"rounds to keep ({LEAST}, the least that is written)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the first core (the last)")
    parser.add_argument("--peers", type=Path, default=PEERS, help="the Python of the peers' environment")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(known):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if args.pairs < 1 or (args.pairs < LEAST and not (args.dry or args.row)):
        parser.error(f"--pairs {args.pairs}: RESULTS.md has medians of {LEAST} rounds at least; fewer go with --dry")
    available = sorted(os.sched_getaffinity(0))
    if args.core not in available:
        parser.error(f"--core {args.core}: this process may use {', '.join(map(str, available))}")
    available = [args.core, *(core for core in available if core != args.core)]
    chosen = {name: importlib.import_module(f"benchmarks.cases.{name}") for name in args.cases or known}
    if not args.cases:
        chosen = {name: case for name, case in chosen.items() if device_of(case) == "cpu"}
    if args.row and not any(args.row in row for case in chosen.values() for row in case.ROWS):
        rows = "; ".join(row for case in chosen.values() for row in case.ROWS)
        parser.error(f"no row has {args.row!r} in its name; there are: {rows}")
    if greedy := [name for name, case in chosen.items() if getattr(case, "CORES", 1) > len(available)]:
        parser.error(f"{', '.join(greedy)}: more cores are needed than this process may use, {len(available)}")
    pythons = {"jaxgen": Path(sys.executable)}
    if any(has_peers(case) for case in chosen.values()):
        if not args.peers.exists():
            parser.error(f"{args.peers} is not there: `make peers` makes the peers' environment")
        pythons["peers"] = args.peers
    on_gpu = [name for name, case in chosen.items() if device_of(case) == "gpu"]
    if on_gpu and (why := gpu.missing(pythons)):
        parser.error(f"{', '.join(on_gpu)}: a GPU is needed, and not found by {why}")
    for name, case in chosen.items():
        cores = available[: getattr(case, "CORES", 1)]
        used = pythons if has_peers(case) else {"jaxgen": pythons["jaxgen"]}
        measured: dict[str, Row] = {}
        print(f"\n{name}: {case.__doc__.splitlines()[0]}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if prepare := getattr(case, "prepare", None):
                prepare(Path(folder))
            for row in case.ROWS:
                if args.row and args.row not in row:
                    continue
                show = lambda text, row=row: print(f"\r\033[K{row}: {text}", end="", file=sys.stderr, flush=True)
                measured[row] = compare(case, row, pythons, cores, args.pairs, Path(folder), show)
                print("\r\033[K", end="", file=sys.stderr, flush=True)
                print(describe(case, row, measured[row]), flush=True)
        if not (args.dry or args.row):
            write(name, case, measured, versions(used, device_of(case)))
            if draw := getattr(case, "draw", None):
                draw(measured)


if __name__ == "__main__":
    main()
