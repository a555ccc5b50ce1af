"""Runs cases in ours and in the peers, alternating, on pinned cores, and writes the medians to benchmarks/RESULTS.md.

Each program is a process of its own that stands still while another works. What counts is CPU time (children's
included), or wall time where a case says so. A round in which others had more than 15 % of a program's time on its
cores, or its wall time exceeds its CPU time by more than 15 %, is thrown away.

    make peers                                   the peers' environment, once (PyTorch among them)
    python -m benchmarks unet_train classical    these cases; all without a name
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

from benchmarks import cases
from benchmarks.pairs import ROOT, Row, compare
from benchmarks.results import describe, versions, write

PEERS = ROOT / "benchmarks" / ".venv" / "bin" / "python"


def main() -> None:
    """The command line."""
    known = sorted(module.name for module in pkgutil.iter_modules(cases.__path__))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(known))
    parser.add_argument("--row", help="only the rows whose name has this in it; nothing is written then")
    parser.add_argument("--pairs", type=int, default=5, help="rounds to keep (5)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the first core (the last)")
    parser.add_argument("--peers", type=Path, default=PEERS, help="the Python of the peers' environment")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(known):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if not args.peers.exists():
        parser.error(f"{args.peers} is not there: `make peers` makes the peers' environment")
    pythons = {"jaxgen": Path(sys.executable), "peers": args.peers}
    available = sorted(os.sched_getaffinity(0))
    available = [args.core, *(core for core in available if core != args.core)]
    for name in args.cases or known:
        case = importlib.import_module(f"benchmarks.cases.{name}")
        cores = available[: getattr(case, "CORES", 1)]
        rows: dict[str, Row] = {}
        print(f"\n{name}: {case.__doc__.splitlines()[0]}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if prepare := getattr(case, "prepare", None):
                prepare(Path(folder))
            for row in case.ROWS:
                if args.row and args.row not in row:
                    continue
                show = lambda text, row=row: print(f"\r\033[K{row}: {text}", end="", file=sys.stderr, flush=True)
                rows[row] = compare(name, case, row, pythons, cores, args.pairs, Path(folder), show)
                print("\r\033[K", end="", file=sys.stderr, flush=True)
                print(describe(case, row, rows[row]), flush=True)
        if not (args.dry or args.row):
            write(name, case, rows, versions(pythons))
            if draw := getattr(case, "draw", None):
                draw(rows)


if __name__ == "__main__":
    main()
