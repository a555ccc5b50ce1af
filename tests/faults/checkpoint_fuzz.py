"""Reads a small run's checkpoints with random damage, so many times: `python checkpoint_fuzz.py DIR SEED NUM`.

A process of its own: a crash in the C++ below would end it. Prints how often which step came back, or none.
"""

import collections
import json
import logging
import random
import shutil
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.checkpoint import Checkpoints
from jaxgen.config import MeshConfig
from jaxgen.sharding import make_mesh, replicated


def state(step):
    """Arrays small and large enough to lie in the database's own file and in a file beside it."""
    w = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (32, 32))
    return {"params": {"w": w, "b": jnp.full(4, step + 0.5)}, "count": jnp.int32(step)}


def damage(files: list[Path], rng: random.Random) -> None:
    """Flips a bit of a file, cuts, empties, lengthens, deletes it, or puts another file's bytes in its place."""
    file = rng.choice(files)
    data = file.read_bytes() if file.exists() else b""
    place = rng.randrange(len(data) + 1)
    match rng.randrange(6):
        case 0 | 1 if place < len(data):
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 2:
            data = data[:place]
        case 3:
            data = b""
        case 4:
            return file.unlink(missing_ok=True)
        case _ if rng.random() < 0.5:
            data = data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:]
        case _:
            other = rng.choice(files)
            data = other.read_bytes() if other.exists() else b""
    file.write_bytes(data)


def main(directory: Path, seed: int, num: int) -> None:
    """See the module."""
    logging.disable()  # Orbax reports what it meets as errors of its own
    rng, counts, steps = random.Random(seed), collections.Counter(), (1, 2, 3)
    checkpoints = Checkpoints(directory / "whole", keep_last=3)
    for step in steps:
        checkpoints.save(step, state(step), {"data_step": step}, {"eval/loss": float(step)})
    checkpoints.close()
    expected = {step: jax.device_get(state(step)) for step in steps}
    one = replicated(make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    asked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), state(0))
    for n in range(num):
        broken = directory / "broken"
        shutil.copytree(directory / "whole", broken)
        files = sorted(file for file in broken.rglob("*") if file.is_file())
        for _ in range(rng.choice([1, 1, 2, 4, 16])):
            damage(files, rng)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            checkpoints, found = Checkpoints(broken), None
            try:
                found = checkpoints.restore(asked)
            except ValueError as error:
                assert "no whole checkpoint in" in str(error), (seed, n, error)
            assert checkpoints.best_step() in (*steps, None), (seed, n)
            checkpoints.close()
        named = {step for step in steps for w in caught if f"{broken / str(step)} is damaged: " in str(w.message)}
        assert named == {step for step in steps if found is None or step > found.step}, (seed, n, named, found)
        if found is not None:
            assert found.info == {"data_step": found.step}, (seed, n)
            for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(expected[found.step]), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{seed}, {n}")
        counts[found.step if found else None] += 1
        shutil.rmtree(broken)
    print(json.dumps(dict(counts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
