from jaxgen.classical import pca
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images

TINY = Experiment(pca.Config(num_components=4, oversampling=4), Images("digits"), TrainConfig(batch_size=16))
