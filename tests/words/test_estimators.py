"""Word and document vectors under scikit-learn's conventions."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import toy_texts as texts
from jaxgen.words.estimators import Doc2Vec, Word2Vec


def lines(sentences):
    return [" ".join(sentence) for sentence in sentences]


@pytest.fixture(scope="module")
def words():
    text = lines(texts.synonyms(30, 4000, np.random.default_rng(0)))
    return text, Word2Vec(24, subsample=0, epochs=8, random_state=0).fit(text)


def test_a_synonym_is_the_nearest_word(words):
    _, found = words
    pairs = [(f"{a}{i}", f"{b}{i}") for i in range(30) for a, b in (("left", "right"), ("right", "left"))]
    hits = [found.vectors_.most_similar(word, num=1)[0][0] == synonym for word, synonym in pairs]
    assert np.mean(hits) >= 0.95


def test_a_text_is_the_mean_of_its_words(words):
    _, found = words
    mean = (2 * found.vectors_["left3"] + found.vectors_["right4"]) / 3
    rows = found.transform(["Left3, right4 nowhere left3.", "nothing known"])
    np.testing.assert_allclose(rows, [mean, np.zeros(24)], rtol=1e-5, atol=1e-7)


def topics(num, rng):
    """Texts of two topics with a few words in common, and which one each is about."""
    label = rng.integers(2, size=num)
    words = np.array([[f"{kind}{i}" for i in range(20)] for kind in ("sea", "sky")])
    common = np.array([f"word{i}" for i in range(10)])
    return [" ".join(rng.permutation([*rng.choice(words[k], 12), *rng.choice(common, 12)])) for k in label], label


def test_documents_in_a_pipeline():
    rng = np.random.default_rng(0)
    (train, label), (test, held) = topics(80, rng), topics(40, rng)
    documents = Doc2Vec(16, min_count=1, subsample=0, epochs=30, learning_rate=0.2, random_state=0)
    model = make_pipeline(documents, LogisticRegression()).fit(train, label)
    assert model.score(test, held) >= 0.95


def test_the_seed_decides_and_a_copy_says_the_same():
    text, _ = topics(30, np.random.default_rng(1))
    model = Doc2Vec(8, min_count=1, epochs=2, passes=3, random_state=3).fit([*text, "?!"])
    again = clone(model).fit([*text, "?!"])
    assert model.documents_.shape == (31, 8) and not model.documents_[-1].any() and model.documents_[:-1].any(1).all()
    np.testing.assert_array_equal(model.documents_, again.documents_)
    found = model.transform([*text[:4], "?!"])
    np.testing.assert_array_equal(found, again.transform([*text[:4], "?!"]))
    assert found[:4].any(1).all() and not found[4].any()
    np.testing.assert_array_equal(model.transform(["?!", *text[3::-1]]), found[::-1])
    np.testing.assert_allclose(model.transform(text[2:3]), found[2:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.transform(text[:2]), pickle.loads(pickle.dumps(model)).transform(text[:2]))
    other = clone(model).set_params(random_state=4).fit(text)
    assert (other.documents_ != model.documents_[:-1]).any()


@pytest.mark.parametrize(
    "fit, message",
    [
        (lambda: Word2Vec().fit("one text"), "must be a list of texts"),
        (lambda: Word2Vec().fit([1, 2]), "must be a list of texts"),
        (lambda: Word2Vec().fit(["a b a b"]), "lower min_count"),
        (lambda: Word2Vec(min_count=0).fit(["a b a b"]), "^min_count=0 must be 1 or more"),
        (lambda: Word2Vec(objective="cbwo").fit(["a b c"] * 9), r"did you mean cbow\?"),
        (lambda: Word2Vec(epochs=0).fit(["a b c"] * 9), "epochs=0 must be 1 or more"),
        (lambda: Doc2Vec().fit(["a b c " * 9]), "two texts"),
    ],
)
def test_bad_input_is_refused(fit, message):
    with pytest.raises(ValueError, match=message):
        fit()
