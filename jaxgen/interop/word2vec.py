"""The files of the word2vec program, text and binary, which gensim and others read and write as well.

Both start with a line `V D`. Text: a word and its D numbers a line. Binary: a word, a space, D little-endian float32;
the authors' program puts a line feed behind each vector, gensim does not, and both read both.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from jaxgen.report.atomic import replacing
from jaxgen.words.vectors import WordVectors


def write_word2vec(path: str | os.PathLike[str], vectors: WordVectors, *, binary: bool = False) -> None:
    """Writes vectors, atomically; text keeps every bit, as the shortest decimals that float32 reads back.

    Raises:
      ValueError: a name is empty or holds white space, which these files cannot tell from their own.
    """
    for word in vectors.words:
        if word.split() != [word]:
            raise ValueError(f"word2vec files part words by white space and cannot hold {word!r}; replace it")
    with replacing(path) as file:
        file.write(b"%d %d\n" % vectors.matrix.shape)
        for word, vector in zip(vectors.words, vectors.matrix.astype("<f4"), strict=True):
            numbers = vector.tobytes() if binary else " ".join(map(str, vector)).encode()
            file.write(word.encode() + b" " + numbers + b"\n")


def read_word2vec(path: str | os.PathLike[str], *, binary: bool | None = None, num: int | None = None) -> WordVectors:
    """Reads vectors.

    Args:
      path: the file.
      binary: which format; None: found out from the first vector.
      num: only the first so many, the most frequent words; all by default.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is neither, ends too early, or holds text that is not UTF-8.
    """
    path = Path(path)
    data = path.read_bytes()
    header, _, body = data.partition(b"\n")
    try:
        count, dim = map(int, header.split())
    except ValueError:
        raise ValueError(f"{path} is no word2vec file: it starts with {header[:40]!r}, not with `V D`") from None
    count = count if num is None else min(count, num)
    if binary is None:
        binary = not _is_text(body, dim)
    words, matrix = (_read_binary if binary else _read_text)(path, body, count, dim)
    return WordVectors(tuple(words), matrix)


def _is_text(body: bytes, dim: int) -> bool:
    fields = body.partition(b"\n")[0].split()
    try:
        return len([float(x) for x in fields[1:]]) == dim
    except ValueError:
        return False


def _decode(path: Path, word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} holds a word that is not UTF-8: {word[:40]!r}") from None


def _read_text(path: Path, body: bytes, count: int, dim: int) -> tuple[list[str], np.ndarray]:
    words, matrix = [], np.empty((count, dim), np.float32)
    lines = io.BytesIO(body)
    for row in range(count):
        fields = lines.readline().rstrip().split(b" ")
        if len(fields) != dim + 1:
            raise ValueError(
                f"{path} ends or breaks at vector {row + 1} of {count}: {len(fields) - 1} numbers, not {dim}"
            )
        words.append(_decode(path, fields[0]))
        try:
            matrix[row] = [np.float32(x) for x in fields[1:]]
        except ValueError:
            raise ValueError(f"{path}: vector {row + 1} of {count} holds what is no number") from None
    return words, matrix


def _read_binary(path: Path, body: bytes, count: int, dim: int) -> tuple[list[str], np.ndarray]:
    words, matrix, place = [], np.empty((count, dim), np.float32), 0
    for row in range(count):
        space = body.find(b" ", place)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(body):
            raise ValueError(f"{path} ends at vector {row + 1} of {count}; its copy may be incomplete")
        words.append(_decode(path, body[place:space].lstrip(b"\n")))
        matrix[row] = np.frombuffer(body, "<f4", dim, space + 1)
        place = end
    return words, matrix
