"""Documents: the texts of a bundled set, of a file, of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxgen.config import closest
from jaxgen.data import bundled
from jaxgen.data.dataset import unknown

SPLITS = ("train", "validation", "test")
NEUTRAL = 0.5  # reviews rated within ± this are in neither class


class Document(NamedTuple):
    """A text, the split it belongs to, and its class, "" where it has none."""

    split: str
    text: str
    label: str = ""


def of_bundled(name: str, label: str) -> Iterator[Document]:
    """The documents of "speeches" or "reviews"; reviews with a `label` are the positive and the negative ones."""
    for record in bundled.records(name):
        if name != "reviews" or not label:
            yield Document(record["split"], record["text"])
        elif abs(record["rating"]) > NEUTRAL:
            yield Document(record["split"], record["text"], "positive" if record["rating"] > 0 else "negative")


def of_file(file: Path, split: str, field: str, label: str) -> Iterator[Document]:
    """The documents of a file: a .jsonl has one a line, any other is one."""
    try:
        with file.open(encoding="utf-8") as lines:
            if file.suffix != ".jsonl":
                if label:
                    raise ValueError(f"{file} has no classes: leave out --data.label, or bring objects in a .jsonl")
                yield Document(split, lines.read())
                return
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    text, own = record[field], record.get("split", split)
                    name = str(record[label]) if label else ""
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(
                        f"{file}, line {number}: {error!r}; a JSON object with {field!r} is needed"
                    ) from None
                if own not in SPLITS or not isinstance(text, str):
                    raise ValueError(f"{file}, line {number}: split {own!r}{closest(str(own), SPLITS)}, or no text")
                yield Document(own, text, name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} holds text that is not UTF-8: {error}; convert it first") from None


def text_files(name: str) -> dict[Path, str]:
    """The files of a `Text.name` that is no bundled set → the split of each."""
    kind, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    if kind == "file" and rest:
        if not path.is_file():
            raise FileNotFoundError(f"no text file {path}")
        return {path: "train"}
    if kind != "folder" or not rest:
        raise unknown("text", name, (*bundled.RECORDS, "file:PATH", "folder:DIR"))
    found = sorted(file for file in path.rglob("*") if file.suffix in (".txt", ".jsonl") and file.is_file())
    if not found:
        raise FileNotFoundError(f"no .txt or .jsonl files in {path}")
    top = lambda file: file.relative_to(path).parts[0]
    stem = lambda file: top(file).partition(".")[0]  # both train/… and train.jsonl are of the split train
    return {file: stem(file) if stem(file) in SPLITS else "train" for file in found}
