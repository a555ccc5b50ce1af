"""Several training steps in one program.

Four steps in one call of the compiled program (`--train.steps-per-call 4`, a scan) beside four calls of one step, for
the methods of images that descend, as configs have them, at a batch of 16, or of 20 where a critic descends five times.
Left out are other data, conditions and options of the same methods (vae_faces, ddpm_faces_conditional,
minibatch_fashion and their like), inversion_faces, which needs a run to start from, and what has no images.
tangent_prop_fashion starts from an encoder that is not trained, which costs as much.
"""

from functools import partial

from benchmarks.program import Program
from benchmarks.training import training

STEPS = 4


def make(config: str, batch: int, scanned: bool) -> Program:
    """Four steps of the experiment in configs/."""
    from benchmarks.pairs import ROOT
    from jaxgen import catalog
    from jaxgen.config import load_config
    from jaxgen.data import batch_at

    experiment = load_config(ROOT / "configs" / f"{config}.py")
    data = experiment.data.load()
    method = catalog.make(experiment.method, data.spec)
    read = batch_at(data, seed=0, step=0, batch_size=batch, keys=method.reads)
    call, _ = training(method, data.spec, read, STEPS if scanned else 1)

    def run() -> None:
        for _ in range(1 if scanned else STEPS):
            call()

    return Program(run)


CONFIGS = ("ddpm_faces", "ddpm_fashion", "classifier_fashion", "ae_fashion", "denoising_fashion", "contractive_fashion")
CONFIGS += ("tangent_prop_fashion", "vae_fashion", "glow_fashion", "dcgan_fashion", "sngan_faces")
WASSERSTEIN = ("wgan_fashion", "wgan_gp_fashion")
ROWS = {config: {"config": config, "batch": 16} for config in CONFIGS}
ROWS |= {config: {"config": config, "batch": 20} for config in WASSERSTEIN}
PROGRAMS = {"jaxgen, scanned": partial(make, scanned=True), "jaxgen, single": partial(make, scanned=False)}
GOAL, GOAL_TEXT = 1 / 1.1, "at most 1.1 times the single step's time"
