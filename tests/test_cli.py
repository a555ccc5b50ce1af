"""The commands as a user types them, in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import harness
import toy_methods
from jaxgen import cli, trained
from jaxgen.classical import nmf
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images, Ratings
from jaxgen.diffusion import ddpm
from jaxgen.method import Method
from jaxgen.metrics import repeats
from jaxgen.report.log import read_metrics
from jaxgen.sharding import make_mesh

toy_methods.register()

CONFIG = """
import toy_methods
config = toy_methods.EXPERIMENTS["{name}"]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run and the config file that it came from."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "kmeans_ring.py").write_text(CONFIG.format(name="toy_kmeans"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.run_command(cli.train, ["kmeans_ring.py", "--train.steps", "8", "--train.sample-every", "4"]) == 0
    return folder


def call(command, *args):
    return cli.run_command(command, [str(arg) for arg in args])


def test_train_writes_the_files_of_a_run(run):
    workdir = run / "runs" / "kmeans_ring"  # the default: named after the config
    assert {p.name for p in workdir.iterdir()} >= {
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "samples",
        "curves.png",
    }
    assert any(p.name.startswith("events.out.tfevents") for p in workdir.iterdir())
    assert sorted(p.name for p in (workdir / "samples").iterdir()) == ["000004.png", "000008.png"]
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    config = json.loads((workdir / "config.json").read_text())
    assert config["method"]["name"] == "toy_kmeans" and config["spec"]["counts"]["train"] > 0


def test_sample_writes_what_the_suffix_says(run, capsys):
    workdir = run / "runs" / "kmeans_ring"
    assert call(cli.sample, workdir, "--num", 5, "--out", run / "x.npz") == 0
    with np.load(run / "x.npz") as arrays:
        a = arrays["x"]
    assert a.shape == (5, 2)
    assert call(cli.sample, workdir, "--num", 300, "--out", run / "y.npz", "--checkpoint", "best") == 0
    with np.load(run / "y.npz") as arrays:
        assert arrays["x"].shape == (300, 2)  # more than one call of the compiled program
        assert len(np.unique(arrays["x"], axis=0)) == toy_methods.KMeansConfig().num_clusters
    assert call(cli.sample, workdir, "--num", 5, "--out", run / "z.png", "--checkpoint", "4") == 0
    assert (run / "z.png").read_bytes().startswith(b"\x89PNG") and "at step 4" in capsys.readouterr().out
    assert call(cli.sample, workdir, "--num", 5, "--out", run / "w.npz", "--seed", 1) == 0
    with np.load(run / "w.npz") as arrays:
        assert (arrays["x"] != a).any()


def report_of(workdir):
    """The newest report of a run."""
    newest = max((workdir / "evaluation").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())


def test_evaluate_prints_a_table_and_writes_json(run, capsys):
    workdir = run / "runs" / "kmeans_ring"
    assert call(cli.evaluate, workdir) == 0
    assert "step 8, test split" in capsys.readouterr().out
    report = report_of(workdir)
    assert report["step"] == 8 and report["split"] == "test"
    loss = report["metrics"]["loss"]  # a closed form: no noise to average away
    assert 0 < loss["value"] < 1 and loss["noise"] == 0 and loss["repeats"] == 2
    assert 0 < loss["standard_error"] < 0.5 * loss["value"]  # of 40 examples
    before = set((workdir / "evaluation").iterdir())
    assert call(cli.evaluate, workdir, "--split", "validation") == 0
    assert len(set((workdir / "evaluation").iterdir()) - before) == 1  # nothing is overwritten


def test_sample_and_evaluate_on_a_mesh_of_their_own(run, capsys):
    workdir, mesh = run / "runs" / "kmeans_ring", ["--mesh.data", 2, "--mesh.fsdp", 4]
    assert call(cli.sample, workdir, "--num", 5, "--out", run / "p.npz") == 0
    assert call(cli.sample, workdir, "--num", 5, "--out", run / "q.npz", *mesh) == 0
    with np.load(run / "p.npz") as p, np.load(run / "q.npz") as q:
        np.testing.assert_array_equal(p["x"], q["x"])
    assert call(cli.evaluate, workdir) == 0
    a = report_of(workdir)["metrics"]
    assert call(cli.evaluate, workdir, *mesh) == 0
    b = report_of(workdir)["metrics"]
    assert a.keys() == b.keys() and a["loss"]["value"] == pytest.approx(b["loss"]["value"], rel=1e-5)
    capsys.readouterr()
    assert call(cli.evaluate, workdir, "--mesh.data", 3) == 2
    assert "mesh.data=3, mesh.fsdp=1, mesh.tensor=1 does not fit 8 device(s)" in capsys.readouterr().err


def test_mistakes_get_a_message_that_says_what_to_do(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    workdir = Path("runs/kmeans_ring")

    def message(command, *args):
        capsys.readouterr()
        assert call(command, *args) == 2
        return capsys.readouterr().err

    assert "no config file kmean_ring.py (did you mean kmeans_ring.py?)" in message(cli.train, "kmean_ring.py")
    assert "no run in runs/kmeans_rin" in message(cli.sample, "runs/kmeans_rin")
    assert "did you mean runs/kmeans_ring" in message(cli.sample, "runs/kmeans_rin")
    assert "train.seed: 0 → 3" in message(cli.train, "kmeans_ring.py", "--train.seed", 3)
    assert "no checkpoint of step 5" in message(cli.sample, workdir, "--checkpoint", 5)
    assert "last, best or a step" in message(cli.sample, workdir, "--checkpoint", "newest")
    assert "suffixes that fit: .png, .npz" in message(cli.sample, workdir, "--out", "x.txt")
    assert "--num must be 1 or more" in message(cli.sample, workdir, "--num", 0)
    assert "no split 'tset' (did you mean test?)" in message(cli.evaluate, workdir, "--split", "tset")
    assert "directory comes before the options" in message(cli.sample, "--num", 5, workdir)
    assert "it takes no --condition" in message(cli.sample, workdir, "--condition", "label=1")
    assert "fills in no pictures" in message(cli.sample, workdir, "--known", "test:3")
    for option, value, hint in [
        ("--train.stpes", 5, "train.steps"),
        ("--method.num-cluster", 5, "method.num-clusters"),
        ("--train.steps", "five", "invalid literal for int() with base 10: 'five'"),
        ("--train.steps", 0, "train.steps must be 1 or more"),
    ]:
        with pytest.raises(SystemExit) as stop:
            call(cli.train, "kmeans_ring.py", option, value)
        assert stop.value.code == 2 and hint in capsys.readouterr().err
    assert not Path("x.txt").exists()


def test_a_bug_keeps_its_traceback():
    def buggy(args):
        return int("five")

    with pytest.raises(ValueError, match="invalid literal"):
        cli.run_command(buggy, [])


def test_one_device_a_core_only_where_it_fits_and_nobody_chose(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))

    def flags(batch_size, before=""):
        monkeypatch.setenv("XLA_FLAGS", before)
        trained.use_cores(batch_size, MeshConfig())
        return os.environ["XLA_FLAGS"]

    assert flags(64) == "--xla_force_host_platform_device_count=2"
    assert flags(63, "--a=1") == "--a=1 --xla_force_host_platform_device_count=1"
    assert flags(8).endswith("=1")
    assert flags(64, "--xla_force_host_platform_device_count=4") == "--xla_force_host_platform_device_count=4"
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    assert flags(64) == ""


@pytest.mark.parametrize(
    ("cores", "batch_size", "mesh", "count"),
    [
        (2, 64, MeshConfig(data=1), 1),  # no axis is -1: their product, whatever the cores and the batch
        (2, 64, MeshConfig(data=4, fsdp=2), 8),
        (2, 8, MeshConfig(data=4), 4),
        (2, 64, MeshConfig(fsdp=2), 2),  # one is: a multiple of the others' product
        (2, 64, MeshConfig(fsdp=4), 4),
        (8, 64, MeshConfig(data=-1, fsdp=3), 3),
        (8, 60, MeshConfig(tensor=3), 6),
        (8, 32, MeshConfig(fsdp=2), 4),
        (8, 64, MeshConfig(data=2, fsdp=-1), 8),
        (64, 4096, MeshConfig(), 8),
        (2, 64, MeshConfig(data=0), 1),
    ],
)
def test_as_many_devices_as_the_mesh_asks_for(monkeypatch, cores, batch_size, mesh, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores))
    monkeypatch.setenv("XLA_FLAGS", "")
    trained.use_cores(batch_size, mesh)
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count={count}"
    if mesh.data != 0:
        assert make_mesh(mesh, jax.devices()[:count]).size == count


def test_help(run, capsys):
    assert cli.run_command(cli.train, ["--help"]) == 0
    assert cli.run_command(cli.sample, ["--help"]) == 0
    assert cli.run_command(cli.evaluate, ["--help"]) == 0
    for command, options in ((cli.sample, ("--out", "--condition")), (cli.evaluate, ("--split", "--against"))):
        assert cli.run_command(command, []) == 2
        capsys.readouterr()
        assert call(command, run / "runs" / "kmeans_ring", "--help") == 0  # a method without sampling options
        text = capsys.readouterr().out
        assert all(option in text for option in ("--num", "--seed", "--checkpoint", *options))
    assert jax.device_count() == 8  # none of this changed the devices


def test_help_of_a_run_shows_the_sampling_options_as_well(run, capsys, monkeypatch):
    opened = trained.open_run(run / "runs" / "kmeans_ring")
    config = dataclasses.replace(opened.config, method=ddpm.Config())
    monkeypatch.setattr(cli, "open_run", lambda workdir: opened._replace(config=config))
    for command, option in ((cli.sample, "--out"), (cli.evaluate, "--against")):
        with pytest.raises(SystemExit) as stop:
            call(command, "any", "--help")
        text = capsys.readouterr().out
        assert stop.value.code in (None, 0)
        expected = (option, "--num", "--seed", "--checkpoint", "--sampler", "--eta", "--guidance")
        assert all(option in text for option in expected)


def test_the_config_comes_before_the_options(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert call(cli.train, "--train.steps", 5, "kmeans_ring.py") == 2
    assert "comes before the options" in capsys.readouterr().out
    assert call(cli.train, "--workdir", "elsewhere", "kmeans_ring.py") == 2
    assert not Path("elsewhere").exists()


def test_the_command_to_go_on_is_quoted_for_the_shell(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    monkeypatch.setattr(cli.trainer, "train", lambda *args: cli.trainer.Outcome(3, "interrupted"))
    args = ["kmeans_ring.py", "--workdir", "runs/a b", "--train.best-metric", "x y", "--train.steps", "6"]
    assert call(cli.train, *args) == 0
    text = capsys.readouterr().out.strip()
    assert text.startswith("runs/a b: interrupted; saved at step 3; to go on: jaxgen train kmeans_ring.py")
    assert shlex.split(text.partition("to go on: ")[2]) == ["jaxgen", "train", *args]
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    assert call(cli.train, *args) == 0
    assert "to go on: python train.py kmeans_ring.py" in capsys.readouterr().out


RATINGS = Experiment(nmf.Config(num_parts=2), Ratings(num_users=9, num_items=20), TrainConfig(batch_size=8))


@pytest.mark.parametrize(
    "name, suffix",
    [
        ("kmeans", ".png"),
        ("pca", ".png"),
        ("nmf", ".png"),
        ("ratings", ".txt"),
        ("word2vec", ".txt"),
        ("doc2vec", ".txt"),
    ],
)
def test_methods_without_a_network_are_sampled_and_evaluated_as_well(name, suffix, tmp_path, capsys):
    experiment, workdir = RATINGS if name == "ratings" else harness.tiny(name), tmp_path / "run"
    harness.train(experiment, workdir, steps=2, sample_every=0, eval_every=0)
    assert call(cli.sample, workdir, "--num", 3) == 0
    assert (workdir / f"samples{suffix}").is_file()
    if suffix == ".txt":
        assert len((workdir / "samples.txt").read_text("utf-8").splitlines()) == 3
    assert call(cli.evaluate, workdir, "--num", 8) == 0
    report = report_of(workdir)
    assert report["metrics"]["loss"]["value"] > 0
    assert ("samples" in report) == (suffix == ".png")


def test_recommendations_to_a_user_by_name(tmp_path, capsys):
    harness.train(RATINGS, tmp_path / "run", steps=2, sample_every=0, eval_every=0)
    args = [tmp_path / "run", "--num", 1, "--top-n", 3, "--out", tmp_path / "a.txt", "--condition"]
    assert call(cli.sample, *args, "user=7") == 0
    user, *items = (tmp_path / "a.txt").read_text("utf-8").split()
    assert user == "7" and len(set(items)) == 3
    assert call(cli.sample, *args, "user=77") == 2
    assert "user has no value '77' (did you mean 7?)" in capsys.readouterr().err


IMAGES = """
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.method import Method
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig

net = UNetConfig(width=8, multipliers=(1,), attention_resolutions=(), num_groups=4)
config = Experiment(
    ddpm.Config(net=net, condition=("label",), sample=SampleConfig(steps=2)),
    Images("digits"),
    TrainConfig(steps=1, batch_size=64, sample_every=0, eval_every=0),
)
"""
FEATURES = """
def quarters(images):
    return images.reshape(len(images), 2, 4, 2, 4).mean((2, 4)).reshape(len(images), 4)
"""


def test_a_model_of_images_is_asked_filled_in_shown_on_its_way_and_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(repeats, "MOST_REPEATS", 4)
    Path("images.py").write_text(IMAGES)
    Path("features.py").write_text(FEATURES)
    assert call(cli.train, "images.py") == 0
    asked = ["--condition", "label=3", "--condition", "label=5"]
    known = ["--known", "test:7", "--mask", "left"]
    assert call(cli.sample, "runs/images", "--num", 4, "--out", "a.npz", "--guidance", 2, *asked, *known) == 0
    with np.load("a.npz") as arrays:
        image = arrays["image"]
    test = Images("digits").load().read("test", np.array([7]), ("image",))["image"][0]
    assert image.shape == (4, 8, 8, 1) and (image[:, :, 4:] == test[:, 4:]).all()
    assert call(cli.sample, "runs/images", "--num", 3, "--frames", 3, "--out", "way.gif") == 0
    with Image.open("way.gif") as animation:
        assert animation.n_frames == 3
    assert call(cli.sample, "runs/images", "--num", 3, "--interpolate", 4, "--out", "rows.npz") == 0
    with np.load("rows.npz") as arrays:
        assert arrays["frames"].shape == (3, 4, 8, 8, 1)
    other = ["--against", "--sampler ancestral --steps 3"]
    assert call(cli.evaluate, "runs/images", "--num", 20, "--features", "features.py:quarters", *other) == 0
    text, report = capsys.readouterr().out, report_of(Path("runs/images"))
    assert "floor: real images" in text and "baseline: a Gaussian" in text
    bound = report["metrics"]["bits_per_dim/bound"]
    assert bound["repeats"] == 4 and 0 < bound["noise"] < bound["standard_error"] < 0.3 and 1 < bound["value"] < 20
    names = {"fd/n=20", "kd/n=20", "precision/n=20", "recall/n=20", "sharpness/n=20", "train_distance/n=20"}
    for kind in ("samples", "floor", "gaussian"):
        assert names <= report[kind].keys()
    assert report["against"]["sampling"]["steps"] == 3
    difference = report["against"]["fd_difference/n=20"]
    gap = report["samples"]["fd/n=20"] - report["against"]["samples"]["fd/n=20"]
    assert difference["low"] < difference["high"] and difference["difference"] == pytest.approx(gap)
    assert report["features"] == "features.py:quarters" and report["seconds_a_sample"] > 0
    assert report["against"]["times_slower"] == pytest.approx(
        report["against"]["seconds_a_sample"] / report["seconds_a_sample"]
    )
    # A model of one step draws noise: far from the data, which the floor is near.
    assert report["samples"]["fd/n=20"] > 3 * report["floor"]["fd/n=20"]
    assert report["samples"]["train_distance/n=20"] > 1.5 > report["floor"]["train_distance/n=20"] > 0.5
    assert {p.name for p in Path("runs/images/evaluation").iterdir()} == {
        "000001.json",
        "000001-samples.png",
        "000001-nearest.png",
    }
    capsys.readouterr()
    assert call(cli.evaluate, "runs/images", "--features", "features.py:halves") == 2
    assert "no function 'halves'; there are: quarters" in capsys.readouterr().err


README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^python train\.py (configs/.*?) *(?:#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_are_understood(command, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    seen = []
    monkeypatch.setattr(cli, "use_cores", lambda batch_size, mesh: None)
    monkeypatch.setattr(Images, "load", lambda self: toy_methods.EXPERIMENTS["toy_kmeans"].data.load())
    monkeypatch.setattr(cli.catalog, "make", lambda config, spec: Method(None, None))
    monkeypatch.setattr(
        cli.trainer, "train", lambda config, *rest: seen.append(config) or cli.trainer.Outcome(1, "done")
    )
    args = shlex.split(command)
    if "--help" in args:
        with pytest.raises(SystemExit) as stop:
            call(cli.train, *args)
        assert stop.value.code in (None, 0) and "--train.steps" in capsys.readouterr().out
    else:
        assert call(cli.train, *args) == 0 and len(seen) == 1
        assert isinstance(seen[0].method, ddpm.Config)


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 4
