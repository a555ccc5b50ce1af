"""Configuration: frozen dataclasses, a Python file an experiment, JSON in and out."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import runpy
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxgen.report.log import TIMING


@dataclass(frozen=True)
class Rule:
    """Acts when a logged metric leaves its bounds, headless: `Rule("loss", above=10.0, action="rollback")`."""

    metric: str
    """Name of the metric as it stands in metrics.jsonl, no timing; a name that is not logged never fires."""
    above: float | None = None
    """Fires when the metric is above this."""
    below: float | None = None
    """Fires when the metric is below this."""
    patience: int = 1
    """Fires only after so many log lines in a row."""
    action: Literal["stop", "rollback"] = "stop"
    """`stop` saves and ends the run; `rollback` goes back to the last checkpoint and on with other noise and data."""

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise ValueError(f"a rule on {self.metric} needs a bound, `above` or `below`")
        if self.patience < 1:
            raise ValueError(f"a rule's patience must be 1 or more, not {self.patience}")


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, how large a batch, and how often what is written."""

    steps: int = 1000
    """Optimisation steps of the whole run; raise it to go on with a run."""
    batch_size: int = 64
    """Examples in the global batch, over all devices."""
    seed: int = 0
    """Seed of the initialisation, the noise and the data's order."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl; the last step has one as well."""
    sample_every: int = 500
    """Steps between sample files; the last step has one as well; 0 for none."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    eval_every: int = 500
    """Steps between evaluations on the validation split; the last step has one as well; 0 for none."""
    num_samples: int = 64
    """Samples in each file of samples/."""
    keep_last: int = 2
    """Newest checkpoints that are kept, beside the best."""
    best_metric: str = "eval/loss"
    """The checkpoint that is best by this metric is kept, of those at whose step it was logged."""
    best_mode: Literal["min", "max"] = "min"
    """Whether the best value of `best_metric` is the lowest or the highest."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """What to do when a metric is NaN or infinite."""
    rules: tuple[Rule, ...] = ()
    """Stop and rollback rules over logged metrics; a last step that is no multiple of the interval is not judged."""
    max_rollbacks: int = 3
    """Rollbacks after which the run stops for good: saved where a rule has asked for them, with an error otherwise."""
    skip_data: bool = True
    """Whether a rollback also goes on behind the batches that led to the failure."""
    steps_per_call: int = 1
    """Steps that one call of the compiled program does, for steps so short that starting them takes longer; divides
    the intervals."""
    compilation_cache: str = "~/.cache/jaxgen/xla"
    """Directory of compiled programs, which the next start finds there; the environment's JAX_COMPILATION_CACHE_DIR
    comes first; empty for none."""
    profile: str = ""
    """START:STOP traces the steps after START up to STOP into the run's profile/; empty for none."""
    deterministic: bool = False
    """Whether GPUs give the same bits in every run, at some cost of speed; CPUs and TPUs do so anyway."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "num_samples", "keep_last", "steps_per_call"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("sample_every", "eval_every", "max_rollbacks"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be 0 (off) or more, not {getattr(self, name)}")
        for metric in (self.best_metric, *(rule.metric for rule in self.rules)):
            if metric in TIMING:
                raise ValueError(f"{metric} differs from run to run: neither train.best_metric nor a rule may go by it")
        if self.seed < 0:
            raise ValueError(f"train.seed must be 0 or more, not {self.seed}")
        profile = [int(step) for step in self.profile.split(":")] if re.fullmatch(r"\d+:\d+", self.profile) else []
        if self.profile and not (profile and 0 <= profile[0] < profile[1] <= self.steps):
            raise ValueError(
                f"train.profile={self.profile} must be START:STOP, with START below STOP and STOP at most train.steps="
                f"{self.steps}: 20:25 traces the steps 21 to 25"
            )
        intervals = {name: getattr(self, name) for name in ("log_every", "sample_every", "save_every", "eval_every")}
        for name, value in (*intervals.items(), *(("profile", step) for step in profile)):
            if rest := value % self.steps_per_call:
                raise ValueError(
                    f"train.{name}={getattr(self, name)} must be a multiple of train.steps_per_call="
                    f"{self.steps_per_call}, such as {value - rest + self.steps_per_call}: nothing happens between "
                    "the steps of a call"
                )


@dataclass(frozen=True)
class MeshConfig:
    """The devices' mesh; one axis may be -1, the devices that the others leave."""

    data: int = -1
    """Replicas of the model; each takes its share of the batch."""
    fsdp: int = 1
    """Devices that share the batch and split the parameters and optimizer state between them."""
    tensor: int = 1
    """Devices that split single layers between them, where the network has rules for it."""
    min_shard_size: int = 2**14
    """Arrays with fewer elements are replicated rather than split over fsdp."""


@dataclass(frozen=True)
class Experiment:
    """One run: a method on a data set. `method` and `data` are the Configs of a catalog entry and of a data source."""

    method: Any
    data: Any
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    init_from: Mapping[str, str] = field(default_factory=dict)
    """Warm start, name to RUN:SUBTREE (`reference runs/sft:params`); ignored when the run goes on."""


Kinds = Mapping[str, type]


def load_config(path: str | os.PathLike[str]) -> Experiment:
    """The `config` that the Python file at `path` defines.

    Raises:
      FileNotFoundError: no such file; the message names the closest one beside it.
      ValueError: the file defines no `config`, or one that is no `Experiment`.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        raise FileNotFoundError(
            f"no config file {path}{closest(path.name, sorted(p.name for p in folder.glob('*.py')))}"
        )
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Experiment):
        raise ValueError(f"{path} must define `config = Experiment(method=…, data=…)`, not {type(config).__name__}")
    return config


def override(config: Experiment, args: list[str], prog: str) -> Experiment:
    """`config` with command-line options such as `--train.steps 5000 --method.num-timesteps 500` put in, by tyro.

    An unknown option or a value of the wrong type ends the program with the closest matches.
    """
    import tyro  # 0.3 s, needed by the entry points alone

    return tyro.cli(Experiment, default=config, args=args, prog=prog)


def closest(word: str, choices: Iterable[str]) -> str:
    """` (did you mean …?)`, or the list of choices (the first 50) where none is close; the end of an error message."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1)
    more = f" and {len(choices) - 50} more" if len(choices) > 50 else ""
    return f" (did you mean {near[0]}?)" if near else f"; there are: {', '.join(choices[:50]) or 'none'}{more}"


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises a ValueError, with the closest one or all of them, unless the option `name` is one of `choices`."""
    if value not in (choices := tuple(choices)):
        raise ValueError(f"unknown {name}={value!r}{closest(str(value), choices)}")


def to_json(value: Any) -> Any:
    """Dataclasses, mappings and tuples as what `json` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def from_json(cls: Any, value: Any, where: str = "") -> Any:
    """A `cls` (dataclass, tuple, mapping, plain type, or one of them or None) from what `to_json` made of it.

    Nothing is converted but whole numbers to floats: a value of another type is refused.

    Raises:
      ValueError: a value of another type, a field that `cls` does not have, or one that it lacks in `value` and has no
        default for; with the field's place.
    """
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    place = where or getattr(cls, "__name__", str(cls))

    def check(fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(f"{place} must be {what}, not {value!r:.60}")

    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return from_json(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(cls):
        check(isinstance(value, Mapping), "an object of fields")
        hints, names = typing.get_type_hints(cls), [f.name for f in dataclasses.fields(cls)]
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"{place} has no field {unknown[0]}{closest(unknown[0], names)}")
        without = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
        if lacking := [f.name for f in without if f.name not in value]:
            raise ValueError(f"{place} lacks {', '.join(lacking)}")
        fields = {name: from_json(hints[name], v, f"{where}.{name}".strip(".")) for name, v in value.items()}
        return typing.cast(Any, cls)(**fields)
    if origin is tuple:
        endless = args[1:] == (...,)
        check(isinstance(value, (list, tuple)), "a list")
        check(endless or len(value) == len(args), f"a list of {len(args)}")
        inner = [args[0]] * len(value) if endless else args
        return tuple(from_json(a, v, where) for a, v in zip(inner, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        check(isinstance(value, Mapping), "an object")
        return {k: from_json(args[1], v, where) for k, v in value.items()}
    if origin is Literal:
        check_choice(place, value, args)
    elif cls is float:
        check(type(value) in (int, float) and (not isinstance(value, int) or abs(value) < 2**1023), "a number")
        return float(value)
    elif cls in (bool, int, str):
        check(type(value) is cls, {bool: "true or false", int: "a whole number", str: "a string"}[cls])
    return value


def kind_of(value: Any, kinds: Kinds) -> str:
    """The name in `kinds` of the config `value`.

    Raises:
      ValueError: its type is not in `kinds`.
    """
    for name, cls in kinds.items():
        if type(value) is cls:
            return name
    raise ValueError(f"{type(value).__module__}.{type(value).__name__} is in no catalog; there are: {', '.join(kinds)}")


def _holders(cls: type) -> list[str]:
    """The fields of a config that hold any config of the catalog: those of the type Any."""
    return [name for name, hint in typing.get_type_hints(cls).items() if hint is Any]


def _tagged_json(value: Any, kinds: Kinds) -> dict[str, Any]:
    """A config with its name, and so the configs that it holds."""
    name, inner = kind_of(value, kinds), {f: _tagged_json(getattr(value, f), kinds) for f in _holders(type(value))}
    return {"name": name, "config": to_json(value) | inner}


def _tagged(tree: Any, kinds: Kinds, where: str) -> Any:
    """The inverse of `_tagged_json`."""
    from_json(Mapping[str, Any], tree, where)
    if unknown := [part for part in tree if part not in ("name", "config")]:
        raise ValueError(f"{where} has no field {unknown[0]}; there are: name, config")
    name, fields = from_json(str, tree.get("name"), f"{where}.name"), tree.get("config")
    if name not in kinds:
        raise ValueError(f"unknown {where} {name}{closest(name, kinds)}")
    from_json(Mapping[str, Any], fields, f"{where}.config")
    inner = {f: _tagged(fields[f], kinds, f"{where}.{f}") for f in _holders(kinds[name]) if f in fields}
    return from_json(kinds[name], {**fields, **inner}, where)


def experiment_to_json(config: Experiment, methods: Kinds, sources: Kinds) -> dict[str, Any]:
    """What config.json holds: the experiment, its method and data tagged with their names."""
    tagged = {"method": _tagged_json(config.method, methods), "data": _tagged_json(config.data, sources)}
    return to_json(config) | tagged


def check_document(tree: Any) -> None:
    """Raises a ValueError unless `tree` has the parts of a config.json, each of its kind."""
    parts = {part: Mapping[str, Any] for part in ("method", "data", "train", "mesh")} | {"init_from": Mapping[str, str]}
    from_json(Mapping[str, Any], tree, "the whole")
    for part, kind in parts.items():
        from_json(kind, tree.get(part), part)
    for part in ("method", "data"):
        from_json(str, tree[part].get("name"), f"{part}.name")
        from_json(Mapping[str, Any], tree[part].get("config"), f"{part}.config")


def experiment_from_json(tree: Mapping[str, Any], methods: Kinds, sources: Kinds) -> Experiment:
    """The inverse of `experiment_to_json`.

    Raises:
      ValueError: an unknown method, source or field, or a value of another type than its field's.
    """
    check_document(tree)
    tagged = lambda part, kinds: _tagged(tree[part], kinds, part)
    rest = from_json(Experiment, {k: tree[k] for k in ("train", "mesh", "init_from")} | {"method": None, "data": None})
    return dataclasses.replace(rest, method=tagged("method", methods), data=tagged("data", sources))
