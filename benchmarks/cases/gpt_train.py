"""GPT: a training step.

Forward, backward, clipped gradients and AdamW on 8 rows of 256 tokens in float32; GPT-2's network with 4 layers, width
256 and a vocabulary of 2048, in transformers and in plain PyTorch with its fused attention, the latter compiled too.
"""

from functools import partial

from benchmarks import gpts

ROWS = {"4 layers, width 256": {}}
WORK = dict.fromkeys(ROWS, (gpts.BATCH * gpts.LENGTH, "tokens"))
PROGRAMS = {
    "jaxgen": gpts.jaxgen_train,
    "transformers": gpts.transformers_train,
    "PyTorch": partial(gpts.torch_train, compiled=False),
    "PyTorch, compiled": partial(gpts.torch_train, compiled=True),
}
