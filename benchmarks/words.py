"""word2vec beside gensim's C code: words a second, and how good the vectors are, in one run on one pinned core.

Both train on the same sentences of `speeches` with the same settings (dim 100, window 5, 5 noise words, subsampling
1e-3, 5 epochs, rates falling from 0.025), in alternating pairs of fresh processes. What counts is process CPU time of
training alone: neither gensim's vocabulary nor our compilation is in it (the latter is printed), reading our batches
is. It is taken epoch by epoch; an epoch whose wall time exceeds its CPU time by more than 15 % is thrown away, and so
is a pair in which a program has no other. CBOW's rate is 0.15 here: gensim does not divide the gradient by the size of
the window, which has 6 words on average (see jaxgen/words/word2vec.py).

Run: pip install gensim into an environment apart, then
     python benchmarks/words.py --gensim ENV/bin/python [--pairs 5] [--core 0]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "skip-gram": {"sg": 1, "rate": 0.025},
    "skip-gram, own noise words": {"sg": 1, "rate": 0.025, "shared_negatives": 0, "chunk": 2},
    "CBOW": {"sg": 0, "rate": 0.15},
    "skip-gram, hierarchical": {"sg": 1, "rate": 0.025, "hs": 1, "chunk": 4},
}
EPOCHS = 5


class Clock:
    """CPU and wall time of each epoch, in seconds."""

    def __init__(self):
        self.epochs: list[tuple[float, float]] = []

    def start(self) -> None:
        """An epoch begins."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """An epoch ends."""
        self.epochs.append((time.process_time() - self.cpu, time.perf_counter() - self.wall))


def run_gensim(case: dict, seed: int, text: Path, out: Path) -> dict:
    """Trains gensim; in its own environment, without jaxgen."""
    import numpy as np
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    sentences = [line.split() for line in text.read_text("utf-8").splitlines()]
    hs = case.get("hs", 0)
    model = Word2Vec(
        vector_size=100, window=5, min_count=5, sg=case["sg"], hs=hs, negative=0 if hs else 5, sample=1e-3, workers=1,
        seed=seed,
    )  # fmt: skip
    model.build_vocab(sentences)
    clock = Clock()

    class Epochs(CallbackAny2Vec):
        def on_epoch_begin(self, model):
            clock.start()

        def on_epoch_end(self, model):
            clock.stop()

    model.train(sentences, total_examples=model.corpus_count, epochs=EPOCHS, callbacks=[Epochs()])
    output = model.syn1 if hs else model.syn1neg
    np.savez(out, words=np.array(model.wv.index_to_key), input=model.wv.vectors, output=output)
    return {"epochs": clock.epochs}


def run_jaxgen(case: dict, seed: int, text: Path, out: Path) -> dict:
    """Trains ours; reading the batches is in the time."""
    import jax
    import numpy as np

    from jaxgen.data import Corpus, batch_at
    from jaxgen.words import word2vec

    data = Corpus(validation=0).load()
    size, rows = 32, data.spec.counts["train"]
    steps = round(EPOCHS * rows / size)
    config = word2vec.Config(
        objective="skip_gram" if case["sg"] else "cbow",
        softmax="hierarchical" if case.get("hs") else "negative",
        learning_rate=case["rate"],
        decay_steps=steps,
        shared_negatives=case.get("shared_negatives", 32),
        chunk=case.get("chunk", 16),
    )
    method = word2vec.make(config, data.spec)
    read = lambda step: batch_at(data, seed=seed, step=step, batch_size=size, keys=method.reads)
    begin = time.perf_counter()
    state = jax.jit(method.init)(jax.random.key(seed), read(0))
    step = jax.jit(method.step, donate_argnums=0).lower(state, read(0), jax.random.key(0)).compile()
    compiled = time.perf_counter() - begin
    root = jax.random.key(seed + 1)
    clock = Clock()
    for numbers in np.array_split(np.arange(steps), EPOCHS):
        clock.start()
        for number in numbers.tolist():
            state, _ = step(state, read(number), jax.random.fold_in(root, number))
        jax.block_until_ready(state)
        clock.stop()
    tables = {name: np.asarray(table) for name, table in state["params"].items()}
    np.savez(out, words=np.array(data.spec.names["tokens"]), **tables)
    return {"epochs": clock.epochs, "compile": compiled}


RUNS = {"gensim": run_gensim, "jaxgen": run_jaxgen}


def scores(case: dict, path: Path) -> dict:
    """The share of analogies answered and, but for other trees, the held-out loss on `test` by jaxgen's `evaluate`."""
    import jax
    import numpy as np
    from analogies import questions

    from jaxgen.config import MeshConfig
    from jaxgen.data import Corpus
    from jaxgen.program import make_evaluate
    from jaxgen.sharding import make_mesh
    from jaxgen.words import word2vec
    from jaxgen.words.vectors import WordVectors

    with np.load(path) as saved:
        arrays = {name: saved[name] for name in saved.files}
    vectors = WordVectors(tuple(arrays["words"].tolist()), arrays["input"])
    found = {"analogies": vectors.analogies(questions())["total"].accuracy}
    if not case.get("hs"):
        data = Corpus(validation=0).load()
        order = [vectors.number(word) for word in data.spec.names["tokens"]]
        method = word2vec.make(word2vec.Config(objective="skip_gram" if case["sg"] else "cbow"), data.spec)
        mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
        with jax.set_mesh(mesh):
            evaluate = make_evaluate(method, data, mesh, 32, jax.random.key(0))
            params = {"input": arrays["input"][order], "output": arrays["output"][order]}
            found["loss"] = evaluate({"params": params}, "test")["loss"]
    return found


def main() -> None:
    """Runs the pairs, prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gensim", required=True, help="the Python of an environment with gensim")
    parser.add_argument("--pairs", type=int, default=5, help="that are kept; four times as many are tried")
    parser.add_argument("--core", type=int, default=0)
    args = parser.parse_args()
    from jaxgen.data.corpus import read_documents

    training = [document for document in read_documents("speeches") if document.split == "train"]
    lines = [" ".join(sentence) for document in training for sentence in document.sentences]
    num_words = sum(len(line.split()) for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "speeches.txt"
        text.write_text("\n".join(lines) + "\n", "utf-8")
        for name, case in CASES.items():
            kept: dict[str, list[dict]] = {"gensim": [], "jaxgen": []}
            seed = 0
            while len(kept["jaxgen"]) < args.pairs and seed < 4 * args.pairs:
                pair, seed = {}, seed + 1
                for program in RUNS if seed % 2 else reversed(RUNS):
                    python = args.gensim if program == "gensim" else sys.executable
                    out = Path(folder) / f"{program}.npz"
                    child = [python, __file__, "--child", program, json.dumps(case), str(seed), str(text), str(out)]
                    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "BENCHMARK_CORE": str(args.core)}
                    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
                    printed = subprocess.run(child, env=env, check=True, capture_output=True, text=True).stdout
                    pair[program] = json.loads(printed.splitlines()[-1]) | scores(case, out)
                for result in pair.values():
                    quiet = [cpu for cpu, wall in result.pop("epochs") if wall <= 1.15 * cpu]
                    result["cpu"] = statistics.median(quiet) if quiet else None
                if all(result["cpu"] for result in pair.values()):
                    for program, result in pair.items():
                        kept[program].append(result)
            print(f"{name}: {len(kept['jaxgen'])} pairs, {seed - len(kept['jaxgen'])} thrown away")
            for program, results in kept.items():
                if results:
                    middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
                    rest = ", ".join(f"{k} {v:.3f}" for k, v in middle.items() if k != "cpu")
                    speed = f"{num_words / middle['cpu'] / 1e3:.0f} thousand words/s"
                    print(f"  {program}: {speed} ({middle['cpu']:.2f} s of CPU an epoch); {rest}")
            if kept["jaxgen"]:
                ratios = [g["cpu"] / j["cpu"] for g, j in zip(kept["gensim"], kept["jaxgen"], strict=True)]
                print(f"  jaxgen is {statistics.median(ratios):.2f} times as fast", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        program, case, seed, text, out = sys.argv[2:]
        os.sched_setaffinity(0, {int(os.environ["BENCHMARK_CORE"])})  # before XLA counts the cores
        print(json.dumps(RUNS[program](json.loads(case), int(seed), Path(text), Path(out))))
    else:
        main()
