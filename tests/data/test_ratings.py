"""Ratings from files, whose errors name the line, and synthetic ones."""

import numpy as np
import pytest

from jaxgen.data import Ratings


def write(folder, text):
    path = folder / "ratings.csv"
    path.write_text(text)
    return str(path)


def everything(data):
    """All triplets of all splits, by name."""
    found = []
    for split, count in data.spec.counts.items():
        part = data.read(split, np.arange(count), ("user", "item", "rating"))
        names = data.spec.names
        found += [
            (names["user"][u], names["item"][i], float(r))
            for u, i, r in zip(part["user"], part["item"], part["rating"], strict=True)
        ]
    return found


LINES = [("10", "film, the", 4.0), ("9", "b", 0.5), ("ann", "b", 3.0), ("10", "b", 5.0), ("9", "film, the", 2.5)]


@pytest.mark.parametrize("header", ["", "user,item,rating\n", "\ufeffuserId,movieId,rating\r\n\r\n"])
def test_every_rating_is_in_one_split_under_its_names(header, tmp_path):
    rows = "".join(f'{user}, "{item}" ,{rating},964982703\n'.replace(', "', ',"') for user, item, rating in LINES)
    data = Ratings(write(tmp_path, header + rows), validation=1, test=1).load()
    assert data.spec.counts == {"train": 3, "validation": 1, "test": 1}
    assert data.spec.shapes == {"user": (), "item": (), "rating": ()}
    assert data.spec.dtypes == {"user": "int32", "item": "int32", "rating": "float32"}
    assert data.spec.names["user"] == ("9", "10", "ann")  # numbers first, in their order
    assert data.spec.sizes == {"user": (3,), "item": (2,)}
    assert sorted(everything(data)) == sorted(LINES)


def test_the_seed_decides_the_split(tmp_path):
    path = write(tmp_path, "".join(f"{u},{i},{u + i}\n" for u in range(10) for i in range(10)))
    train = lambda seed: Ratings(path, seed=seed).load().read("train", np.arange(80), ("user", "item"))
    a, b, c = train(0), train(0), train(1)
    np.testing.assert_array_equal(a["user"], b["user"])
    assert (a["user"] != c["user"]).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u,i,1\nu,j\n", "line 2: 'u,j' is not user,item,rating, separated by commas"),
        ("u,i,1\nv,j,good\n", "line 2: the rating 'good' is no number"),
        ("user,item,rating\nu,i,1\n\nuser,item,rating\n", "line 4: the rating 'rating' is no number"),
        ("u,i,1\nv,j,-2\n", "line 2: the rating -2 must be a number of 0 or more"),
        ("u,i,1\nv,j,nan\n", "line 2: the rating nan must be"),
        ("u,i,1\nv,j,inf\n", "line 2: the rating inf must be"),
        ("u,i,1\n,j,1\n", "line 2: the user or the item is empty"),
        ("u,i,1\nv,i,1\nu,i,2\n", "line 3: user u has rated item i in line 1 already"),
        ("user,item,rating\n", "has no ratings; it needs lines of user,item,rating"),
        ("1\t2\t3\n", "is not user,item,rating, separated by commas"),
    ],
)
def test_bad_files_are_refused_with_the_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Ratings(write(tmp_path, text)).load()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no ratings file .*none.csv; it has lines of user,item,rating"):
        Ratings(str(tmp_path / "none.csv")).load()


def test_synthetic_ratings_are_of_low_rank_plus_noise():
    clean = Ratings(num_users=40, num_items=30, observed=1.0, noise=0.0, validation=0, test=0).load()
    table = np.zeros((40, 30))
    part = clean.read("train", np.arange(1200), ("user", "item", "rating"))
    table[part["user"], part["item"]] = part["rating"]
    values = np.linalg.svd(table, compute_uv=False)
    assert values[4] > 0.5 and values[5] < 1e-4
    rating = [r for _, _, r in everything(Ratings().load())]
    assert len(rating) == pytest.approx(0.3 * 300 * 200, rel=0.02)
    assert np.mean(rating) == pytest.approx(2.4, abs=0.1) and np.std(rating) == pytest.approx(0.45, abs=0.03)


def test_bad_synthetic_options_are_refused():
    for options in ({"num_users": 0}, {"observed": 0.0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match="synthetic ratings need"):
            Ratings(**options).load()
    for name in ("validation", "test"):
        with pytest.raises(ValueError, match=f"^{name}=-1 is neither a fraction"):
            Ratings(**{name: -1}).load()
