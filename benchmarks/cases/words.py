"""Word vectors.

word2vec and gensim's C code on the same sentences of `speeches` with the same settings: dim 100, window 5, 5 noise
words, subsampling 1e-3, rates that fall to nothing in 5 epochs. gensim draws noise words for each pair, as `own noise
words` does: that row has equal work. By default ours shares them in a chunk, which is less work for the same score. A
unit is an epoch; training starts anew after the fifth. Reading our batches is in it; our compilation and gensim's
vocabulary are not. The score is the share of `benchmarks/analogies.py` that a whole training answers and, by our
`evaluate` on the held-out addresses with either's tables, the loss in nats a prediction. CBOW's rate is 0.15 in ours
and 0.025 in gensim, which does not divide the gradient by the 6 words of a window (see jaxgen/words/word2vec.py).
"""

from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks.program import Program

EPOCHS, BATCH, RATE = 5, 32, 0.025
TEXT = "speeches.txt"  # a sentence a line
NUM_WORDS = 1_576_044


def training_text():
    """The words of the training split, as jaxgen has them."""
    from jaxgen.data import Corpus

    return Corpus(validation=0).load()


def prepare(folder: Path) -> None:
    """Writes the sentences of the training split."""
    from jaxgen.data.corpus import read_documents

    documents = [document for document in read_documents("speeches") if document.split == "train"]
    lines = [" ".join(sentence) for document in documents for sentence in document.sentences]
    (folder / TEXT).write_text("\n".join(lines) + "\n", "utf-8")


def jaxgen(objective: str, softmax: str = "negative", rate: float = RATE, **options) -> Program:
    """Ours."""
    import jax
    import numpy as np

    from jaxgen.data import batch_at
    from jaxgen.words import word2vec

    data = training_text()
    steps = round(EPOCHS * data.spec.counts["train"] / BATCH)
    config = word2vec.Config(
        objective=objective, softmax=softmax, learning_rate=rate, decay_steps=steps, subsample=1e-3, **options
    )
    method, root = word2vec.make(config, data.spec), jax.random.key(0)
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=BATCH, keys=method.reads)
    init = jax.jit(method.init)
    step = jax.jit(method.step, donate_argnums=0).lower(init(root, read(0)), read(0), root).compile()
    epochs = itertools.cycle(np.array_split(np.arange(steps), EPOCHS))
    kept = {}

    def run() -> None:
        for number in next(epochs).tolist():
            if number == 0:
                kept["state"] = init(root, read(0))
            kept["state"], _ = step(kept["state"], read(number), jax.random.fold_in(root, number))
        jax.block_until_ready(kept["state"])
        if number == steps - 1:
            kept["trained"] = kept["state"]["params"]
            kept["trained"] = {name: np.array(table) for name, table in kept["trained"].items()}

    def facts() -> dict[str, float]:
        while "trained" not in kept:
            run()
        np.savez("jaxgen.npz", words=np.array(data.spec.names["tokens"]), **kept["trained"])
        return {}

    return Program(run, facts)


def gensim(objective: str, softmax: str = "negative", **_) -> Program:
    """gensim."""
    import numpy as np
    from gensim.models import Word2Vec
    from gensim.models.word2vec import FAST_VERSION

    trees = softmax == "hierarchical"
    sentences = [line.split() for line in Path(TEXT).read_text("utf-8").splitlines()]
    model = Word2Vec(
        vector_size=100,
        window=5,
        min_count=5,
        sg=int(objective == "skip_gram"),
        hs=int(trees),
        negative=0 if trees else 5,
        sample=1e-3,
        workers=1,
        seed=1,
    )
    model.build_vocab(sentences)
    epochs = itertools.cycle(range(EPOCHS))
    kept = {}

    def run() -> None:
        if (epoch := next(epochs)) == 0:
            model.init_weights()
        rates = [max(RATE * (1 - done / EPOCHS), 1e-4) for done in (epoch, epoch + 1)]
        model.train(sentences, total_examples=model.corpus_count, epochs=1, start_alpha=rates[0], end_alpha=rates[1])
        if epoch == EPOCHS - 1:
            output = model.syn1 if trees else model.syn1neg
            kept["trained"] = {"input": model.wv.vectors.copy(), "output": output.copy()}

    def facts() -> dict[str, float]:
        while "trained" not in kept:
            run()
        np.savez("gensim.npz", words=np.array(model.wv.index_to_key), **kept["trained"])
        return {"compiled": float(FAST_VERSION >= 0)}

    return Program(run, facts)


def judge(program: str, folder: Path, objective: str, softmax: str = "negative", **_) -> dict[str, float]:
    """Scores of a program's tables; no loss over a tree, which is another one in each program."""
    import jax
    import numpy as np

    from benchmarks.analogies import questions
    from jaxgen.config import MeshConfig
    from jaxgen.program import make_evaluate
    from jaxgen.sharding import make_mesh
    from jaxgen.words import word2vec
    from jaxgen.words.vectors import WordVectors

    with np.load(folder / f"{program}.npz") as saved:
        arrays = {name: saved[name] for name in saved.files}
    vectors = WordVectors(tuple(arrays["words"].tolist()), arrays["input"])
    found = {"analogies": vectors.analogies(questions())["total"].accuracy}
    if softmax == "negative":
        data = training_text()
        order = [vectors.number(word) for word in data.spec.names["tokens"]]
        method, mesh = word2vec.make(word2vec.Config(objective=objective), data.spec), make_mesh(MeshConfig())
        with jax.set_mesh(mesh):
            evaluate = make_evaluate(method, data, mesh, BATCH, jax.random.key(0))
            params = {"input": arrays["input"][order], "output": arrays["output"][order]}
            found["loss"] = evaluate({"params": params}, "test")["loss"]
    return found


SHARED, OWN = "skip-gram, shared noise words", "skip-gram, own noise words"
ROWS = {
    SHARED: {"objective": "skip_gram"},
    "CBOW": {"objective": "cbow", "rate": 6 * RATE},
    OWN: {"objective": "skip_gram", "shared_negatives": 0, "chunk": 2},
    "skip-gram, hierarchical": {"objective": "skip_gram", "softmax": "hierarchical", "chunk": 4},
}
PROGRAMS = {"jaxgen": jaxgen, "gensim": gensim}
GOAL = {SHARED: 1.5, OWN: 1.5}
WORK = dict.fromkeys(ROWS, (NUM_WORDS, "words"))
