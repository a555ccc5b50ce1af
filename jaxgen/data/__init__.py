"""Data: bundled sets, folders, TFDS, texts, ratings, toys; a `Dataset`'s batches are a pure function of (seed, step).

Importing this package stays cheap: grain, tensorflow_datasets and PIL are imported where they are used.
"""

from jaxgen.data.annotated import Annotated
from jaxgen.data.corpus import Corpus
from jaxgen.data.dataset import Dataset, Spec, batch_at, evaluation_batch, in_memory, num_evaluation_batches
from jaxgen.data.images import Images
from jaxgen.data.ratings import Ratings
from jaxgen.data.text import Text
from jaxgen.data.toy import Toy

# The name of each source in a run's config.json → its config.
SOURCES = {"annotated": Annotated, "corpus": Corpus, "images": Images, "ratings": Ratings, "text": Text, "toy": Toy}

__all__ = [
    "SOURCES",
    "Annotated",
    "Corpus",
    "Dataset",
    "Images",
    "Ratings",
    "Spec",
    "Text",
    "Toy",
    "batch_at",
    "evaluation_batch",
    "in_memory",
    "num_evaluation_batches",
]
