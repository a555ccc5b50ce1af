"""Texts with what a model is to tell of them: a class, that of a pair, which of some goes on, a span, a tag a word.

A .jsonl has an object a text, its `split` among the fields where it says so:

  text   {"text": "a fine film", "label": "good"}
  pair   {"text": "it rains", "pair": "the street is wet", "label": "follows"}
  choice {"text": "it rains", "choices": ["the sun shines", "the street is wet"], "label": 1}, counted from 0
  span   {"text": "who won?", "pair": "in the end ann won", "answer": "ann"}, the answer's first place in `pair`
  tag    {"words": ["ann", "sees", "rome"], "tags": ["person", "none", "place"]}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxgen.config import check_choice
from jaxgen.data.dataset import Dataset, in_memory, num_held_out
from jaxgen.data.documents import SPLITS, text_files
from jaxgen.data.pairs import write_pair
from jaxgen.data.text import Text
from jaxgen.data.tokenizer import Tokenizer

Kind = Literal["text", "pair", "choice", "span", "tag"]
KEYS = {"span": "span", "tag": "tags"}  # what is told; `label` elsewhere


class Row(NamedTuple):
    """Tokens of a text and of those beside it, and what is told: a class, the place of a span, or a tag a token."""

    split: str
    first: list[int]
    others: list[list[int]]
    told: Any


@dataclass(frozen=True)
class Annotated:
    """Rows [CLS] text [SEP] or [CLS] text [SEP] pair [SEP]: `tokens`, `segment`, `types`, all int32 [length].

    Choices have such a row each, [choices, length]. And `label` int32, `span` int32 [2], the places of the answer's
    first and last token, or `tags` int32 [length], -1 but at the first token of each word.
    """

    name: str = "file:annotated.jsonl"
    """file:PATH, or folder:DIR: all .jsonl in it; those in or named train, validation, test are of these splits."""
    kind: Kind = "text"
    """What is told: the class of a `text` or of a `pair`, the right `choice`, a `span` of the second text, or a `tag` a
    word."""
    tokenizer: str = "wordpiece:8192@speeches"
    """See `Text.tokenizer`; one that is there already: run:DIR, a file or a folder, or that of another text."""
    length: int = 128
    """Tokens of a row; what is longer is cut at its end, the longer text first."""
    validation: float = 0.1
    """Training rows that become the validation split, where there is none: a fraction below 1, or a number."""

    def load(self) -> Dataset:
        """Reads and tokenises the texts, which stay in memory.

        Raises:
          ValueError: an unknown kind or tokenizer, a line that is broken or lacks a field, a span that is cut off.
          FileNotFoundError: no such file.
        """
        check_choice("data.kind", self.kind, get_args(Kind))
        chosen = self._tokenizer()
        rows = list(self._rows(chosen))
        if not any(row.split == "train" for row in rows):
            raise FileNotFoundError(f"{self.name} holds no training text")
        if not any(row.split == "validation" for row in rows) and self.validation:
            training = [i for i, row in enumerate(rows) if row.split == "train"]
            held = np.random.default_rng(0).permutation(training)[: num_held_out(len(training), self.validation)]
            for i in held.tolist():
                rows[i] = rows[i]._replace(split="validation")
        names = sorted({name for row in rows for name in self._names(row.told)})
        num_choices = {len(row.others) for row in rows} if self.kind == "choice" else set()
        if len(num_choices) > 1:
            raise ValueError(f"{self.name} has texts of {sorted(num_choices)} choices: all need as many")
        names = [str(i) for n in num_choices for i in range(n)] or names
        arrays = {split: self._arrays([row for row in rows if row.split == split], names, chosen) for split in SPLITS}
        key = KEYS.get(self.kind, "label")
        classes = {} if key == "span" else {key: (len(names),)}
        called = {key: tuple(names)} if classes else {}
        data = in_memory(arrays, names=called, sizes={"tokens": (chosen.size,), **classes})
        return data._replace(spec=dataclasses.replace(data.spec, tokenizer=chosen.saved))

    def _tokenizer(self) -> Tokenizer:
        kept = Text(self.name, self.tokenizer).kept_tokenizer()
        if kept is None:
            raise ValueError(f"data.tokenizer={self.tokenizer} would be learned: name one that is there, or @TEXT")
        return kept

    def _rows(self, chosen: Tokenizer) -> Iterator[Row]:
        for file, split in text_files(self.name).items():
            if self.name.startswith("folder:") and file.suffix != ".jsonl":
                continue
            with open(file, "rb") as lines:  # JSON's strings may hold what str.splitlines takes for the end of a line
                for number, line in enumerate(lines, 1):
                    try:
                        if line.strip():
                            yield self._row(json.loads(line), split, chosen)
                    except (ValueError, TypeError, KeyError, AttributeError) as error:
                        raise ValueError(f"{file}, line {number}: {error!r}; {self.kind} needs other fields") from None

    def _row(self, record: Mapping[str, Any], split: str, chosen: Tokenizer) -> Row:
        split = record.get("split", split)
        check_choice("split", split, SPLITS)
        if self.kind == "tag":
            words = chosen.encode_all(record["words"])
            told = ["" if tag is None else str(tag) for tag in record["tags"]]
            tags = [[tag] + [""] * (len(word) - 1) for word, tag in zip(words, told, strict=True) if word]
            return Row(split, sum(words, []), [[]], sum(tags, []))
        first = chosen.encode(record["text"])
        if self.kind == "text":
            return Row(split, first, [[]], str(record["label"]))
        if self.kind == "pair":
            return Row(split, first, [chosen.encode(record["pair"])], str(record["label"]))
        if self.kind == "choice":
            choices, right = chosen.encode_all(record["choices"]), int(record["label"])
            if not 0 <= right < len(choices):
                raise ValueError(f"label {right} is none of {len(choices)} choices, counted from 0")
            return Row(split, first, choices, str(right))
        # Piece by piece, so that the answer is whole tokens wherever it begins.
        before, answer, after = record["pair"].partition(record["answer"])
        parts = chosen.encode_all([before, answer, after])
        if not parts[1]:
            raise ValueError(f"no {record['answer']!r} in {record['pair'][:60]!r}")
        return Row(split, first, [sum(parts, [])], (len(parts[0]), len(parts[0]) + len(parts[1]) - 1))

    def _names(self, told: Any) -> set[str]:
        return set() if self.kind == "span" else {told} if isinstance(told, str) else {tag for tag in told if tag}

    def _arrays(self, rows: list[Row], names: list[str], chosen: Tokenizer) -> dict[str, np.ndarray]:
        each = len(names) if self.kind == "choice" else 1
        out = np.zeros((3, len(rows), each, self.length), np.int32)
        told = np.full((len(rows), *{"span": (2,), "tag": (self.length,)}.get(self.kind, ())), -1, np.int32)
        for i, row in enumerate(rows):
            for j, other in enumerate(row.others):
                first, second = self._fitting(row.first, other)
                write_pair(out[:, i, j], first, second, chosen)
            if self.kind == "span":
                if row.told[1] >= len(second):
                    raise ValueError(f"an answer of {self.name} is cut off: raise data.length={self.length}")
                told[i] = np.array(row.told) + len(first) + 2
            elif self.kind == "tag":
                tags = row.told[: len(first)]
                told[i, 1 : 1 + len(tags)] = [names.index(tag) if tag else -1 for tag in tags]
            else:
                told[i] = names.index(row.told)
        out = out if self.kind == "choice" else out[:, :, 0]
        return {"tokens": out[0], "segment": out[1], "types": out[2], KEYS.get(self.kind, "label"): told}

    def _fitting(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Two texts, the second may be empty, cut to the room of a row."""
        room, size = self.length - (3 if second else 2), len(first)
        if size + len(second) > room:
            size = max(min(size, room // 2), room - len(second))
        return first[:size], second[: room - size]
