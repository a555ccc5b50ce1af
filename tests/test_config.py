"""Configs in and out of JSON, experiment files, typed overrides, and what makes two runs the same run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from jaxgen.config import (
    Experiment,
    MeshConfig,
    Rule,
    TrainConfig,
    closest,
    experiment_from_json,
    experiment_to_json,
    from_json,
    kind_of,
    load_config,
    override,
    to_json,
)
from jaxgen.data import Toy
from jaxgen.diffusion import ddpm
from jaxgen.runs import differing_identity


@dataclass(frozen=True)
class Inner:
    width: int
    name: str = "plain"


@dataclass(frozen=True)
class Outer:
    layers: tuple[tuple[int, ...], ...] = ((1, 2), (), (3,))
    pair: tuple[str, Inner] = ("a", Inner(3))
    many: tuple[Inner, ...] = (Inner(1), Inner(2, "second"))
    maybe: Inner | None = Inner(4)
    none: Inner | None = None
    rate: float | None = 1e-30
    by_name: Mapping[str, Inner] = field(default_factory=lambda: {"x": Inner(5)})
    mode: Literal["min", "max"] = "max"
    flag: bool = True


@dataclass(frozen=True)
class Sampling:
    steps: int = 10


@dataclass(frozen=True)
class Model:
    name: str = "small"
    depth: tuple[int, ...] = (1, 2)
    inner: Inner = Inner(1)
    sample: Sampling = Sampling()


@dataclass(frozen=True)
class Source:
    source: str = "disk"
    count: int = 9


METHODS, SOURCES = {"model": Model, "model2": type("Model2", (Model,), {})}, {"source": Source, "toy": Toy}


@pytest.mark.parametrize(
    "value",
    [
        Outer(),
        Outer(layers=(), many=(), maybe=None, rate=None, by_name={}, mode="min", flag=False),
        TrainConfig(rules=(Rule("loss", above=10.0), Rule("accuracy", below=0.5, patience=3, action="rollback"))),
        MeshConfig(data=2, fsdp=4),
    ],
    ids=["nested", "empty", "rules", "mesh"],
)
def test_json_and_back_is_the_identity(value):
    """Equality of dataclasses tells tuples from lists and Inner from dict."""
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_json_is_by_field_name():
    assert to_json(Inner(3)) == {"width": 3, "name": "plain"}
    assert to_json(Outer())["layers"] == [[1, 2], [], [3]]


def test_unknown_and_missing_fields_are_named_with_their_place():
    with pytest.raises(ValueError, match=r"^Inner has no field widht \(did you mean width\?\)$"):
        from_json(Inner, {"widht": 3})
    with pytest.raises(ValueError, match=r"^maybe has no field zoom; there are: width, name$"):
        from_json(Outer, {"maybe": {"zoom": 3}})
    with pytest.raises(ValueError, match=r"^train\.rules has no field bove \(did you mean above\?\)$"):
        from_json(TrainConfig, {"rules": [{"metric": "loss", "bove": 3.0}]}, "train")
    with pytest.raises(ValueError, match=r"^by_name lacks width$"):
        from_json(Outer, {"by_name": {"x": {"name": "y"}}})
    assert from_json(Inner, {"width": 3}) == Inner(3)


def test_fields_are_checked_when_read_back():
    with pytest.raises(ValueError, match=r"train\.steps must be 1 or more, not 0"):
        from_json(TrainConfig, {"steps": 0})


def test_an_experiment_names_its_method_and_data():
    experiment = Experiment(Model(), Source(), TrainConfig(steps=3), MeshConfig(fsdp=2), {"base": "runs/a:params"})
    tree = json.loads(json.dumps(experiment_to_json(experiment, METHODS, SOURCES)))
    assert tree["method"]["name"] == "model" and tree["data"]["name"] == "source"
    assert experiment_from_json(tree, METHODS, SOURCES) == experiment
    tree["method"]["name"] = "modle"
    with pytest.raises(ValueError, match=r"unknown method modle \(did you mean model\?\)"):
        experiment_from_json(tree, METHODS, SOURCES)


def test_a_config_of_no_kind_is_refused():
    assert kind_of(Toy(), SOURCES) == "toy"
    with pytest.raises(ValueError, match=r"Inner is in no catalog; there are: source, toy"):
        kind_of(Inner(1), SOURCES)


def test_closest():
    assert closest("vea", ["vae", "gan"]) == " (did you mean vae?)"
    assert closest("zzz", ["vae", "gan"]) == "; there are: vae, gan"
    assert closest("zzz", []) == "; there are: none"
    assert closest("zzz", map(str, range(60))).endswith(", 48, 49 and 10 more")


def test_a_config_file_is_its_config(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(
        "from jaxgen.config import Experiment, TrainConfig\nfrom jaxgen.data import Toy\n"
        "config = Experiment(method=None, data=Toy('moons'), train=TrainConfig(steps=7))\n"
    )
    assert load_config(path) == load_config(str(path)) == Experiment(None, Toy("moons"), TrainConfig(steps=7))


def test_config_files_that_are_none(tmp_path):
    (tmp_path / "ddpm_faces.py").write_text("settings = 3\n")
    (tmp_path / "wrong.py").write_text("config = {'steps': 3}\n")
    with pytest.raises(FileNotFoundError, match=r"no config file .*ddpm_face\.py \(did you mean ddpm_faces\.py\?\)"):
        load_config(tmp_path / "ddpm_face.py")
    with pytest.raises(ValueError, match=r"ddpm_faces\.py must define `config = Experiment\(.*not NoneType"):
        load_config(tmp_path / "ddpm_faces.py")
    with pytest.raises(ValueError, match=r"wrong\.py must define .*not dict"):
        load_config(tmp_path / "wrong.py")


def test_a_missing_folder_suggests_the_repositorys_configs(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vae_faces.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config file confgs/vae_faces\.py \(did you mean vae_faces\.py"):
        load_config("confgs/vae_faces.py")


BASE = Experiment(ddpm.Config(), Toy("ring"))


def test_overrides_reach_every_level_and_leave_the_rest():
    args = (
        "--train.steps 7 --train.best-mode max --train.no-skip-data --data.name moons --method.net.multipliers 1 2 4 "
        "--method.optimizer.warmup-steps 5 --method.optimizer.decay-steps 90 --method.sample.steps 5 --mesh.fsdp 2"
    )
    assert override(BASE, args.split(), "train") == Experiment(
        replace(
            BASE.method,
            optimizer=replace(BASE.method.optimizer, warmup_steps=5, decay_steps=90),
            net=replace(BASE.method.net, multipliers=(1, 2, 4)),
            sample=replace(BASE.method.sample, steps=5),
        ),
        Toy("moons"),
        TrainConfig(steps=7, best_mode="max", skip_data=False),
        MeshConfig(fsdp=2),
    )
    assert override(BASE, [], "train") == BASE
    assert override(BASE, ["--method.num_timesteps", "9"], "train").method.num_timesteps == 9  # underscores do too


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (["--train.steps", "five"], ["--train.steps", "'five'", "int"]),
        (["--train.best-mode", "most"], ["best-mode", "min", "max"]),
        (["--method.net.multipliers", "1", "two"], ["multipliers", "'two'"]),
        (["--train.stesp", "5"], ["Perhaps you meant", "--train.steps"]),
        (["--method.num-timestep", "5"], ["--method.num-timesteps"]),
        (["--train.steps", "0"], ["train.steps must be 1 or more, not 0"]),
    ],
    ids=["int", "choice", "tuple", "unknown", "prefix", "invalid"],
)
def test_wrong_overrides_end_the_program_and_say_why(args, messages, capsys):
    with pytest.raises(SystemExit) as end:
        override(BASE, args, "train")
    assert end.value.code == 2
    written = capsys.readouterr()
    assert all(message in written.out + written.err for message in messages)


COUNTS = ["steps", "batch_size", "log_every", "save_every", "num_samples", "keep_last", "steps_per_call"]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_start_at_one(name):
    assert getattr(TrainConfig(**{name: 1}), name) == 1
    with pytest.raises(ValueError, match=rf"^train\.{name} must be 1 or more, not 0$"):
        TrainConfig(**{name: 0})


@pytest.mark.parametrize("name", ["sample_every", "eval_every", "max_rollbacks"])
def test_what_can_be_switched_off(name):
    assert getattr(TrainConfig(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=rf"^train\.{name} must be 0 \(off\) or more, not -1$"):
        TrainConfig(**{name: -1})


@pytest.mark.parametrize("profile", ["5", "5:", "a:b", "-1:5", "5:5", "6:5", "5:101", "1:2:3"])
def test_a_trace_that_no_run_could_make_is_refused(profile):
    assert TrainConfig(steps=100, profile="0:100").profile == "0:100"
    with pytest.raises(ValueError, match=rf"^train\.profile={profile} must be START:STOP, .* train\.steps=100: 20:25"):
        TrainConfig(steps=100, profile=profile)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_every": 50}, "log_every=50 .* such as 52:"),
        ({"save_every": 2}, "save_every=2 .* such as 4:"),
        ({"eval_every": 9}, "eval_every=9 .* such as 12:"),
        ({"sample_every": 5}, "sample_every=5 .* such as 8:"),
        ({"profile": "4:10"}, "profile=4:10 .* such as 12:"),
    ],
)
def test_intervals_are_multiples_of_the_steps_per_call(changes, message):
    fine = {"steps_per_call": 4, "log_every": 8, "save_every": 4, "eval_every": 0, "sample_every": 12, "profile": "4:8"}
    assert TrainConfig(steps=13, **fine).steps_per_call == 4
    with pytest.raises(ValueError, match=r"^train\." + message.replace(" .* ", " must be .*steps_per_call=4, ")):
        TrainConfig(steps=13, **fine | changes)


def document(method=Model(), data=Source(), **train):
    return json.loads(json.dumps(experiment_to_json(Experiment(method, data, TrainConfig(**train)), METHODS, SOURCES)))


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (document(), []),
        (document(replace(Model(), name="large")), ['method.name: "small" → "large"']),
        (document(replace(Model(), depth=(1, 3))), ["method.depth: [1, 2] → [1, 3]"]),
        (document(replace(Model(), inner=Inner(2))), ["method.inner.width: 1 → 2"]),
        (document(METHODS["model2"]()), ['method: "model" → "model2"']),
        (document(data=Source("web")), ['data.source: "disk" → "web"']),
        (document(seed=3, batch_size=32), ["train.batch_size: 64 → 32", "train.seed: 0 → 3"]),
    ],
)
def test_the_fields_in_which_runs_differ(new, expected):
    assert differing_identity(document(), new) == expected


def test_another_source_differs_in_its_name_and_fields():
    differing = differing_identity(document(), document(data=Toy()))
    assert differing[0] == 'data: "source" → "toy"'
    assert "data.count: 9 → null" in differing and 'data.name: null → "ring"' in differing


def test_sampling_steps_mesh_and_intervals_may_change():
    free = {"log_every": 1, "sample_every": 1, "save_every": 1, "eval_every": 1, "keep_last": 9, "best_mode": "max"}
    new = document(replace(Model(), sample=Sampling(99)), steps=5, rules=(Rule("loss", above=3.0),), **free)
    new["mesh"] = to_json(MeshConfig(data=4, fsdp=2))
    new["init_from"] = {"base": "runs/a:params"}
    assert differing_identity(document(), new) == []


def test_what_the_backward_pass_keeps_may_change():
    """Also where an older version did not know of it."""
    new = document()
    new["method"]["config"]["inner"]["remat"] = True
    assert differing_identity(document(), new) == differing_identity(new, document()) == []


def test_a_field_that_a_newer_version_added_is_named():
    new = document()
    new["method"]["config"]["inner"]["depth"] = 7
    assert differing_identity(document(), new) == ["method.inner.depth: null → 7"]
