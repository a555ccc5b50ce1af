"""How many addresses have one of the same president as their nearest: doc2vec, TF-IDF, mean word vectors, and chance.

Training addresses are looked up among each other, those of a president with a single one left out; held-out addresses,
whose vectors doc2vec infers, among the training ones.

Run: python benchmarks/presidents.py runs/doc2vec_speeches runs/word2vec_speeches
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

from jaxgen.data.corpus import number_words, read_documents
from jaxgen.trained import open_run
from jaxgen.words import doc2vec
from jaxgen.words.baselines import count_matrix, inverse_frequency, mean_vectors, tf_idf
from jaxgen.words.vectors import of_run, params_of_run


def padded(documents: list, words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The documents, one a row: `tokens` and `segment` [N, T]."""
    numbers = {word: i for i, word in enumerate(words)}
    streams = [number_words([document.sentences], numbers) for document in documents]
    length = max(len(stream.tokens) for stream in streams)
    pad = lambda x: np.pad(x, (0, length - len(x)))
    return np.stack([pad(s.tokens) for s in streams]), np.stack([pad(s.sentence + 1) for s in streams])


def share(vectors: np.ndarray, presidents: np.ndarray, held: np.ndarray, held_presidents: np.ndarray) -> tuple:
    """The share of training addresses, and of held-out ones, whose nearest training address is the same president's."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    among = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(among, -1)
    several = np.array([(presidents == president).sum() > 1 for president in presidents])
    training = (presidents[among.argmax(1)] == presidents)[several].mean()
    known = np.isin(held_presidents, presidents)
    return training, (presidents[(unit(held) @ unit(vectors).T).argmax(1)] == held_presidents)[known].mean()


def main(documents_run: str, words_run: str) -> None:
    """Prints the table."""
    run, params = open_run(Path(documents_run)), params_of_run(documents_run)
    texts = {split: [d for d in read_documents("speeches") if d.split == split] for split in ("train", "test")}
    presidents, held = (np.array([d.name.rsplit("_", 1)[0] for d in texts[split]]) for split in ("train", "test"))
    words = run.spec.names["tokens"]
    tokens, segment = padded(texts["train"], words)
    held_tokens, held_segment = padded(texts["test"], words)
    counts, held_counts = (
        count_matrix(t, s > 0, len(words)) for t, s in ((tokens, segment), (held_tokens, held_segment))
    )

    inferred = doc2vec.make_infer(run.config.method, run.spec)(params, held_tokens, held_segment, jax.random.key(0))
    weights = inverse_frequency(counts)
    known = of_run(words_run)
    matrix = np.stack([known[word] if word in known else np.zeros(known.matrix.shape[1], np.float32) for word in words])
    means = (mean_vectors(t, s > 0, matrix) for t, s in ((tokens, segment), (held_tokens, held_segment)))
    rows = {
        "doc2vec": (np.asarray(params["document"]), np.asarray(inferred)),
        "TF-IDF": (tf_idf(counts, weights), tf_idf(held_counts, weights)),
        "mean word vector": tuple(means),
    }
    for name, (vectors, held_vectors) in rows.items():
        training, new = share(vectors, presidents, held_vectors, held)
        print(f"{name:18} {100 * training:5.1f} %   held out {100 * new:5.1f} %")
    _, sizes = np.unique(presidents, return_counts=True)
    print(f"{'chance':18} {100 * (sizes * (sizes - 1)).sum() / (len(presidents) * (len(presidents) - 1)):5.1f} %")

    again = doc2vec.make_infer(run.config.method, run.spec)(params, tokens[::5], segment[::5], jax.random.key(1))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = (unit(np.asarray(again)) @ unit(np.asarray(params["document"])).T).argmax(1)
    found = np.mean(nearest == np.arange(len(tokens))[::5])
    print(f"{len(nearest)} training addresses, inferred anew: {100 * found:.1f} % are nearest to themselves")


if __name__ == "__main__":
    main(*sys.argv[1:])
