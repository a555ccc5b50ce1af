"""Text as tokens: documents → a tokenizer → one memory-mapped file a split → rows (`packing`).

A document begins and ends with the tokenizer's tokens for that. Tokenising is done once: a folder, named by what is
tokenised and how, keeps the tokens, where each document begins, and the tokenizer, which travels in the `Spec` too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import bundled, tokenizer
from jaxgen.data.dataset import Batch, Dataset, Spec, num_held_out
from jaxgen.data.documents import SPLITS, Document, of_bundled, of_file, text_files
from jaxgen.data.packing import Packing, Pieces, pack
from jaxgen.data.pairs import pairs
from jaxgen.data.tasks import of_task
from jaxgen.data.tokenizer import Tokenizer

VERSION = 1  # of the files; another one tokenises anew


@dataclass(frozen=True)
class Text:
    """Rows of tokens: keys `tokens` and `segment`, both int32 [length], and `label` int32 where it has classes.

    `segment` counts the row's pieces of documents from 1 and is 0 where the row is padded. Pairs have `types` int32
    [length] and a `label` of their own, see `jaxgen.data.pairs`.
    """

    name: str = "speeches"
    """speeches or reviews (bundled), tasks:NAME (made up, see `jaxgen.data.tasks`), file:PATH (a .jsonl with a document
    a line, or one document), or folder:DIR (all .jsonl and .txt in it; those in or named train, validation, test are of
    these splits)."""
    tokenizer: str = "bpe:2048"
    """bytes; bpe:SIZE or wordpiece:SIZE, learned from the training text, or bpe:SIZE@NAME from that of another text;
    run:DIR, another run's; or the file or folder of one: GPT-2's vocab.json and merges.txt, BERT's vocab.txt, …"""
    length: int = 256
    """Tokens of a row."""
    packing: Packing = "stream"
    """`stream` cuts the documents end to end; `fit` fills rows with whole ones; `none` gives each its own; `pairs` puts
    two texts in a row, which follow each other or not."""
    field: str = "text"
    """Field of a .jsonl's objects that holds the text."""
    label: str = ""
    """Field that holds the class; `sentiment` for reviews, which leaves out the neutral ones; empty for none. Documents
    longer than a row are cut then."""
    validation: float = 0.05
    """Training documents that become the validation split, where there is none: a fraction below 1, or a number. Of a
    single document, the last part of its text."""
    few: int = 0
    """So many training rows alone, drawn at random, to learn from few labels; 0 for all."""
    few_seed: int = 0
    """Other ones for another seed."""
    data_dir: str | None = None
    """Where tokenised text is kept (default: ~/.cache/jaxgen/text)."""

    def load(self) -> Dataset:
        """Opens the tokens, which are made first if need be.

        Raises:
          ValueError: an unknown name, tokenizer or packing, a broken file, an option out of range.
          FileNotFoundError: no such file or folder, no text in it, or no tokenizer there.
        """
        if self.label and self.packing != "none":
            raise ValueError("classes are of whole documents: --data.label needs --data.packing none")
        return reduced(opened(self._stored(), self.length, self.packing), self.few, self.few_seed)

    def unread(self) -> Spec:
        """What can be said before the text is here: its rows, but no numbers of them, nor which tokens there are."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("tokens", "segment"), (self.length,))
        if self.packing == "pairs":
            shapes |= {"types": (self.length,), "label": ()}
        return Spec(shapes, dict.fromkeys(shapes, "int32"), {}, {}, {"tokens": (257,)}, tokenizer=tokenizer.BYTES)

    def documents(self) -> Iterator[Document]:
        """The documents as they are read, before some become the validation split."""
        if self.name in bundled.RECORDS:
            return of_bundled(self.name, self.label)
        kind, _, task = self.name.partition(":")
        if kind == "tasks":
            return of_task(task)
        return (
            d for file, split in text_files(self.name).items() for d in of_file(file, split, self.field, self.label)
        )

    def _stored(self) -> Path:
        """The folder of the tokens."""
        kept = self.kept_tokenizer()
        made = self.name in bundled.RECORDS or self.name.startswith("tasks:")
        stats = {} if made else {str(file.resolve()): file.stat() for file in text_files(self.name)}
        sizes = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()]
        source = [VERSION, self.name, sizes, self.field, self.label, self.validation]
        print_of = [*source, self.tokenizer if kept is None else kept.saved]
        name = hashlib.sha256(json.dumps(print_of).encode()).hexdigest()[:20]
        root = Path(self.data_dir or "~/.cache/jaxgen/text").expanduser()
        if not (root / name).is_dir():
            root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
            try:
                _write(temporary, self._split, kept or self._learned(), bool(self.label))
                with contextlib.suppress(OSError):  # another process was faster
                    os.rename(temporary, root / name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return root / name

    def kept_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that is there already; None where it is learned from the text."""
        kind, _, rest = self.tokenizer.partition(":")
        if self.tokenizer == tokenizer.BYTES:
            return Tokenizer(tokenizer.BYTES)
        if kind in ("bpe", "wordpiece"):
            size, _, other = rest.partition("@")
            if not size.isdigit():
                raise ValueError(f"data.tokenizer={self.tokenizer} must be {kind}:SIZE, such as {kind}:2048")
            if not other:
                return None
            source = dataclasses.replace(self, name=other, tokenizer=f"{kind}:{size}", field="text", label="")
            return Tokenizer(_read_meta(source._stored())["tokenizer"])
        if kind == "run" and rest:
            from jaxgen.runs import read_config

            return Tokenizer(read_config(Path(rest)).get("spec", {}).get("tokenizer", ""))
        if not Path(self.tokenizer).expanduser().exists():
            if "/" in self.tokenizer:
                raise FileNotFoundError(f"no tokenizer in data.tokenizer={self.tokenizer}")
            known = ("bytes", "bpe:SIZE", "wordpiece:SIZE", "run:DIR")
            raise ValueError(f"unknown data.tokenizer={self.tokenizer!r}: neither a file nor one of {', '.join(known)}")
        return tokenizer.read(self.tokenizer)

    def _learned(self) -> Tokenizer:
        kind, _, size = self.tokenizer.partition(":")
        return tokenizer.train(kind, int(size), (d.text for d in self._split() if d.split == "train"))

    def _split(self) -> Iterator[Document]:
        """The documents, some of train's as the validation split where there is none."""
        splits = [d.split for d in self.documents()]
        training = [i for i, split in enumerate(splits) if split == "train"]
        if not training:
            raise FileNotFoundError(f"{self.name} holds no training text")
        whole = "validation" in splits or self.validation == 0
        num = 0 if whole or len(training) == 1 else num_held_out(len(training), self.validation)
        order = np.random.default_rng(0).permutation(training)
        held = set(order[len(order) - num :].tolist())
        for i, document in enumerate(self.documents()):
            if i == training[0] and len(training) == 1 and not whole:
                cut = len(document.text) - num_held_out(len(document.text), self.validation)
                yield document._replace(text=document.text[:cut])
                yield document._replace(text=document.text[cut:], split="validation")
            else:
                yield document._replace(split="validation") if i in held else document


def _write(folder: Path, documents: Any, chosen: Tokenizer, labelled: bool) -> None:
    """Tokenises the documents into `folder`: SPLIT.tokens and SPLIT.npz (offsets, labels), and tokenizer.json."""
    dtype = np.dtype("<u2" if chosen.size <= 2**16 else "<u4")
    names = sorted({document.label for document in documents()} - {""}) if labelled else []
    lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
    labels: dict[str, list[int]] = {split: [] for split in SPLITS}
    with contextlib.ExitStack() as stack:
        files = {split: stack.enter_context((folder / f"{split}.tokens").open("wb")) for split in SPLITS}

        def flush(held: list[Document]) -> None:
            for document, tokens in zip(held, chosen.encode_all([d.text for d in held]), strict=True):
                array = np.array([chosen.begin, *tokens, chosen.end], dtype)
                files[document.split].write(array.tobytes())
                lengths[document.split].append(len(array))
                labels[document.split].append(names.index(document.label) if names else 0)

        held: list[Document] = []
        waiting = 0
        for document in documents():
            if document.text:
                held.append(document)
                waiting += len(document.text)
            if waiting > tokenizer.CHUNK:
                flush(held)
                held, waiting = [], 0
        flush(held)
    for split in SPLITS:
        offsets = np.concatenate([[0], np.cumsum(lengths[split])]).astype(np.int64)
        np.savez(folder / f"{split}.npz", offsets=offsets, labels=np.array(labels[split], np.int32))
    meta = {"dtype": dtype.str, "labels": names, "tokenizer": chosen.saved}
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")


def _read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text("utf-8"))


def opened(folder: Path, length: int, packing: Packing) -> Dataset:
    """The rows of the tokens in `folder`."""
    meta = _read_meta(folder)
    names, chosen = tuple(meta["labels"]), Tokenizer(meta["tokenizer"])
    tokens, places, pieces, labels = {}, {}, {}, {}
    for split in SPLITS:
        with np.load(folder / f"{split}.npz", allow_pickle=False) as saved:
            offsets, classes = saved["offsets"], saved["labels"]
        if len(offsets) == 1:
            continue
        tokens[split] = np.memmap(folder / f"{split}.tokens", dtype=np.dtype(meta["dtype"]), mode="r")
        places[split] = offsets
        if packing == "pairs":
            continue
        pieces[split] = pack(offsets, length, packing)
        if names:  # a row a document, cut where it is longer
            pieces[split] = Pieces(
                offsets[:-1], np.minimum(offsets[:-1] + length, offsets[1:]), np.arange(len(offsets))
            )
        labels[split] = classes
    if packing == "pairs":
        return pairs(tokens, places, length, chosen)
    keys = ("tokens", "segment", *(("label",) if names else ()))
    spec = Spec(
        shapes={key: () if key == "label" else (length,) for key in keys},
        dtypes=dict.fromkeys(keys, "int32"),
        counts={split: found.num_rows for split, found in pieces.items()},
        names={"label": names} if names else {},
        sizes={"tokens": (chosen.size,), **({"label": (len(names),)} if names else {})},
        tokenizer=chosen.saved,
    )

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        rows = np.zeros((2, len(indices), length), np.int32)
        starts, stops, first = pieces[split]
        for row, index in enumerate(np.asarray(indices).tolist()):
            place = 0
            for number, piece in enumerate(range(first[index], first[index + 1]), 1):
                end = place + stops[piece] - starts[piece]
                rows[0, row, place:end] = tokens[split][starts[piece] : stops[piece]]
                rows[1, row, place:end] = number
                place = end
        batch = {"tokens": rows[0], "segment": rows[1]}
        if names:
            batch["label"] = labels[split][np.asarray(indices)]
        return {key: batch[key] for key in keys}

    return Dataset(spec, read)


def reduced(data: Dataset, few: int, seed: int) -> Dataset:
    """The data with `few` of its training rows, drawn by `seed`; all for 0; ValueError where there are not so many."""
    if not few:
        return data
    count = data.spec.count("train")
    if not 0 < few <= count:
        raise ValueError(f"data.few={few} must be 0 (all) or more, and at most {count}, the training rows there are")
    kept = np.random.default_rng(seed).permutation(count)[:few]

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        return data.read(split, kept[np.asarray(indices)] if split == "train" else indices, keys)

    return Dataset(dataclasses.replace(data.spec, counts={**data.spec.counts, "train": few}), read)
