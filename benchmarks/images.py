"""Models of bundled images in ours and in PyTorch: a training step of each, and how well a short training does.

Either draws 64 images from the same training split for a step, with AdamW, gradients clipped to a norm of 1 and a rate
that rises for `WARMUP` steps; the measured steps see one batch again and again. Afterwards both train anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.program import Program
from benchmarks.training import step_facts, torch_facts, torch_training, training

BATCH, WARMUP = 64, 50


def prepare(folder: Path, names: Sequence[str]) -> None:
    """Writes the `train` and `test` images of bundled sets, uint8 [N, H, W, C], for the peers."""
    import numpy as np

    from jaxgen.data import Images

    for name in names:
        data = Images(name, validation=0).load()
        read = lambda split, data=data: data.read(split, np.arange(data.spec.counts[split]), ("image",))["image"]
        np.savez(folder / f"{name}.npz", train=read("train"), test=read("test"))


def optimizer(rate: float):
    """Ours, with the settings that the peers have."""
    from jaxgen.optimizer import AdamWConfig

    return AdamWConfig(learning_rate=rate, warmup_steps=WARMUP)


def jaxgen(config: Any, data: str, steps: int, metric: str, label: str) -> Program:
    """A step of the method that `config` describes; `metric` of the test split after `steps` steps, as `label`."""
    import jax
    import numpy as np

    from jaxgen import catalog
    from jaxgen.data import Images, batch_at

    images = Images(data, validation=0).load()
    method = catalog.make(config, images.spec)
    read = lambda step: batch_at(images, seed=0, step=step, batch_size=BATCH, keys=("image",))
    run, abstract = training(method, images.spec, read(0))

    def trained() -> float:
        root = jax.random.key(0)
        step = jax.jit(method.step, donate_argnums=0)
        score = jax.jit(lambda *args: method.evaluate(*args)[metric][0])  # the other metrics are not computed
        state = jax.jit(method.init)(root, read(0))
        for number in range(steps):
            state, _ = step(state, read(number), jax.random.fold_in(root, number))
        rows = np.split(np.arange(images.spec.counts["test"]), 8)
        return float(np.mean([score(state, images.read("test", r, ("image",)), root) for r in rows]))

    facts = lambda: step_facts(method, abstract, images.spec.batch(BATCH, ("image",))) | {label: trained()}
    return Program(run, facts)


def torch_program(
    make: Callable[[], Any],
    loss_fn: Callable[[Any, Any], Any],
    data: str,
    rate: float,
    steps: int,
    label: str,
    compiled: bool = False,
    ema_decay: float = 0.0,
    scale: float = 1.0,
) -> Program:
    """The same of a model in PyTorch.

    Args:
      make: gives the model.
      loss_fn: `(model, uint8 images [B, C, H, W]) -> the mean loss`; of the test split it is what is told.
      data: the bundled set.
      rate: the peak rate.
      steps: of the training.
      label: what the test loss is called.
      compiled: whether `torch.compile` makes forward and backward passes; it trains no second time.
      ema_decay: of the weights' average, which is then judged; 0 for none.
      scale: factor from the loss to what is told.
    """
    import numpy as np
    import torch

    with np.load(f"{data}.npz") as saved:
        images = {split: torch.from_numpy(saved[split]).permute(0, 3, 1, 2) for split in saved.files}

    def stepper() -> tuple[Any, list[Any], Callable[[Any], float]]:
        torch.manual_seed(0)
        model = make().to(memory_format=torch.channels_last)  # as the images are; the faster layout
        loss_fn(model, images["train"][:BATCH])  # what depends on a first batch is settled, before anything compiles
        loss_of = torch.compile(lambda x: loss_fn(model, x)) if compiled else lambda x: loss_fn(model, x)
        step, average = torch_training(model, loss_of, rate, WARMUP, ema_decay)
        return model, average, step

    model, _, step = stepper()
    batch = images["train"][:BATCH]

    def facts() -> dict[str, float]:
        count = torch_facts(model)
        if compiled:
            return count
        judged, average, step = stepper()
        for number in range(steps):
            if number % (len(images["train"]) // BATCH) == 0:
                order = iter(torch.randperm(len(images["train"])).split(BATCH))
            step(images["train"][next(order)])
        with torch.no_grad():
            for p, mean in zip(judged.parameters(), average, strict=False):
                p.copy_(mean)
            losses = [loss_fn(judged, x).item() for x in images["test"].chunk(8)]
        return count | {label: scale * float(np.mean(losses))}

    return Program(lambda: step(batch), facts)
