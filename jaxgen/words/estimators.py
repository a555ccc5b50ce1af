"""word2vec and doc2vec as scikit-learn estimators over texts: `Doc2Vec().fit(texts).transform(new)`.

The steps are the methods' own, one after another in memory, without a run's checkpoints; X is a list of strings, which
are split into words as `jaxgen.data.corpus` does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError("jaxgen.words.estimators needs scikit-learn: pip install 'jaxgen[sklearn]'") from error

from jaxgen.data import Corpus, Dataset, batch_at
from jaxgen.data.corpus import Document, encode, split_words
from jaxgen.words import doc2vec, word2vec
from jaxgen.words.baselines import mean_vectors
from jaxgen.words.vectors import WordVectors

BATCH = 32  # rows that walk side by side
LENGTHS = (16, 1024)  # words in a row: as many as a step of BATCH rows takes to read the whole text, within these


def _texts(X: Iterable[str]) -> list[str]:
    texts = [X] if isinstance(X, str) else list(X)
    if isinstance(X, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("X must be a list of texts, strings, one of them at least")
    return texts


class _TextEstimator(TransformerMixin, BaseEstimator):
    """What the two have in common: the data set of the texts, and the walk over it."""

    def _data(self, texts: list[str]) -> Dataset:
        documents = [Document(str(i), "train", split_words(text)) for i, text in enumerate(texts)]
        words = sum(len(sentence) for document in documents for sentence in document.sentences)
        length = int(np.clip(-(-words // BATCH), *LENGTHS))
        corpus = Corpus("X", length, self.min_count, self.phrases, self.phrase_threshold, validation=0)
        return corpus.of(documents)

    def _options(self, data: Dataset, rate: float) -> dict[str, Any]:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} must be 1 or more")
        names = ("dim", "objective", "softmax", "window", "num_negatives", "subsample")
        num_steps = -(-self.epochs * data.spec.count("train") // BATCH)
        rate = rate if self.learning_rate is None else self.learning_rate
        return {name: getattr(self, name) for name in names} | {"learning_rate": rate, "decay_steps": num_steps}

    def _keys(self) -> jax.Array:
        """Of the first tables, the steps, and the inference, [3]."""
        return jax.random.split(jax.random.key(self._seed), 3)

    def _train(self, module: Any, config: Any, data: Dataset) -> dict[str, Any]:
        """The tables after `config.decay_steps` steps; sets what `transform` needs."""
        method = module.make(config, data.spec)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        read = lambda step: batch_at(data, seed=self._seed, step=step, batch_size=BATCH, keys=method.reads)
        key_init, key_steps, _ = self._keys()
        state, advance = jax.jit(method.init)(key_init, read(0)), jax.jit(method.step, donate_argnums=0)
        for step in range(config.decay_steps):
            state, _ = advance(state, read(step), jax.random.fold_in(key_steps, step))
        self.words_ = data.spec.names["tokens"]
        return jax.device_get(state["params"])

    def _encode(self, X: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        check_is_fitted(self)
        return encode(_texts(X), self.words_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.no_validation = True
        return tags


class Word2Vec(_TextEstimator):
    """Word vectors; a text becomes the mean of its words' vectors, each word as often as it stands there.

    Args:
      dim: D.
      objective: "skip_gram" or "cbow".
      softmax: "negative" or "hierarchical".
      window: words on either side that a window reaches at most.
      num_negatives: noise words a prediction.
      subsample: frequency above which occurrences of a word are left out at random.
      min_count: words that occur less often are left out.
      phrases: passes that join pairs of words that score above `phrase_threshold`.
      phrase_threshold: see `phrases`.
      learning_rate: the first steps' rate; None for 0.05, or for CBOW 0.2.
      epochs: walks over the texts.
      random_state: seed.
    """

    def __init__(
        self,
        dim=100,
        *,
        objective="skip_gram",
        softmax="negative",
        window=5,
        num_negatives=5,
        subsample=1e-3,
        min_count=5,
        phrases=0,
        phrase_threshold=100.0,
        learning_rate=None,
        epochs=20,
        random_state=None,
    ):
        self.dim = dim
        self.objective = objective
        self.softmax = softmax
        self.window = window
        self.num_negatives = num_negatives
        self.subsample = subsample
        self.min_count = min_count
        self.phrases = phrases
        self.phrase_threshold = phrase_threshold
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X, y=None):
        """Sets `words_`, the vocabulary, and `vectors_`, its `WordVectors`: `vectors_.most_similar(word)`."""
        data = self._data(_texts(X))
        options = self._options(data, 0.2 if self.objective == "cbow" else 0.05)
        config = word2vec.Config(**options, sample=word2vec.SampleConfig(num_neighbors=1))
        self.vectors_ = WordVectors(data.spec.names["tokens"], self._train(word2vec, config, data)["input"])
        return self

    def transform(self, X):
        """The mean word vector of each text, float32 [N, D]; zero without a known word."""
        tokens, segment = self._encode(X)
        return mean_vectors(tokens, segment > 0, self.vectors_.matrix)


class Doc2Vec(_TextEstimator):
    """Document vectors; a new text's is fitted while the words stay as they are.

    Args:
      dim: D.
      objective: "dbow" or "dm".
      softmax, window, num_negatives, subsample, min_count, phrases, phrase_threshold: see `Word2Vec`.
      learning_rate: the first steps' rate; None for 0.05, or for PV-DM 0.1.
      epochs: walks over the texts.
      passes: walks over a new text.
      random_state: seed.
    """

    def __init__(
        self,
        dim=100,
        *,
        objective="dbow",
        softmax="negative",
        window=5,
        num_negatives=5,
        subsample=1e-3,
        min_count=5,
        phrases=0,
        phrase_threshold=100.0,
        learning_rate=None,
        epochs=20,
        passes=50,
        random_state=None,
    ):
        self.dim = dim
        self.objective = objective
        self.softmax = softmax
        self.window = window
        self.num_negatives = num_negatives
        self.subsample = subsample
        self.min_count = min_count
        self.phrases = phrases
        self.phrase_threshold = phrase_threshold
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.passes = passes
        self.random_state = random_state

    def fit(self, X, y=None):
        """Sets `documents_` float32 [N, D], the vectors of X (zero for a text without a word), and `words_`."""
        data = self._data(texts := _texts(X))
        if len(data.spec.names["document"]) < 2:
            raise ValueError("Doc2Vec needs two texts with words at least")
        options = self._options(data, 0.1 if self.objective == "dm" else 0.05)
        infer = doc2vec.InferConfig(passes=self.passes, learning_rate=options["learning_rate"])
        config = doc2vec.Config(**options, infer=infer, sample=doc2vec.SampleConfig(num_neighbors=1))
        self._params = self._train(doc2vec, config, data)
        self._infer = config, data.spec
        self.documents_ = np.zeros((len(texts), self.dim), np.float32)
        self.documents_[[int(name) for name in data.spec.names["document"]]] = self._params["document"]
        return self

    def transform(self, X):
        """A vector for each text, float32 [N, D], the same among whichever others; zero without a known word."""
        tokens, segment = self._encode(X)
        return np.asarray(doc2vec.make_infer(*self._infer)(self._params, tokens, segment, self._keys()[2]))
