"""Several training steps in one program.

Four steps in one call of the compiled program (`--train.steps-per-call 4`, a scan) beside four calls of one step, for
the convolutional methods as their configs have them, at a batch of 16. The scan may take a tenth longer at most.
"""

from functools import partial

from benchmarks.program import Program
from benchmarks.training import training

BATCH, STEPS = 16, 4


def make(config: str, scanned: bool) -> Program:
    """Four steps of the experiment in configs/."""
    from benchmarks.pairs import ROOT
    from jaxgen import catalog
    from jaxgen.config import load_config
    from jaxgen.data import batch_at

    experiment = load_config(ROOT / "configs" / f"{config}.py")
    data = experiment.data.load()
    method = catalog.make(experiment.method, data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=BATCH, keys=method.reads)
    call, _ = training(method, data.spec, batch, STEPS if scanned else 1)

    def run() -> None:
        for _ in range(1 if scanned else STEPS):
            call()

    return Program(run)


CONFIGS = ("ddpm_faces", "ddpm_fashion", "classifier_fashion", "ae_fashion", "vae_fashion", "glow_fashion")
ROWS = {config: {"config": config} for config in CONFIGS}
PROGRAMS = {"jaxgen, scanned": partial(make, scanned=True), "jaxgen, single": partial(make, scanned=False)}
GOAL = 1 / 1.1
