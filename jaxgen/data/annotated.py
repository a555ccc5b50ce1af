"""Texts with what a model is to tell of them: a class, the class of a pair, where an answer stands, a tag a word.

A .jsonl has an object a text, its `split` among the fields where it says so:

  text   {"text": "a fine film", "label": "good"}
  pair   {"text": "it rains", "pair": "the street is wet", "label": "follows"}
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

Kind = Literal["text", "pair", "span", "tag"]


class Row(NamedTuple):
    """Tokens of one or two texts, and what is told of them: a class, the place of a span, or a tag a token."""

    split: str
    first: list[int]
    second: list[int]
    told: Any


@dataclass(frozen=True)
class Annotated:
    """Rows [CLS] text [SEP] or [CLS] text [SEP] pair [SEP]: `tokens`, `segment`, `types`, all int32 [length].

    And `label` int32, `span` int32 [2], the places of the answer's first and last token, or `tags` int32 [length], -1
    but at the first token of each word.
    """

    name: str = "file:annotated.jsonl"
    """file:PATH, or folder:DIR: all .jsonl in it; those in or named train, validation, test are of these splits."""
    kind: Kind = "text"
    """What is told: the class of a `text` or of a `pair`, a `span` of the second text, or a `tag` a word."""
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
        arrays = {split: self._arrays([row for row in rows if row.split == split], names, chosen) for split in SPLITS}
        key = {"span": "span", "tag": "tags"}.get(self.kind, "label")
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
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
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
            tags = [[tag] + [None] * (len(word) - 1) for word, tag in zip(words, record["tags"], strict=True) if word]
            return Row(split, sum(words, []), [], sum(tags, []))
        first = chosen.encode(record["text"])
        if self.kind == "text":
            return Row(split, first, [], str(record["label"]))
        if self.kind == "pair":
            return Row(split, first, chosen.encode(record["pair"]), str(record["label"]))
        # Piece by piece, so that the answer is whole tokens wherever it begins.
        before, answer, after = record["pair"].partition(record["answer"])
        parts = chosen.encode_all([before, answer, after])
        if not parts[1]:
            raise ValueError(f"no {record['answer']!r} in {record['pair'][:60]!r}")
        return Row(split, first, sum(parts, []), (len(parts[0]), len(parts[0]) + len(parts[1]) - 1))

    def _names(self, told: Any) -> set[str]:
        return set() if self.kind == "span" else {told} if isinstance(told, str) else {tag for tag in told if tag}

    def _arrays(self, rows: list[Row], names: list[str], chosen: Tokenizer) -> dict[str, np.ndarray]:
        out = np.zeros((3, len(rows), self.length), np.int32)
        told = np.full((len(rows), *{"span": (2,), "tag": (self.length,)}.get(self.kind, ())), -1, np.int32)
        for i, row in enumerate(rows):
            room = self.length - (3 if row.second else 2)
            size = len(row.first)
            if size + len(row.second) > room:
                size = max(min(size, room // 2), room - len(row.second))
            first, second = row.first[:size], row.second[: room - size]
            write_pair(out[:, i], first, second, chosen)
            if self.kind == "span":
                if row.told[1] >= len(second):
                    raise ValueError(f"an answer of {self.name} is cut off: raise data.length={self.length}")
                told[i] = np.array(row.told) + len(first) + 2
            elif self.kind == "tag":
                tags = row.told[:size]
                told[i, 1 : 1 + len(tags)] = [-1 if tag is None else names.index(tag) for tag in tags]
            else:
                told[i] = names.index(row.told)
        key = {"span": "span", "tag": "tags"}.get(self.kind, "label")
        return {"tokens": out[0], "segment": out[1], "types": out[2], key: told}
