from jaxgen.classical import kmeans
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images

# 70 training examples: an epoch ends in the middle of the fifth batch.
TINY = Experiment(kmeans.Config(num_clusters=4), Images("digits", validation=1430), TrainConfig(batch_size=16))
