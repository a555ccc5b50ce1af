"""Word vectors of 210 State of the Union addresses, 1.5 million words: skip-gram with negative sampling, 20 epochs.

Run: python train.py configs/word2vec_speeches.py --workdir runs/word2vec_speeches
Time: 45 seconds on one busy CPU core
Expect: eval/loss (nats a pair of words, held-out addresses) of 2.43; a third of benchmarks/analogies.py right
"""

from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Corpus
from jaxgen.words import word2vec

config = Experiment(
    method=word2vec.Config(learning_rate=0.05, decay_steps=900),
    data=Corpus("speeches"),
    train=TrainConfig(steps=900, batch_size=32, log_every=20, sample_every=0, eval_every=180, save_every=180),
    mesh=MeshConfig(data=1),  # the updates are small: a second core costs more than it brings
)
