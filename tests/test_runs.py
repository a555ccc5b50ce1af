"""A run's directory: whose it is, who writes to it, and where another one starts from."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgen import runs
from jaxgen.config import Experiment, TrainConfig, experiment_to_json
from jaxgen.data import Toy


def document(method="ring", **train):
    """A config.json whose method and data are both toy densities."""
    return experiment_to_json(Experiment(Toy(method), Toy("moons"), TrainConfig(**train)), {"toy": Toy}, {"toy": Toy})


def test_the_config_comes_back_and_nothing_else_is_left(tmp_path):
    runs.write_config(tmp_path, document(steps=3))
    runs.write_config(tmp_path, document(steps=5))
    assert runs.read_config(tmp_path) == document(steps=5)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_config_that_json_cannot_hold_leaves_the_old_one(tmp_path):
    runs.write_config(tmp_path, document())
    with pytest.raises(TypeError):
        runs.write_config(tmp_path, {"method": object()})
    assert runs.read_config(tmp_path) == document()


def test_a_directory_without_a_run_suggests_the_closest(tmp_path):
    for name in ("ddpm_faces", "vae_digits"):
        (tmp_path / name).mkdir()
        runs.write_config(tmp_path / name, document())
    (tmp_path / "ddpm_facet").mkdir()
    message = r"no run in .*ddpm_facet: it has no config.json \(did you mean .*ddpm_faces\?\)"
    with pytest.raises(FileNotFoundError, match=message):
        runs.read_config(tmp_path / "ddpm_facet")
    with pytest.raises(FileNotFoundError, match="there are: none"):
        runs.read_config(tmp_path / "absent" / "run")


def test_the_same_run_is_accepted_whatever_its_steps(tmp_path):
    runs.check_identity(tmp_path, document())  # an empty directory is nobody's
    runs.write_config(tmp_path, document(steps=3))
    runs.check_identity(tmp_path, document(steps=5, log_every=7))


def test_another_run_is_refused_with_every_field(tmp_path):
    runs.write_config(tmp_path, document())
    with pytest.raises(ValueError) as error:
        runs.check_identity(tmp_path, document("lines", seed=1, batch_size=8))
    first, *fields, last = str(error.value).splitlines()
    assert first == f"{tmp_path} holds another run:"
    assert fields == ['  method.name: "ring" → "lines"', "  train.batch_size: 64 → 8", "  train.seed: 0 → 1"]
    assert "--workdir" in last


def test_fields_longer_than_a_line_are_cut_short(tmp_path):
    """A vocabulary, say; the checksums tell two with the same start apart."""
    words = [f"word{i}" for i in range(10_000)]
    runs.write_config(tmp_path, document() | {"spec": {"names": {"tokens": words}}})
    with pytest.raises(ValueError, match=r'names.tokens: \["word0", .*… \(CRC \w{8}\) → .*… \(CRC \w{8}\)') as error:
        runs.check_identity(tmp_path, document() | {"spec": {"names": {"tokens": [*words[:-1], "other"]}}})
    field = str(error.value).splitlines()[1]
    assert len(field) < 250 and len(set(re.findall(r"CRC (\w+)", field))) == 2


@pytest.mark.parametrize("there", ["checkpoints", "metrics.jsonl"])
def test_files_of_no_known_run_are_not_touched(tmp_path, there):
    (tmp_path / there / "4").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds checkpoints or metrics but no config\.json: not touching them"):
        runs.check_identity(tmp_path, document())


def test_a_save_cut_short_is_no_checkpoint(tmp_path):
    assert not runs.has_checkpoints(tmp_path)
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not runs.has_checkpoints(tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir()
    assert runs.has_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/sft:params", (Path("runs/sft"), "params")),
        ("runs/sft:ema/encoder", (Path("runs/sft"), "ema/encoder")),
        ("/disk:1/sft:params", (Path("/disk:1/sft"), "params")),
    ],
)
def test_a_source_is_a_run_and_a_subtree(text, expected):
    assert runs.source(text) == expected


@pytest.mark.parametrize("text", ["runs/sft", "runs/sft:", ":params", ""])
def test_other_sources_are_refused(text):
    with pytest.raises(ValueError, match="init_from takes RUN:SUBTREE, such as runs/sft:params, not"):
        runs.source(text)


def test_the_configs_of_sources_are_copied(tmp_path):
    for name in ("sft", "lora"):
        (tmp_path / name).mkdir()
    runs.write_config(tmp_path / "sft", document(seed=5))
    runs.copy_sources(tmp_path / "lora", {"reference": f"{tmp_path / 'sft'}:params"})
    assert json.loads((tmp_path / "lora" / "init_from" / "reference.json").read_text()) == document(seed=5)


HOLD = """
import sys, pathlib
from jaxgen.runs import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(workdir):
    env = os.environ | {"PYTHONPATH": str(Path(runs.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_run_belongs_to_one_process_until_it_ends_however_it_ends(tmp_path):
    with hold(tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is training in"), runs.locked(tmp_path):
            pass
        process.kill()
    with runs.locked(tmp_path), hold(tmp_path) as process:
        out, err = process.communicate(timeout=30)
        assert out == "" and "another process is training in" in err and process.returncode == 1
    with runs.locked(tmp_path):  # let go at the end of the block, too
        pass
