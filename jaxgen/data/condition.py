"""Conditions: what a sample is asked to be, as arrays and as a user types them.

A condition is a dict of the batch keys `label` [B], `attribute` [B, A] and `tokens` [B, T], int32. Nothing asked for is
-1 for a label or an attribute, 0 for a token; single attributes can be left open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxgen.config import closest
from jaxgen.data.dataset import Batch, Spec

OPEN = {"label": -1, "attribute": -1, "tokens": 0}
PADDING, UNKNOWN = "<pad>", "<unk>"
"""The first two words of every vocabulary of captions: padding is token 0, a word that is not in it token 1."""


def open_condition(spec: Spec, keys: Iterable[str], num: int) -> Batch:
    """The condition that asks for nothing: `{key: [num, ...]}`."""
    return {key: np.full((num, *spec.shape(key)), OPEN[key], np.int32) for key in keys}


def words(text: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def encode(texts: Iterable[str], vocabulary: Sequence[str], length: int) -> np.ndarray:
    """Captions as tokens, int32 [N, length]: cut at `length` words, padded with 0."""
    index = {word: i for i, word in enumerate(vocabulary)}
    rows = [[index.get(word, 1) for word in words(text)][:length] for text in texts]
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32).reshape(-1, length)


def _value(names: Sequence[str], size: int, text: str, what: str) -> int:
    """A label or attribute value by its number, its name, or its name without spaces and punctuation."""
    plain = lambda name: "_".join(words(name))  # noqa: E731
    if text.isdigit():
        value = int(text)
    elif plain(text) in (known := [plain(name) for name in names]):
        value = known.index(plain(text))
    else:
        raise ValueError(f"{what} has no value {text!r}{closest(text, names or map(str, range(size)))}")
    if value >= size:
        raise ValueError(f"{what} has the values 0 … {size - 1}, not {value}")
    return value


def parse(spec: Spec, keys: Sequence[str], text: str) -> dict[str, np.ndarray]:
    """One condition as a user types it, `smiling=1,glasses=0` or `label=boot` or a caption → `{key: [...]}`.

    Args:
      spec: the data's description: names and numbers of values.
      keys: the keys that the method takes.
      text: `name=value` pairs, parted by commas; with `tokens` among the keys, text without `=` is a caption.

    Raises:
      ValueError: a name or a value that does not exist, with the closest one; a caption without one known word.
    """
    cond = {key: value[0] for key, value in open_condition(spec, keys, 1).items()}
    names = list(spec.names.get("attribute", ())) if "attribute" in keys else []
    choices = names + (["label"] if "label" in keys else [])
    if "tokens" in keys and "=" not in text:
        vocabulary = spec.names["tokens"]
        cond["tokens"] = encode([text], vocabulary, spec.shape("tokens")[0])[0]
        if not (cond["tokens"] > 1).any():
            raise ValueError(f"no word of {text!r} is in the vocabulary{closest(text, vocabulary[2:])[:200]}")
        return cond
    for pair in filter(None, map(str.strip, text.split(","))):
        name, given, value = (part.strip() for part in pair.partition("="))
        if not given or name not in choices:
            hint = " or a caption" if "tokens" in keys else ""
            raise ValueError(f"a condition is NAME=VALUE{hint}, not {pair!r}{closest(name, choices)}")
        if name in names:
            place = names.index(name)
            cond["attribute"][place] = _value(spec.names.get(name, ()), spec.sizes["attribute"][place], value, name)
        else:
            cond["label"] = np.int32(_value(spec.names.get("label", ()), spec.sizes["label"][0], value, name))
    return cond


def unknown_words(spec: Spec, text: str) -> list[str]:
    """The words of a caption that are not in the vocabulary; none where `text` is no caption but NAME=VALUE pairs."""
    return [] if "=" in text else [word for word in words(text) if word not in set(spec.names["tokens"])]


def spread(conditions: Sequence[Mapping[str, np.ndarray]], num: int) -> Batch:
    """`num` rows of conditions: each of the given ones fills an equal run of rows, in their order.

    Raises:
      ValueError: more conditions than rows.
    """
    if len(conditions) > num:
        raise ValueError(f"{len(conditions)} conditions need as many samples or more, not {num}")
    rows = [i * len(conditions) // num for i in range(num)]
    return {key: np.stack([conditions[i][key] for i in rows]) for key in conditions[0]} if conditions else {}
