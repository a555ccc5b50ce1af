"""GPT: text generation.

128 tokens behind prompts of 32, drawn from the 50 likeliest, over a cache of keys and values, in float32; the network
of the training step.
"""

from benchmarks import gpts

ROWS = {f"batch {batch}": {"batch": batch} for batch in (1, 8)}
WORK = {f"batch {batch}": (batch * gpts.NEW, "tokens") for batch in (1, 8)}
GOAL = {"batch 1": 5.0, "batch 8": 2.5}
PROGRAMS = {"jaxgen": gpts.jaxgen_generate, "transformers": gpts.transformers_generate}
