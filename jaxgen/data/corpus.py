"""Text as words: documents → sentences → lower-case words → the numbers of a vocabulary, in rows of one length.

The rows are cut from the documents laid end to end; where a sentence or a document ends stands beside each word, so
that no window crosses it. The vocabulary and its counts travel in the `Spec`, and with it in a run's config.json.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data import bundled
from jaxgen.data.dataset import Batch, Dataset, Spec, num_held_out, unknown
from jaxgen.data.phrases import Sentences, find_phrases, join_phrases

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+|[.,]\d+)*")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


class Document(NamedTuple):
    """A text as words, the split it belongs to, and its name."""

    name: str
    split: str
    sentences: Sentences


class Stream(NamedTuple):
    """The words of a split, end to end."""

    tokens: np.ndarray
    """The words' numbers in the vocabulary, int32 [W]."""
    sentence: np.ndarray
    """Which sentence of the split a word stands in, int32 [W]."""
    document: np.ndarray
    """Which training document a word stands in, int32 [W]; in the other splits -1 for the first, -2 for the second…"""


def split_words(text: str) -> Sentences:
    """Sentences of lower-case words; numbers are words, an apostrophe within a word stays, other signs go."""
    sentences = (WORD.findall(sentence) for sentence in SENTENCE_END.split(text.lower()))
    return [sentence for sentence in sentences if sentence]


@functools.cache
def _bundled(name: str) -> tuple[Document, ...]:
    def title(index: int, record: dict) -> str:
        return f"{record['name'].replace(' ', '_')}_{record['year']}" if name == "speeches" else f"review_{index}"

    records = enumerate(bundled.records(name))
    return tuple(Document(title(i, r), r["split"], split_words(r["text"])) for i, r in records)


def read_documents(name: str) -> Sequence[Document]:
    """The documents of a `Corpus.name`.

    Raises:
      ValueError: an unknown name, a file that is no UTF-8, or two files whose names differ in spaces alone.
      FileNotFoundError: no such file, or no .txt file in the folder.
    """
    kind, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    try:
        if kind == "file" and rest:
            if not path.is_file():
                raise FileNotFoundError(f"no text file {path}")
            lines = path.read_text("utf-8").splitlines()
            return [
                Document(f"line_{i}", "train", split_words(line)) for i, line in enumerate(lines, 1) if line.strip()
            ]
        if kind == "folder" and rest:
            files = sorted(file for file in path.rglob("*.txt") if file.is_file())
            if not files:
                raise FileNotFoundError(f"no .txt files in {path}")
            named: dict[str, Path] = {}
            for file in files:
                title = file.relative_to(path).with_suffix("").as_posix().replace(" ", "_")
                if (first := named.setdefault(title, file)) is not file:
                    raise ValueError(f"{first} and {file} would both be the document {title}: rename one of them")
            return [Document(title, "train", split_words(file.read_text("utf-8"))) for title, file in named.items()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds text that is not UTF-8: {error}; convert it first") from None
    if name not in bundled.RECORDS:
        raise unknown("text", name, (*bundled.RECORDS, "file:PATH", "folder:DIR"))
    return _bundled(name)


def count_words(sentences: Iterable[list[str]], min_count: int) -> dict[str, int]:
    """The words that occur `min_count` times or more → how often, the most frequent first, then by the alphabet."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    return dict(sorted(((w, n) for w, n in counts.items() if n >= min_count), key=lambda item: (-item[1], item[0])))


def number_words(documents: Iterable[Sentences], numbers: dict[str, int], held_out: bool = False) -> Stream:
    """The documents' words as one stream; words without a number are left out, as if they did not stand there.

    Documents are counted from 0 upwards, those `held_out` from -1 downwards: they have no vector of their own.
    """
    tokens: list[int] = []
    ends, document = [0], []
    for d, sentences in enumerate(documents):
        for words in sentences:
            tokens.extend(numbers[word] for word in words if word in numbers)
            ends.append(len(tokens))
            document.append(-1 - d if held_out else d)
    sentence = np.repeat(np.arange(len(document), dtype=np.int32), np.diff(ends))
    return Stream(np.array(tokens, np.int32), sentence, np.array(document, np.int32)[sentence])


def encode(texts: Iterable[str], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """New texts in the words of a vocabulary, one a row: `tokens` and `segment`, both int32 [N, T].

    T is the longest text's number of known words, 1 at least; `segment` counts a text's sentences from 1 and is 0
    behind its end. Phrases of the vocabulary (`new_york`) are joined, the shortest first.
    """
    numbers = {word: i for i, word in enumerate(words)}
    phrases = [word for word in words if "_" in word]
    rows = []
    for text in texts:
        sentences = split_words(text)
        for _ in range(max((phrase.count("_") for phrase in phrases), default=0)):
            sentences = [join_phrases(sentence, numbers) for sentence in sentences]
        rows.append(number_words([sentences], numbers))
    length = max([1, *(len(row.tokens) for row in rows)])
    pad = lambda x: np.pad(x, (0, length - len(x)))
    return np.stack([pad(row.tokens) for row in rows]), np.stack([pad(row.sentence + 1) for row in rows])


@dataclass(frozen=True)
class Corpus:
    """A text's words in rows: keys `tokens`, `segment`, `document`, all int32 [length].

    `segment` counts the row's sentences from 1 and is 0 where the row is padded; `document` is the number of the
    training document that a word stands in, and below 0 in the other splits. The spec names and counts both (`names`,
    `frequencies`): the vocabulary, the most frequent word first, and the training documents.
    """

    name: str = "speeches"
    """speeches or reviews (bundled), file:PATH (a document a line) or folder:DIR (a document a .txt file)."""
    length: int = 1024
    """Words in a row."""
    min_count: int = 5
    """Words that occur less often in the training text are left out."""
    phrases: int = 0
    """Passes that join pairs of words to phrases such as new_york; 2 passes find phrases of up to four words."""
    phrase_threshold: float = 100.0
    """Score above which a pair is joined."""
    validation: float = 0.05
    """Training documents that become the validation split: a fraction below 1, or a number; the same ones each time."""

    def load(self) -> Dataset:
        """Reads the text; the words of all splits stay in memory.

        Raises:
          ValueError: an unknown name, or as for `of`.
          FileNotFoundError: no such file or folder.
        """
        return self.of(read_documents(self.name))

    def of(self, documents: Sequence[Document]) -> Dataset:
        """The data set of these documents in place of those of `name`; those without a word are left out.

        Raises:
          ValueError: an option out of range, or a text without two words that are frequent enough.
        """
        for option, least in (("length", 1), ("min_count", 1), ("phrases", 0)):
            if getattr(self, option) < least:
                raise ValueError(f"{option}={getattr(self, option)} must be {least} or more")
        documents = self._prepared(documents)
        training = [d for d in documents if d.split == "train"]
        counts = count_words((s for d in training for s in d.sentences), self.min_count)
        if len(counts) < 2:
            raise ValueError(
                f"{self.name} has {len(counts)} word(s) that occur {self.min_count} times or more, and two are the "
                "least to learn from: lower min_count, or bring more text"
            )
        numbers = {word: i for i, word in enumerate(counts)}
        streams = {"train": number_words([d.sentences for d in training], numbers)}
        for split in ("validation", "test"):
            held = number_words([d.sentences for d in documents if d.split == split], numbers, held_out=True)
            streams |= {split: held} if len(held.tokens) else {}
        return rows_of(streams, self.length, counts, [d.name for d in training])

    def _prepared(self, documents: Sequence[Document]) -> list[Document]:
        documents = [d for d in documents if d.sentences]
        training = [i for i, d in enumerate(documents) if d.split == "train"]
        if training:
            order = np.random.default_rng(0).permutation(training).tolist()
            for i in order[len(order) - num_held_out(len(order), self.validation) :]:
                documents[i] = documents[i]._replace(split="validation")
        for _ in range(self.phrases):
            text = (s for d in documents if d.split == "train" for s in d.sentences)
            phrases = find_phrases(text, self.min_count, self.phrase_threshold)
            joined = ([join_phrases(s, phrases) for s in d.sentences] for d in documents)
            documents = [d._replace(sentences=sentences) for d, sentences in zip(documents, joined, strict=True)]
        return documents


def rows_of(streams: dict[str, Stream], length: int, counts: dict[str, int], documents: Sequence[str]) -> Dataset:
    """The `Dataset` of rows of `length` words; `counts` and `documents` name what the streams number."""
    train = streams["train"]
    spec = Spec(
        shapes={key: (length,) for key in ("tokens", "segment", "document")},
        dtypes={key: "int32" for key in ("tokens", "segment", "document")},
        counts={split: -(-len(stream.tokens) // length) for split, stream in streams.items()},
        names={"tokens": tuple(counts), "document": tuple(documents)},
        sizes={"tokens": (len(counts),), "document": (len(documents),)},
        frequencies={
            "tokens": tuple(counts.values()),
            "document": tuple(np.bincount(train.document, minlength=len(documents)).tolist()),
        },
    )

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        stream = streams[split]
        places = np.asarray(indices)[:, None] * length + np.arange(length)
        there = places < len(stream.tokens)
        places = np.where(there, places, places[:, :1])
        sentence = stream.sentence[places]
        batch = {
            "tokens": np.where(there, stream.tokens[places], 0),
            "segment": np.where(there, sentence - sentence[:, :1] + 1, 0),
            "document": stream.document[places],
        }
        return {key: batch[key] for key in keys}

    return Dataset(spec, read)
