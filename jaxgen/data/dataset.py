"""The data contract: a `Dataset` reads any examples by index, and `batch_at` says which ones form a step's batch.

Example number `step * batch_size + row` of an endless stream, reshuffled every epoch, stands in row `row` of global
batch `step`. Any row can be read alone: 1, 8 or 64 processes see the same batches, and a run resumes from its step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.config import closest, from_json

Batch = dict[str, np.ndarray]
Rows = slice | np.ndarray | None


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that does not exist: it suggests the closest one, or lists those there are."""
    return ValueError(f"no {kind} {name!r}{closest(str(name), known)}")


@dataclass(frozen=True)
class Spec:
    """The data's static description, saved in config.json."""

    shapes: Mapping[str, tuple[int, ...]]
    """Batch key → shape of one example, without the batch axis."""
    dtypes: Mapping[str, str]
    """Batch key → name of its numpy dtype."""
    counts: Mapping[str, int]
    """Split ("train", "validation", "test") → number of examples; a split without examples is left out."""
    names: Mapping[str, tuple[str, ...]]
    """"label" → class names; "attribute" → attribute names, and an attribute → the names of its values; "tokens" → the
    vocabulary; "document", "user", "item" → their names; what the data does not have is left out."""
    sizes: Mapping[str, tuple[int, ...]]
    """"label" → (number of classes,); "attribute" → number of values of each attribute; "tokens", "document",
    "user", "item" → (how many there are,)."""
    levels: int = 256
    """Number of values of an image channel: pixels lie in 0..levels-1."""
    frequencies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """"tokens" → how often each word occurs in the training split, "document" → how many words
    each of its documents has; empty where nobody counted."""
    tokenizer: str = ""
    """What text becomes tokens by, as `jaxgen.data.tokenizer.Tokenizer.saved`; empty where there is none."""

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of one example of `key`; ValueError when there is no such key."""
        if key not in self.shapes:
            raise unknown("batch key", key, self.shapes)
        return self.shapes[key]

    def count(self, split: str) -> int:
        """The number of examples in `split`; ValueError when there is no such split."""
        if split not in self.counts:
            raise unknown("split", split, self.counts)
        return self.counts[split]

    def batch(self, batch_size: int, keys: Iterable[str]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes [batch_size, ...] and dtypes of a batch; ValueError when there is no such key."""
        return {key: jax.ShapeDtypeStruct((batch_size, *self.shape(key)), np.dtype(self.dtypes[key])) for key in keys}

    def check(self, split: str, keys: Iterable[str]) -> None:
        """Raises ValueError, naming what there is, unless `split` and every one of `keys` exist."""
        self.count(split)
        for key in keys:
            self.shape(key)

    def to_json(self) -> dict[str, Any]:
        """The spec as dicts, lists, strings and integers; without `frequencies` and `tokenizer` where empty."""

        def lists(table: Mapping[str, tuple]) -> dict[str, list]:
            return {key: list(value) for key, value in table.items()}

        return {
            "shapes": lists(self.shapes),
            "dtypes": dict(self.dtypes),
            "counts": dict(self.counts),
            "names": lists(self.names),
            "sizes": lists(self.sizes),
            "levels": self.levels,
            **({"frequencies": lists(self.frequencies)} if self.frequencies else {}),
            **({"tokenizer": self.tokenizer} if self.tokenizer else {}),
        }

    @classmethod
    def from_json(cls, saved: Any) -> Spec:
        """The inverse of `to_json`; ValueError where a field is missing, unknown or of another type."""
        return from_json(cls, saved, "spec")


class Dataset(NamedTuple):
    """A description, a way to read, and an optional augmentation of training examples.

    Attributes:
      spec: the static description.
      read: `(split, indices [n], keys) -> {key: [n, ...]}`, plain random access; ValueError on an unknown split or key.
      augment: `(batch, uniforms) -> batch` or None, where `uniforms` [n, 4] in [0, 1) are four numbers an example that
        depend on the seed and on the example's place in the stream alone.
    """

    spec: Spec
    read: Callable[[str, np.ndarray, tuple[str, ...]], Batch]
    augment: Callable[[Batch, np.ndarray], Batch] | None = None


@functools.lru_cache(maxsize=16)
def _hashed(seed: int) -> int:
    """A 32-bit seed; grown by the epoch it is that epoch's, and neighbouring seeds share no epochs."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _order(count: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Example numbers 0..count-1 at positions of the endless stream; every epoch is another permutation."""
    from grain.experimental import index_shuffle

    epochs, places = np.divmod(positions, count)
    seeds = (_hashed(seed) + epochs) % 2**32
    found = [
        index_shuffle(i, count - 1, epoch_seed, 4)
        for i, epoch_seed in zip(places.tolist(), seeds.tolist(), strict=True)
    ]
    return np.array(found, np.int64)


def _uniforms(seed: int, position: int, num: int) -> np.ndarray:
    """Uniform numbers [num, 4] in [0, 1) for the positions from `position` on; one Philox block each."""
    words = np.random.Philox(key=seed, counter=position).random_raw(4 * num)
    return ((words >> 11) * 2.0**-53).reshape(num, 4)


def _chosen(batch_size: int, rows: Rows) -> np.ndarray:
    return np.arange(batch_size)[slice(None) if rows is None else rows]


def batch_at(
    data: Dataset,
    *,
    seed: int,
    step: int,
    batch_size: int,
    keys: Iterable[str],
    rows: Rows = None,
    split: str = "train",
) -> Batch:
    """Rows of global batch number `step`: a pure function of (seed, step).

    Args:
      data: what to read.
      seed: a non-negative integer that fixes the order and the augmentation.
      step: the batch's number, from 0; batches run on over the ends of epochs, nothing is dropped.
      batch_size: the size B of the global batch.
      keys: the batch keys to read; no other is touched.
      rows: which of the rows 0..B-1, as a slice or an integer array [n]; all by default.
      split: the split to read; only "train" is augmented.

    Returns:
      `{key: [n, ...]}`.

    Raises:
      ValueError: an unknown split or key, which the message sets beside those that exist.
      IndexError: a row outside 0..B-1.
    """
    chosen = _chosen(batch_size, rows)
    indices = _order(data.spec.count(split), seed, step * batch_size + chosen)
    batch = data.read(split, indices, tuple(keys))
    if data.augment is None or split != "train":
        return batch
    return data.augment(batch, _uniforms(seed, step * batch_size, batch_size)[chosen])


def num_evaluation_batches(data: Dataset, split: str, batch_size: int) -> int:
    """The number of batches that cover `split`, the padded last one included; ValueError on an unknown split."""
    return -(-data.spec.count(split) // batch_size)


def evaluation_batch(
    data: Dataset, split: str, index: int, batch_size: int, keys: Iterable[str], rows: Rows = None
) -> Batch:
    """Batch number `index` of `split` in the split's own order, never shuffled nor augmented.

    The last batch is padded with copies of example 0; `valid` float32 [n] is 1 for an example and 0 for padding.

    Args:
      data: what to read.
      split: the split to read.
      index: the batch's number, in 0..num_evaluation_batches-1.
      batch_size: the size B of every batch, the last one included.
      keys: the batch keys to read.
      rows: which of the rows 0..B-1, as a slice or an integer array [n]; all by default.

    Returns:
      `{key: [n, ...]}` and `valid`.

    Raises:
      ValueError: an unknown split or key, or `index` out of range.
      IndexError: a row outside 0..B-1.
    """
    num = num_evaluation_batches(data, split, batch_size)
    if not 0 <= index < num:
        raise ValueError(f"no evaluation batch {index}: split {split!r} has {num} of size {batch_size}, from 0")
    positions = index * batch_size + _chosen(batch_size, rows)
    valid = positions < data.spec.count(split)
    batch = data.read(split, np.where(valid, positions, 0), tuple(keys))
    return {**batch, "valid": valid.astype(np.float32)}


def num_held_out(count: int, validation: float, name: str = "validation") -> int:
    """How many of `count` training examples become the validation split, or another one, by the `name` of its option.

    `validation` below 1 is a fraction (above 0, one example at least is held out, and one stays), from 1 on a number.

    Raises:
      ValueError: negative, no whole number from 1 on, or nothing is left to train on.
    """
    if 0 <= validation < 1:
        return min(max(round(count * validation), int(validation > 0)), count - 1)
    if not 1 <= validation < count or validation != int(validation):
        raise ValueError(
            f"{name}={validation} is neither a fraction in [0, 1) nor a whole number of examples below {count}, "
            "the size of the training split"
        )
    return int(validation)


def in_memory(
    splits: Mapping[str, Mapping[str, np.ndarray]],
    *,
    names: Mapping[str, tuple[str, ...]] | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    levels: int = 256,
) -> Dataset:
    """A `Dataset` over arrays: split → key → [N, ...], the same keys in every split; see `Spec` for the rest."""
    splits = {split: arrays for split, arrays in splits.items() if len(next(iter(arrays.values())))}
    spec = Spec(
        shapes={key: array.shape[1:] for key, array in splits["train"].items()},
        dtypes={key: array.dtype.name for key, array in splits["train"].items()},
        counts={split: len(next(iter(arrays.values()))) for split, arrays in splits.items()},
        names=names or {},
        sizes=sizes or {},
        levels=levels,
    )

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        return {key: splits[split][key][indices] for key in keys}

    return Dataset(spec, read)
