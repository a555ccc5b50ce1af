"""Made the files beside it, with gensim 4.4.0 (numpy 2.4): `pip install gensim`, then `python make.py`.

gensim is no dependency of jaxgen. The script writes what gensim writes and computes (gensim.txt, gensim.bin,
gensim.json), and checks that gensim reads what jaxgen wrote (jaxgen.txt, jaxgen.bin; ../test_word2vec.py checks that it
still writes the same).
"""

import json
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors

HERE = Path(__file__).parent
WORDS = ["man", "woman", "king", "queen", "Größe", "state", "states", "law", "laws", "new_york"]
QUESTIONS = """: family
man woman king queen
king queen man woman
: plural
state states law laws
law laws state states
law laws state king
law laws prince princes
"""
PAIRS = "man\twoman\t8.3\nking\tqueen\t8.6\nlaw\tstate\t3.5\nlaws\tqueen\t1.2\nman\tlaws\t0.7\nman\tprince\t5\n"

rng = np.random.default_rng(0)
matrix = rng.normal(size=(len(WORDS), 5)).astype(np.float32)
matrix[3] = matrix[2] + matrix[1] - matrix[0]
matrix[8] = matrix[7] + matrix[6] - matrix[5] + 0.1
vectors = KeyedVectors(5)
vectors.add_vectors(WORDS, matrix)
vectors.save_word2vec_format(HERE / "gensim.txt")
vectors.save_word2vec_format(HERE / "gensim.bin", binary=True)
(HERE / "questions.txt").write_text(QUESTIONS)
(HERE / "pairs.tsv").write_text(PAIRS)
_, sections = vectors.evaluate_word_analogies(str(HERE / "questions.txt"))
_, spearman, unknown = vectors.evaluate_word_pairs(str(HERE / "pairs.tsv"))
expected = {
    "words": WORDS,
    "matrix": matrix.tolist(),
    "most_similar": vectors.most_similar(["king", "woman"], ["man"], topn=3),
    "analogies": {s["section"]: [len(s["correct"]), len(s["correct"]) + len(s["incorrect"])] for s in sections},
    "spearman": float(spearman.statistic),
    "unknown_percent": unknown,
}
(HERE / "gensim.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")

for name in ("jaxgen.txt", "jaxgen.bin"):
    if (HERE / name).exists():
        read = KeyedVectors.load_word2vec_format(HERE / name, binary=name.endswith(".bin"))
        assert read.index_to_key == WORDS
        np.testing.assert_array_equal(read.vectors, matrix)
        print(f"gensim reads {name}")
