"""A user's first hour in three processes: train, stop, go on with the command that was printed, sample."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from commands import QUICK

ROOT = Path(__file__).parents[1]

CONFIG = """
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig

config = Experiment(
    method=ddpm.Config(
        net=UNetConfig(width=8, multipliers=(1,), attention_resolutions=(8,), num_heads=2, num_groups=4),
        sample=SampleConfig(steps=2),
    ),
    data=Images("folder:{folder}"),
    train=TrainConfig(batch_size=8, log_every=5, sample_every=0, eval_every=0),
)
"""


def test_train_stop_go_on_and_sample(tmp_path):
    folder = tmp_path / "my photos"  # the space: what is printed must survive a shell
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    config, workdir, out = tmp_path / "tiny.py", tmp_path / "a run", tmp_path / "x.npz"
    config.write_text(CONFIG.format(folder=folder))
    # The second process finds the first one's programs: compiling is most of the time.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    env = os.environ | cache | {"XLA_FLAGS": QUICK, "PYTHONUNBUFFERED": "1"}

    def start(*args) -> subprocess.Popen:
        command = [sys.executable, *map(str, args)]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(process: subprocess.Popen) -> str:
        try:
            text = process.communicate(timeout=120)[0]
        finally:
            process.kill()
        assert process.returncode == 0, text
        return text

    process = start("train.py", config, "--workdir", workdir, "--train.steps", 100000, "--train.keep-last", 1)
    deadline = time.monotonic() + 120
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text = finish(process)
    found = re.search(r"interrupted; saved at step (\d+); to go on: (.*)$", text, re.MULTILINE)
    assert found, text
    last, command = int(found[1]) + 2, shlex.split(found[2])
    assert command[:2] == ["python", "train.py"] and command[command.index("--train.steps") + 1] == "100000"

    command[command.index("--train.steps") + 1] = str(last)
    text = finish(start(*command[1:]))
    assert f"{workdir}: done, {last} steps" in text, text

    text = finish(start("sample.py", workdir, "--num", 3, "--out", out))
    assert f"at step {last}" in text, text
    with np.load(out) as arrays:
        assert arrays["image"].dtype == np.uint8 and arrays["image"].shape == (3, 8, 8, 3)
