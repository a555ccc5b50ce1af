"""Ratings: a CSV file of the user's, or synthetic ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgen.data.dataset import Dataset, in_memory, num_held_out


def read_ratings(path: str) -> tuple[list[str], list[str], np.ndarray]:
    """The lines `user,item,rating` of a CSV file; further columns are ignored, and so is a header.

    A first line whose third field is no number is a header. Users and items are any strings.

    Returns:
      Users and items, and the ratings, float32 [N].

    Raises:
      FileNotFoundError: no such file.
      ValueError: no UTF-8 text; or, with the number of the line, fewer than three fields, an empty user or item,
        a rating that is no number of 0 or more, or a pair that was rated before; or there are no ratings at all.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no ratings file {file}; it has lines of user,item,rating")
    users, items, ratings = [], [], []
    lines: dict[tuple[str, str], int] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        for number, row in enumerate(filter(None, _readable(reader, file))):
            where = f"{file}, line {reader.line_num}"
            if len(row) < 3:
                raise ValueError(f"{where}: {','.join(row)!r} is not user,item,rating, separated by commas")
            user, item, text = (field.strip() for field in row[:3])
            try:
                rating = float(text)
            except ValueError:
                if number == 0:
                    continue
                raise ValueError(f"{where}: the rating {text!r} is no number") from None
            if not user or not item:
                raise ValueError(f"{where}: the user or the item is empty")
            if not 0 <= rating < math.inf:
                raise ValueError(f"{where}: the rating {text} must be a number of 0 or more")
            first = lines.setdefault((user, item), reader.line_num)
            if first != reader.line_num:
                raise ValueError(f"{where}: user {user} has rated item {item} in line {first} already")
            users.append(user)
            items.append(item)
            ratings.append(rating)
    if not ratings:
        raise ValueError(f"{file} has no ratings; it needs lines of user,item,rating")
    return users, items, np.array(ratings, np.float32)


def _readable(reader: Iterable[list[str]], file: Path) -> Iterator[list[str]]:
    """The rows of `reader`; ValueError with the name of the file where it is no text."""
    try:
        yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} holds what is not UTF-8 text: {error}; convert it first") from None


def numbered(names: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The different names, whole numbers first and in their order, and the place of each name among them, int32 [N]."""
    known = sorted(set(names), key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    place = {name: i for i, name in enumerate(known)}
    return tuple(known), np.array([place[name] for name in names], np.int32)


def synthetic(
    num_users: int, num_items: int, observed: float, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items [N] and ratings, float32 [N], of the `observed` share of a table of rank 5 with Gaussian noise.

    The ratings spread by about 0.45 around a mean of about 2.4.
    """
    rng = np.random.default_rng(seed)
    w, h = (rng.uniform(0.35, 1.04, (num, 5)) for num in (num_users, num_items))
    user, item = np.nonzero(rng.uniform(size=(num_users, num_items)) < observed)
    rating = np.sum(w[user] * h[item], 1) + noise * rng.normal(size=len(user))
    return user, item, np.maximum(rating, 0).astype(np.float32)


@dataclass(frozen=True)
class Ratings:
    """Ratings: keys `user` and `item` int32, numbers in the order of their names, and `rating` float32."""

    path: str = ""
    """A CSV file with lines of user,item,rating (a header and more columns may be there); empty for synthetic ones."""
    validation: float = 0.1
    """Held out for validation: a fraction below 1, or a number of ratings."""
    test: float = 0.1
    """Held out for the test split, of what validation leaves."""
    seed: int = 0
    """Seed of the split, and of synthetic ratings."""
    num_users: int = 300
    """Synthetic ratings: users."""
    num_items: int = 200
    """Synthetic ratings: items."""
    observed: float = 0.3
    """Synthetic ratings: the share of all pairs that is rated."""
    noise: float = 0.05
    """Synthetic ratings: standard deviation of the noise."""

    def load(self) -> Dataset:
        """The ratings in memory, split at random; names are in the spec, and errors as for `read_ratings`."""
        if self.path:
            users, items, rating = read_ratings(self.path)
        else:
            if not (min(self.num_users, self.num_items) >= 1 and 0 < self.observed <= 1 and self.noise >= 0):
                raise ValueError("synthetic ratings need num_users and num_items >= 1, 0 < observed <= 1, noise >= 0")
            numbers = synthetic(self.num_users, self.num_items, self.observed, self.noise, self.seed)
            users, items, rating = [str(n) for n in numbers[0]], [str(n) for n in numbers[1]], numbers[2]
        user_names, user = numbered(users)
        item_names, item = numbered(items)
        order = np.random.default_rng([self.seed, 1]).permutation(len(rating))
        num_test = num_held_out(len(order), self.test, "test")
        num_validation = num_held_out(len(order) - num_test, self.validation)
        parts = np.split(order, [len(order) - num_test - num_validation, len(order) - num_test])
        arrays = {"user": user, "item": item, "rating": rating}
        splits = {
            split: {key: array[part] for key, array in arrays.items()}
            for split, part in zip(("train", "validation", "test"), parts, strict=True)
        }
        sizes = {"user": (len(user_names),), "item": (len(item_names),)}
        return in_memory(splits, names={"user": user_names, "item": item_names}, sizes=sizes)
