"""A run is a directory: config.json, checkpoints/, metrics.jsonl, TensorBoard events, samples/.

This module knows its layout, whose it is (identity), and who may write to it (a lock).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxgen.config import check_document, closest
from jaxgen.report.atomic import clear, replacing

CONFIG, CHECKPOINTS, METRICS, SAMPLES = "config.json", "checkpoints", "metrics.jsonl", "samples"
CURVES = "curves.png"


def read_config(workdir: Path) -> dict[str, Any]:
    """The run's config.json.

    Raises:
      FileNotFoundError: `workdir` holds no run; names the closest run beside it.
      ValueError: the file is damaged: no JSON, or without the parts that every run's has.
    """
    path = workdir / CONFIG
    if not path.is_file():
        siblings = sorted(str(p.parent) for p in workdir.parent.glob(f"*/{CONFIG}"))
        raise FileNotFoundError(f"no run in {workdir}: it has no {CONFIG}{closest(str(workdir), siblings)}")
    try:
        tree = json.loads(path.read_text("utf-8"))
        check_document(tree)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: {error}; put a copy back (training the same in another --workdir writes the same file)"
        ) from None
    return tree


def has_checkpoints(workdir: Path) -> bool:
    """Whether any step of the run was saved, whole or not."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))  # others are saves cut short


def differing_identity(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields, as `name: old → new`, in which two config.json trees are different runs.

    Method, data, seed and batch size are a run's identity; sampling options, step count, mesh, intervals, the place
    of the data, and what saves memory (`remat`, `accumulate`), which changes no more than rounding, may change.
    """

    def flat(tree: Any, path: str = "") -> dict[str, Any]:
        if isinstance(tree, Mapping) and tree:
            return {k: v for name, sub in tree.items() for k, v in flat(sub, f"{path}.{name}".lstrip(".")).items()}
        return {path: tree}

    def identity(tree: Mapping[str, Any]) -> dict[str, Any]:
        method, data, train = tree["method"], tree["data"], tree["train"]
        names = {"method": method["name"], "data": data["name"]}
        numbers = {f"train.{k}": train.get(k) for k in ("seed", "batch_size")}
        source = {k: v for k, v in data["config"].items() if k != "data_dir"}
        found = flat({"method": method["config"], "data": source}) | names | numbers
        free = re.compile(r"^method(\.base\.config)*\.sample(\.|$)|\.(remat|accumulate)$")
        return {name: value for name, value in found.items() if not free.search(name)}

    def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
        names = [name for name in sorted(a | b) if a.get(name) != b.get(name)]
        return [f"{name}: {_brief(a.get(name))} → {_brief(b.get(name))}" for name in names]

    def spec(tree: Mapping[str, Any]) -> dict[str, Any]:
        return flat({"spec": tree.get("spec", {})})

    # The same set by name may have other examples now (a folder's, say): another order, another run.
    return differing(identity(old), identity(new)) or differing(spec(old), spec(new))


def _brief(value: Any) -> str:
    """A field as JSON; of one that is longer than a line (a vocabulary), the start and a checksum of the whole."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}… (CRC {zlib.crc32(text.encode()):08x})"


def without_place(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json tree without the place of the data, which may be another one on each machine."""
    data = config["data"]
    source = {k: v for k, v in data["config"].items() if k != "data_dir"}
    return {**config, "data": {**data, "config": source}}


def check_identity(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises a ValueError with the differing fields when `workdir` holds another run, or files that are no run."""
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"{workdir} is a file; pass another --workdir")
    if (workdir / CONFIG).is_file():
        if differing := differing_identity(read_config(workdir), config):
            raise ValueError(
                f"{workdir} holds another run:\n  "
                + "\n  ".join(differing)
                + "\npass another --workdir, or these values"
            )
    elif has_checkpoints(workdir) or (workdir / METRICS).exists():
        raise ValueError(
            f"{workdir} holds checkpoints or metrics but no {CONFIG}: not touching them; pass another --workdir"
        )


def write_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json whole or not at all."""
    with replacing(workdir / CONFIG) as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


def source(text: str) -> tuple[Path, str]:
    """The run's directory and the subtree of an `init_from` value, `RUN:SUBTREE`.

    Raises:
      ValueError: it is not of that form.
    """
    run, _, subtree = text.rpartition(":")
    if not run or not subtree:
        raise ValueError(f"init_from takes RUN:SUBTREE, such as runs/sft:params, not {text!r}")
    return Path(run), subtree


def copy_sources(workdir: Path, init_from: Mapping[str, str]) -> None:
    """Copies the config.json of every run that this one starts from to init_from/NAME.json."""
    for name, text in init_from.items():
        (workdir / "init_from").mkdir(exist_ok=True)
        shutil.copyfile(source(text)[0] / CONFIG, workdir / "init_from" / f"{name}.json")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the run for this process, cleared of the files that a killed one left half written.

    The lock goes with the process, however it ends.

    Raises:
      ValueError: another process trains in `workdir`.
    """
    with (workdir / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is training in {workdir}; wait for it, or pass another --workdir"
            ) from None
        clear(*(workdir / name for name in (CONFIG, METRICS, CURVES)), workdir / SAMPLES / "*")
        yield
