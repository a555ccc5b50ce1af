"""U-Net: what a training step costs.

The step of `unet_train` at width 32 against the batch, the images' size and the number of simulated devices; those
share the one core, so that what they cost is what splitting a batch costs. There is no peer.

![CPU time against batch, images' size and devices](../docs/images/costs.png)
"""

from benchmarks import unets
from benchmarks.pairs import ROOT

AXES = {"batch": (4, 8, 16, 32, 64), "side": (16, 32, 48, 64), "num_devices": (1, 2, 4, 8)}
LABELS = {"batch": "images in a batch", "side": "pixels along a side", "num_devices": "simulated devices, one core"}
USUAL = {"batch": unets.SMALL.batch, "side": unets.SMALL.side, "num_devices": 1}
PICTURE = ROOT / "docs" / "images" / "costs.png"


def name(batch: int, side: int, num_devices: int) -> str:
    """The name of a row."""
    return f"batch {batch}, {side}×{side}, {num_devices} device{'s' * (num_devices > 1)}"


OPTIONS = {name(**o): o for axis, values in AXES.items() for o in (USUAL | {axis: value} for value in values)}
ROWS = {row: {"width": 32, **options} for row, options in OPTIONS.items()}
PROGRAMS = {"jaxgen": unets.jaxgen_train}
WORK = {row: (options["batch"], "images") for row, options in OPTIONS.items()}


def draw(rows) -> None:
    """A picture of the seconds a step along each axis; a row that has none is a gap."""
    from matplotlib.figure import Figure

    from jaxgen.report.atomic import replacing

    figure = Figure(figsize=(12, 3.6), dpi=110, layout="constrained")
    for axes, (axis, values) in zip(figure.subplots(1, len(AXES)), AXES.items(), strict=True):
        names = [name(**USUAL | {axis: value}) for value in values]
        seconds = [rows[row].seconds.get("jaxgen", float("nan")) for row in names]
        axes.plot(values, seconds, marker=".")
        axes.set_xlabel(LABELS[axis])
        axes.set_xticks(values)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    figure.supylabel("CPU seconds a step", fontsize=10)
    with replacing(PICTURE) as file:
        figure.savefig(file, format="png")
