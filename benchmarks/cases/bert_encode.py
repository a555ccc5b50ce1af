"""BERT: sentences as vectors.

256 sentences of the addresses, of which each becomes the mean of its tokens' vectors, tokenising included: a network of
MiniLM's shape, 6 layers of width 384, in float32 beside transformers; 32 sentences of similar lengths at a time.
"""

from benchmarks import berts

ROWS = {"6 layers, width 384": {}}
WORK = dict.fromkeys(ROWS, (berts.NUM, "sentences"))
PROGRAMS = {"jaxgen": berts.jaxgen_encode, "transformers": berts.transformers_encode}
prepare = berts.prepare
