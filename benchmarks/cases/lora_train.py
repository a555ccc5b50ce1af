"""LoRA: a training step.

The GPT of `gpt_train` frozen, adapters of rank 8 beside the output of attention and both matrices of each MLP: forward,
backward, clipped gradients and AdamW on 8 rows of 256 tokens in float32, beside PEFT on transformers' GPT-2. Parameters
are those that are trained.
"""

from benchmarks import gpts

ROWS = {"rank 8": {"rank": 8}}
WORK = dict.fromkeys(ROWS, (gpts.BATCH * gpts.LENGTH, "tokens"))
PROGRAMS = {"jaxgen": gpts.jaxgen_train, "PEFT": gpts.peft_train}
