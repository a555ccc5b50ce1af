"""Start and resumption.

`train.py` as a process of its own on one core, from its start until the first step stands in metrics.jsonl: imports,
data and compilation are in it, no save. `resumed` restores a checkpoint of one step and does the second. The cache is
JAX's of compiled programs (`--train.compilation-cache`), filled before. Wall time; there is no peer.
"""

import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp

from benchmarks.pairs import ROOT
from benchmarks.program import Program


def jaxgen(config: str, cache: bool, resumed: bool) -> Program:
    """The first step of a new run, or the second of one that goes on."""
    folder = Path(mkdtemp(dir=".")).absolute()
    workdir, saved, steps = folder / "run", folder / "saved", 2 if resumed else 1
    options = ["--train.sample-every", "0", "--train.eval-every", "0"]
    options += ["--train.compilation-cache", str(folder / "cache") if cache else ""]

    def start(steps: int) -> subprocess.Popen:
        command = [sys.executable, ROOT / "train.py", ROOT / "configs" / f"{config}.py", "--workdir", workdir]
        return subprocess.Popen([*command, "--train.steps", str(steps), *options], stdout=subprocess.DEVNULL)

    def prepare() -> None:
        rmtree(workdir, ignore_errors=True)
        if resumed:
            copytree(saved, workdir)

    def run() -> None:
        process = start(steps)
        while not logged(workdir / "metrics.jsonl", steps):
            if process.poll() is not None:
                raise RuntimeError(f"train.py has ended with {process.returncode} before its step {steps}")
            time.sleep(0.005)
        process.kill()  # before it saves; its CPU time counts once it is reaped
        process.wait()

    if cache or resumed:
        if code := start(1).wait():
            raise RuntimeError(f"train.py has ended with {code}")
        workdir.rename(saved)
    prepare()
    return Program(run, after=prepare)


def logged(path: Path, step: int) -> bool:
    """Whether a run has logged a step."""
    return path.exists() and f'{{"step": {step},' in path.read_text("utf-8")


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
