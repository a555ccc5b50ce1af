"""A config.json with random damage is read back as it stands, or refused with what is wrong; nothing in it is run."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import types
import typing
from collections.abc import Mapping

import pytest

from jaxgen import catalog, runs
from jaxgen.config import Experiment, Rule, TrainConfig, experiment_from_json, experiment_to_json, to_json
from jaxgen.data import SOURCES, Images, Spec
from jaxgen.diffusion import ddpm

VALUES = [
    *(None, True, False, 0, -1, 3, 10**30, 2.5, float("inf"), float("nan"), "", "x", "min", "ddpm"),
    *([], [1], ["a", 2], [[1]], [None], {}, {"a": 1}, {"name": "ring"}, {"name": "ddpm", "config": {}}),
]


SPEC = Spec(
    shapes={"image": (8, 8, 3), "label": (), "tokens": (12,)},
    dtypes={"image": "uint8", "label": "int32", "tokens": "int32"},
    counts={"train": 100, "test": 9},
    names={"label": ("cat", "dog"), "tokens": ("a", "b", "c")},
    sizes={"label": (2,), "tokens": (3,)},
    frequencies={"tokens": (5, 4, 3)},
)


def document(method, data) -> dict:
    """A config.json with stop rules and a warm start."""
    rules = (Rule("loss", above=10.0), Rule("eval/loss", below=0.1, patience=3, action="rollback"))
    experiment = Experiment(method, data, TrainConfig(rules=rules), init_from={"base": "runs/a:params"})
    tree = experiment_to_json(experiment, catalog.kinds(), SOURCES) | {"spec": SPEC.to_json()}
    return json.loads(json.dumps(tree))


def documents() -> list[dict]:
    """A config.json of every method and every source."""
    return [document(method(), source()) for method in catalog.kinds().values() for source in SOURCES.values()]


def containers(tree) -> list:
    """Every list and object in `tree` that is not empty."""
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return ([tree] if below else []) + [found for sub in below for found in containers(sub)]


def change(tree: dict, rng: random.Random) -> None:
    """Replaces, removes, adds, moves or copies one value somewhere in `tree`."""
    place = rng.choice(containers({k: v for k, v in tree.items() if k != "spec" or rng.random() < 0.2}))
    key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    match rng.randrange(5):
        case 0 | 1:
            place[key] = copy.deepcopy(rng.choice(VALUES))
        case 2:
            del place[key]
        case 3 if isinstance(place, dict):
            place[rng.choice(["extra", "steps", "name", key[:-1]])] = place[key]
        case _:
            other = rng.choice(containers(tree))
            place[key] = copy.deepcopy(rng.choice(list(other.values()) if isinstance(other, dict) else other))


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flips a bit of, cuts, shortens or lengthens a text."""
    place = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 1:
            return data[:place]
        case 2:
            return data[:place] + data[place + rng.randrange(1, 20) :]
        case _:
            return data[:place] + rng.randbytes(rng.randrange(1, 4)) + data[place:]


def is_of(value, kind) -> bool:
    """Whether `value` is what the annotation `kind` says, all the way down."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(is_of(value, arg) for arg in args)
    if origin is typing.Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        kinds = [args[0]] * len(value) if args[1:] == (...,) else args
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(is_of, value, kinds))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(is_of(k, args[0]) and is_of(v, args[1]) for k, v in value.items())
    if dataclasses.is_dataclass(kind):
        return type(value) is kind and all(
            is_of(getattr(value, name), hint) for name, hint in typing.get_type_hints(kind).items()
        )
    return kind is typing.Any or type(value) is kind


def is_kept(given, read) -> bool:
    """Whether everything in `given` stands in `read` unchanged; what `given` lacks is a default there."""
    if isinstance(given, dict):
        return isinstance(read, dict) and all(k in read and is_kept(v, read[k]) for k, v in given.items())
    if isinstance(given, list):
        return isinstance(read, list) and len(given) == len(read) and all(map(is_kept, given, read))
    return repr(given) == repr(read) or (type(given) is int and type(read) is float and float(given) == read)


def read(workdir):
    """The experiment and the data's description of the run, as `sample` reads them."""
    tree = runs.read_config(workdir)
    return tree, experiment_from_json(tree, catalog.kinds(), SOURCES), Spec.from_json(tree.get("spec"))


def fuzz(workdir, num: int, seed: int) -> tuple[int, int]:
    """So many damaged files: how many were read, and how many refused."""
    rng, whole, counts = random.Random(seed), documents(), [0, 0]
    fields = {name for tree in whole for place in containers(tree) if isinstance(place, dict) for name in place}
    for _ in range(num):
        tree = copy.deepcopy(rng.choice(whole))
        if by_bytes := rng.random() < 0.3:
            data = damage(json.dumps(tree, indent=2).encode(), rng)
        else:
            for _ in range(rng.randrange(1, 4)):
                change(tree, rng)
            data = json.dumps(tree).encode()
        (workdir / runs.CONFIG).write_bytes(data)
        try:
            given, config, spec = read(workdir)
        except ValueError as error:
            counts[1] += 1
            message = str(error)
            assert "config.json is damaged: " in message or any(name in message for name in fields), (data, message)
            continue
        counts[0] += 1
        kinds = (catalog.kinds()[given["method"]["name"]], SOURCES[given["data"]["name"]])
        assert is_of(config, Experiment) and is_of(config.method, kinds[0]) and is_of(config.data, kinds[1]), data
        assert is_of(spec, Spec) and is_kept(given["spec"], to_json(spec)), data
        parts = {"train": config.train, "mesh": config.mesh, "init_from": config.init_from}
        for name, part in parts.items():
            assert is_kept(given[name], to_json(part)), data
        saved = experiment_to_json(config, catalog.kinds(), SOURCES)
        assert is_kept(given["method"], saved["method"]) and is_kept(given["data"], saved["data"]), data
        assert by_bytes or given.keys() >= parts.keys()
    return counts[0], counts[1]


def test_a_damaged_config_is_read_as_it_stands_or_refused(tmp_path):
    read_back, refused = fuzz(tmp_path, 1500, seed=0)
    assert read_back > 100 and refused > 500  # both happen, so both are tested


@pytest.mark.slow
def test_a_damaged_config_is_read_as_it_stands_or_refused_many_times(tmp_path):
    read_back, refused = fuzz(tmp_path, 30_000, seed=1)
    assert read_back > 2000 and refused > 10_000


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("train.steps", "5", "train.steps must be a whole number, not '5'"),
        ("train.steps", 5.0, "train.steps must be a whole number, not 5.0"),
        ("train.steps", True, "train.steps must be a whole number, not True"),
        ("train.best_metric", 3, "train.best_metric must be a string, not 3"),
        ("train.best_mode", "most", "unknown train.best_mode='most'; there are: min, max"),
        ("train.skip_data", 1, "train.skip_data must be true or false, not 1"),
        ("train.rules", {}, "train.rules must be a list, not {}"),
        ("train.rules", [3], "train.rules must be an object of fields, not 3"),
        ("method.config.net.width", None, "method.net.width must be a whole number, not None"),
        ("method.config.optimizer.learning_rate", "1", "method.optimizer.learning_rate must be a number, not '1'"),
        ("method.config.net.multipliers", [1, "2"], "method.net.multipliers must be a whole number, not '2'"),
        ("method.config", [], "method.config must be an object, not []"),
        ("method", "ddpm", "method must be an object, not 'ddpm'"),
        ("init_from", {"base": 3}, "init_from must be a string, not 3"),
        ("spec.levels", "256", "spec.levels must be a whole number, not '256'"),
        ("spec.shapes.image", 3, "spec.shapes must be a list, not 3"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_field(tmp_path, part, value, message):
    tree = document(ddpm.Config(), Images())
    *parents, last = part.split(".")
    place = tree
    for name in parents:
        place = place[name]
    place[last] = value
    (tmp_path / runs.CONFIG).write_text(json.dumps(tree))
    with pytest.raises(ValueError) as error:
        read(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", "[" * 100_000, "\xff", '{"train": {}}'])
def test_a_config_that_is_none_is_damaged(tmp_path, text):
    (tmp_path / runs.CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json is damaged: .*put a copy back"):
        runs.read_config(tmp_path)
