"""A method that shows which batches it was given: their checksum in every step's metrics, the last one in its state.

Plain SGD, so that the final state agrees on any devices; the batch in the state is split over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from jaxgen import catalog
from jaxgen.checksum import checksum
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import SOURCES, Dataset, Spec, Toy
from jaxgen.method import Method, gradient_method
from toy_methods import dense, mlp


@dataclass(frozen=True)
class Config:
    width: int = 16


def make(cfg: Config, spec: Spec) -> Method:
    """Undoes noise on points in the plane."""

    def init_params(key, batch, warm=None):
        key_a, key_b = jax.random.split(key)
        return [dense(key_a, 2, cfg.width), dense(key_b, cfg.width, 2)]

    def loss_fn(params, batch, noise):
        return jnp.mean((mlp(params, batch["x"] + 0.3 * noise) - batch["x"]) ** 2), {"rows": checksum(batch["x"])}

    def sample(state, key, num, cond=None):
        return {"x": mlp(state["params"], jax.random.normal(key, (num, 2)))}

    def evaluate(state, batch, key):
        return {"loss": (jnp.sum((mlp(state["params"], batch["x"]) - batch["x"]) ** 2, 1), jnp.ones(len(batch["x"])))}

    draw = lambda key, batch: jax.random.normal(key, batch["x"].shape)
    inner = gradient_method(init_params, loss_fn, optax.sgd(0.3), sample, evaluate, draw=draw, reads=("x",))

    def kept(batch):
        """The batch, and multiples of it: so much that a checkpoint has files of its own for each process's rows."""
        return {"batch": batch["x"][:, None] * (1 + jnp.arange(64.0) ** 0.5)[None, :, None]}  # [B, 64, 2]

    def init(key, batch, warm=None):
        return inner.init(key, batch) | kept(batch)

    def step(state, batch, key):
        new, metrics = inner.step(state, batch, key)
        return new | kept(batch), metrics

    return inner._replace(init=init, step=step, rules=((r"^batch$", P(("data", "fsdp"), None, None)),))


@dataclass(frozen=True)
class Torn:
    """The ring, of which one process cannot read more than the first batches."""

    process: int = 1
    good: int = 3

    def load(self) -> Dataset:
        data, num_read = Toy("ring").load(), 0

        def read(split: str, indices: np.ndarray, keys: tuple[str, ...]):
            nonlocal num_read
            num_read += 1
            if jax.process_index() == self.process and num_read > self.good:
                raise OSError("the disk of one machine is gone")
            return data.read(split, indices, keys)

        return data._replace(read=read)


# Every number of devices from 2 on that divides the batch; the parameters are split too.
EXPERIMENT = Experiment(
    Config(),
    Toy("ring", size=320),
    TrainConfig(
        steps=8, batch_size=16, log_every=1, sample_every=4, save_every=4, eval_every=4, num_samples=8, keep_last=9
    ),
    MeshConfig(data=-1, fsdp=2, min_shard_size=8),
)


def register() -> None:
    catalog.CATALOG["echo"] = (Config, make)
    SOURCES["torn"] = Torn
