"""Vectors by name: nearest words, analogies, similarities, and the evaluations that are usual for them.

Analogies by 3CosAdd (Mikolov et al. 2013, NAACL): a is to b as c is to argmax_d cos(d, b − a + c), a, b and c left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import closest


def neighbors(table: jax.Array, rows: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """Each of `rows` [N] of a `table` [V, D] and its `num` nearest others by cosine.

    Returns:
      Their numbers, int32 [N, 1 + num], the row itself first, and their cosines with it.
    """
    unit = table / jnp.maximum(jnp.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    cosines = (unit[rows] @ unit.T).at[jnp.arange(len(rows)), rows].set(2.0)  # a row comes before its neighbours
    similarity, found = jax.lax.top_k(cosines, num + 1)
    return found, jnp.minimum(similarity, 1.0)


class Score(NamedTuple):
    """How an evaluation went."""

    correct: int
    """Questions with the expected answer in the first place."""
    asked: int
    """Questions whose words all have vectors."""
    skipped: int
    """The others."""

    @property
    def accuracy(self) -> float:
        """The share of those asked; NaN when there were none."""
        return self.correct / self.asked if self.asked else float("nan")


class Correlation(NamedTuple):
    """How cosines agree with people's judgements."""

    spearman: float
    """Rank correlation, NaN with fewer than two pairs."""
    pairs: int
    """Pairs whose words both have vectors."""
    skipped: int
    """The others."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Names and their vectors; the names may be documents' as well."""

    words: tuple[str, ...]
    """Distinct names; the most frequent first, if they were counted."""
    matrix: np.ndarray
    """Their vectors, float32 [V, D]."""

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.words) != len(self.matrix):
            raise ValueError(f"{len(self.words)} words need a matrix [{len(self.words)}, D], not {self.matrix.shape}")
        if len(self.numbers) != len(self.words):
            raise ValueError(f"{len(self.words) - len(self.numbers)} words stand there twice or more")
        object.__setattr__(self, "matrix", np.array(self.matrix, np.float32))  # a copy that nobody changes
        self.matrix.setflags(write=False)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word → its row."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> np.ndarray:
        """The vectors at length 1, [V, D]; a vector of zeros stays one."""
        return self.matrix / np.maximum(np.linalg.norm(self.matrix, axis=1, keepdims=True), 1e-12)

    def __contains__(self, word: str) -> bool:
        return word in self.numbers

    def __len__(self) -> int:
        return len(self.words)

    def number(self, word: str) -> int:
        """The row of a word; ValueError, with the closest one, when it has none."""
        if word not in self.numbers:
            raise ValueError(f"no vector for {word!r}{closest(word, self.words[:20_000])}")
        return self.numbers[word]

    def __getitem__(self, word: str) -> np.ndarray:
        """The vector [D] of a word; ValueError when it has none."""
        return self.matrix[self.number(word)]

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words; ValueError when one has no vector."""
        return float(self.unit[self.number(a)] @ self.unit[self.number(b)])

    def most_similar(
        self, positive: str | Sequence[str], negative: Sequence[str] = (), num: int = 10
    ) -> list[tuple[str, float]]:
        """The `num` words nearest to the mean of unit vectors, `negative` ones turned round; those asked for left out.

        `most_similar(["king", "woman"], ["man"])` asks what is to woman as king is to man.

        Raises:
          ValueError: a word without a vector, or no word at all.
        """
        positive = [positive] if isinstance(positive, str) else list(positive)
        asked = [self.number(word) for word in (*positive, *negative)]
        if not asked:
            raise ValueError("most_similar needs a word to start from")
        signs = np.repeat([1.0, -1.0], [len(positive), len(negative)]).astype(np.float32)
        mean = (signs[:, None] * self.unit[asked]).mean(0)
        cosines = self.unit @ (mean / max(float(np.linalg.norm(mean)), 1e-12))
        cosines[asked] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(num, len(self) - len(set(asked)))]
        return [(self.words[i], float(cosines[i])) for i in best]

    def analogies(
        self, questions: str | os.PathLike[str] | Iterable[str], most_frequent: int = 300_000
    ) -> dict[str, Score]:
        """Answers analogies: `a b c d` a line, asking for d; lines `: name` open a section (`questions-words.txt`).

        Args:
          questions: a file of them, or the lines. Words are looked up as they stand, or else in lower case.
          most_frequent: only so many of the first words are asked for, and answered with.

        Returns:
          Section → score, and `total`.

        Raises:
          ValueError: a line that is no question.
        """
        unit, section = self.unit[:most_frequent], "questions"
        asked: dict[str, list[list[int | None]]] = {}
        for number, line in enumerate(_lines(questions), 1):
            words = line.split()
            if line.startswith(":"):
                section = line[1:].strip()
            elif len(words) == 4:
                asked.setdefault(section, []).append([self._find(word, most_frequent) for word in words])
            else:
                raise ValueError(f"line {number} of the questions is no `a b c d`: {line!r}")
        scores = {}
        for section, rows in asked.items():
            known = np.array([row for row in rows if None not in row], np.int64).reshape(-1, 4)
            right = sum(_answered(unit, part) for part in np.array_split(known, len(known) // 512 + 1))
            scores[section] = Score(right, len(known), len(rows) - len(known))
        return scores | {"total": Score(*(sum(score[i] for score in scores.values()) for i in range(3)))}

    def similarities(self, pairs: str | os.PathLike[str] | Iterable[str]) -> Correlation:
        """How cosines rank pairs of words beside people: `a b score` a line, parted by tabs, commas or spaces.

        Args:
          pairs: a file (wordsim353.tsv, say), or the lines; one that starts with # is a comment. Words are looked up as
            they stand, or else in lower case.

        Raises:
          ValueError: a line that is no such triple.
        """
        from scipy.stats import spearmanr  # comes with jax

        judged, skipped = [], 0
        for number, line in enumerate(_lines(pairs), 1):
            if line.startswith("#"):
                continue
            try:
                a, b, score = re.split(r"[\t,]" if re.search(r"[\t,]", line) else r"\s+", line)
                judgement = float(score)
            except ValueError:
                raise ValueError(f"line {number} of the pairs is no `a b score`: {line!r}") from None
            i, j = self._find(a.strip()), self._find(b.strip())
            if i is None or j is None:
                skipped += 1
            else:
                judged.append((float(self.unit[i] @ self.unit[j]), judgement))
        if len(judged) < 2:
            return Correlation(float("nan"), len(judged), skipped)
        return Correlation(float(spearmanr(*zip(*judged, strict=True)).statistic), len(judged), skipped)

    def _find(self, word: str, most_frequent: int | None = None) -> int | None:
        found = self.numbers.get(word, self.numbers.get(word.lower()))
        return None if found is None or (most_frequent is not None and found >= most_frequent) else found


def _lines(source: str | os.PathLike[str] | Iterable[str]) -> list[str]:
    lines = Path(source).read_text("utf-8").splitlines() if isinstance(source, (str, os.PathLike)) else source
    return [line.strip() for line in lines if line.strip()]


def _answered(unit: np.ndarray, questions: np.ndarray) -> int:
    """How many of the questions [N, 4] have their fourth word nearest to b − a + c, other than a, b and c."""
    a, b, c, d = questions.T
    cosines = (unit[b] - unit[a] + unit[c]) @ unit.T  # times a length that is the same for all answers
    np.put_along_axis(cosines, questions[:, :3], -np.inf, 1)
    return int((cosines.argmax(1) == d).sum())


def params_of_run(workdir: str | os.PathLike[str], checkpoint: str = "last") -> dict[str, jax.Array]:
    """The tables that a run of word2vec or doc2vec has learned: `input`, `output` and, of doc2vec, `document`.

    Args:
      workdir: the run's directory; nothing else is needed.
      checkpoint: `last`, `best`, or a step.

    Raises:
      FileNotFoundError: no run there.
      ValueError: it is a run of another method, or has no such checkpoint.
    """
    from jaxgen import sharding, trained  # it knows every family, this one included
    from jaxgen.config import MeshConfig

    run = trained.open_run(Path(workdir))
    if "tokens" not in run.spec.frequencies:
        raise ValueError(f"{workdir} is no run of word2vec or doc2vec: its data has no counted words")
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        return trained.restore(run, trained.layout(run, mesh), checkpoint).state["params"]


def of_run(workdir: str | os.PathLike[str], kind: str = "tokens", checkpoint: str = "last") -> WordVectors:
    """The vectors that a run has learned, by name; see `params_of_run`.

    `kind` is `tokens`, the words, or `document`, the training documents of doc2vec.

    Raises:
      ValueError: the run has no such vectors.
    """
    from jaxgen.trained import open_run

    params = params_of_run(workdir, checkpoint)
    table = {"tokens": "input", "document": "document"}.get(kind, kind)
    if table not in params:
        raise ValueError(f"{workdir} has no vectors of {kind!r}; there are tokens, and document in a run of doc2vec")
    return WordVectors(open_run(Path(workdir)).spec.names[kind], np.asarray(params[table]))
