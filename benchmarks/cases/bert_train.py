"""BERT: a training step.

Masked tokens and pairs: forward, backward, clipped gradients and AdamW on 32 rows of 128 tokens in float32; the network
of configs/bert_speeches.py without dropout, 4 layers of width 256 and a vocabulary of 8192.
"""

from functools import partial

from benchmarks import berts

ROWS = {"4 layers, width 256": {}}
WORK = dict.fromkeys(ROWS, (berts.BATCH * berts.LENGTH, "tokens"))
PROGRAMS = {
    "jaxgen": berts.jaxgen_train,
    "transformers": berts.transformers_train,
    "transformers, compiled": partial(berts.transformers_train, compiled=True),
}
