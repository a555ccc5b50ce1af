from jaxgen.classical import nmf
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images

TINY = Experiment(nmf.Config(num_parts=4), Images("digits"), TrainConfig(batch_size=16))
