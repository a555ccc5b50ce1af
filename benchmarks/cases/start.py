"""Start and resumption.

`train.py` as a process of its own that does one step, saves and ends, on one core: imports, data, compilation, and what
a save takes are in it. `resumed` goes on from a checkpoint. The cache is JAX's of compiled programs
(`--train.compilation-cache`). Wall time; there is no peer.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.pairs import ROOT
from benchmarks.program import Program


def jaxgen(config: str, cache: bool, resumed: bool) -> Program:
    """One step, of a new run or of one that goes on; the first call, which is not counted, fills the cache."""
    folder = Path(mkdtemp(dir=".")).absolute()
    options = ["--train.sample-every", "0", "--train.eval-every", "0"]
    options += ["--train.compilation-cache", str(folder / "cache") if cache else ""]
    done = {"calls": 0}

    def run() -> None:
        done["calls"] += 1
        workdir = folder / ("run" if resumed else f"run{done['calls']}")
        steps = str(done["calls"] if resumed else 1)
        command = [sys.executable, ROOT / "train.py", ROOT / "configs" / f"{config}.py", "--workdir", workdir]
        subprocess.run([*command, "--train.steps", steps, *options], check=True, stdout=subprocess.DEVNULL)

    return Program(run)


KINDS = {
    "without the cache": {"cache": False, "resumed": False},
    "with the cache": {"cache": True, "resumed": False},
    "resumed, with the cache": {"cache": True, "resumed": True},
}
ROWS = {
    f"{config}, {kind}": {"config": config, **options}
    for config in ("ddpm_faces", "word2vec_speeches")
    for kind, options in KINDS.items()
}
PROGRAMS = {"jaxgen": jaxgen}
CLOCK = "wall"
