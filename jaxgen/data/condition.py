"""Conditions: what a sample is asked to be, as arrays and as a user types them.

A condition is a dict of the batch keys `label` [B], `attribute` [B, A], `tokens` [B, T] and `user` [B], of `word` [B],
one of the vocabulary, of `title` [B], a training document, of `prompt` [B, P], the tokens that a text begins with, at
the right ends of the rows, and of `masked` [B, P], a text with blanks, at the left ends; all int32. Nothing asked for
is 0 for a token and -1 for the others; single attributes can be left open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import closest
from jaxgen.data.dataset import Batch, Spec
from jaxgen.data.tokenizer import Tokenizer

OPEN = {"label": -1, "attribute": -1, "tokens": 0, "user": -1, "word": -1, "title": -1, "prompt": -1, "masked": -1}
NAMED = {"user": "user", "word": "tokens", "title": "document"}
"""The conditions that are asked for by name alone → where the spec's `names` has theirs."""
PADDING, UNKNOWN = "<pad>", "<unk>"
"""The first two words of every vocabulary of captions: padding is token 0, a word that is not in it token 1."""


def open_condition(spec: Spec, keys: Iterable[str], num: int) -> Batch:
    """The condition that asks for nothing: `{key: [num, ...]}`."""
    shapes = {key: () if key in NAMED else spec.shape(key) for key in keys}
    return {key: np.full((num, *shape), OPEN[key], np.int32) for key, shape in shapes.items()}


def check_keys(cond: Mapping[str, jax.Array] | None, *known: str) -> None:
    """Raises a ValueError, for a method's `sample`, when `cond` asks for more than the `known` conditions."""
    if odd := sorted((cond or {}).keys() - set(known)):
        raise ValueError(f"this model cannot take the condition {odd[0]}; those it takes: {', '.join(known) or 'none'}")


def asked_or(drawn: jax.Array, cond: Mapping[str, jax.Array] | None, key: str) -> jax.Array:
    """The numbers that `cond` has under `key`, and those `drawn` [num] where it asks for none; see `check_keys`."""
    check_keys(cond, key)
    return jnp.where(cond[key] < 0, drawn, cond[key]) if cond else drawn


def words(text: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def encode(texts: Iterable[str], vocabulary: Sequence[str], length: int) -> np.ndarray:
    """Captions as tokens, int32 [N, length]: cut at `length` words, padded with 0."""
    index = {word: i for i, word in enumerate(vocabulary)}
    rows = [[index.get(word, 1) for word in words(text)][:length] for text in texts]
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32).reshape(-1, length)


def _named(names: Sequence[str], text: str, what: str) -> int:
    """The number of a name as it stands, or of the only one that differs from it in case and signs alone."""
    if text in names:
        return names.index(text)
    plain = lambda name: re.sub(r"[\W_]+", "_", name.lower())
    alike = [i for i, name in enumerate(names) if plain(name) == plain(text)]
    if len(alike) != 1:
        raise ValueError(f"{what} has no value {text!r}{closest(text, names)}")
    return alike[0]


def _value(names: Sequence[str], size: int, text: str, what: str) -> int:
    """A label or attribute value by its number or its name."""
    if not text.isdigit():
        return _named(names or [str(i) for i in range(size)], text, what)
    if int(text) >= size:
        raise ValueError(f"{what} has the values 0 … {size - 1}, not {int(text)}")
    return int(text)


def parse(spec: Spec, keys: Sequence[str], text: str) -> dict[str, np.ndarray]:
    """One condition as a user types it, `smiling=1,glasses=0` or `label=boot` or a caption → `{key: [...]}`.

    A `user`, a `word` and a `title` have names alone, since a number may be one of them, and stand alone, since there
    may be commas in a name.

    Args:
      spec: the data's description: names and numbers of values.
      keys: the keys that the method takes.
      text: `name=value` pairs, parted by commas; with `tokens` among the keys, text without `=` is a caption; with
        `prompt`, the text that is to be continued; with `masked`, one with blanks, which special tokens stand for.

    Raises:
      ValueError: a name or a value that does not exist, with the closest one; a caption without one known word.
    """
    if "prompt" in keys:
        tokenizer = Tokenizer(spec.tokenizer)
        return {"prompt": np.array([tokenizer.begin, *tokenizer.encode(text)], np.int32)}
    if "masked" in keys:
        tokenizer = Tokenizer(spec.tokenizer)
        return {"masked": np.array([tokenizer.begin, *tokenizer.encode_marked(text), tokenizer.end], np.int32)}
    cond = {key: value[0] for key, value in open_condition(spec, keys, 1).items()}
    names = list(spec.names.get("attribute", ())) if "attribute" in keys else []
    choices = names + [key for key in ("label", *NAMED) if key in keys]
    if "tokens" in keys and "=" not in text:
        vocabulary = spec.names["tokens"]
        cond["tokens"] = encode([text], vocabulary, spec.shape("tokens")[0])[0]
        if not (cond["tokens"] > 1).any():
            raise ValueError(f"no word of {text!r} is in the vocabulary{closest(text, vocabulary[2:])[:200]}")
        return cond
    pairs = [text] if text.partition("=")[0].strip() in NAMED else text.split(",")
    for pair in filter(None, map(str.strip, pairs)):
        name, given, value = (part.strip() for part in pair.partition("="))
        if not given or name not in choices:
            hint = " or a caption" if "tokens" in keys else ""
            raise ValueError(f"a condition is NAME=VALUE{hint}, not {pair!r}{closest(name, choices)}")
        if name in names:
            place = names.index(name)
            cond["attribute"][place] = _value(spec.names.get(name, ()), spec.sizes["attribute"][place], value, name)
        elif name in NAMED:
            cond[name] = np.int32(_named(spec.names.get(NAMED[name], ()), value, name))
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
    for key in ("prompt", "masked"):
        if conditions and key in conditions[0]:
            texts = _padded([cond[key] for cond in conditions], at_front=key == "prompt")
            conditions = [{**cond, key: text} for cond, text in zip(conditions, texts, strict=True)]
    return {key: np.stack([conditions[i][key] for i in rows]) for key in conditions[0]} if conditions else {}


def _padded(texts: Sequence[np.ndarray], at_front: bool) -> list[np.ndarray]:
    length = max(map(len, texts))
    room = lambda text: (length - len(text), 0) if at_front else (0, length - len(text))
    return [np.pad(text, room(text), constant_values=-1) for text in texts]
