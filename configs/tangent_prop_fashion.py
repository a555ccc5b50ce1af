"""Tangent Prop with 100 labels of the bundled Fashion-MNIST; needs the run of contractive_fashion, which reads none.

Run: python train.py configs/tangent_prop_fashion.py --workdir runs/tangent_prop_fashion
Time: two minutes of one CPU core; the same without tangents: --method.weight 0 --workdir runs/without_tangents
Expect: eval/accuracy/label of 0.70, eval/loss of 1.18 (without: 0.71 and 1.6; mean of five seeds)
"""

from jaxgen.autoencoders import tangents
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import Images
from jaxgen.nets.autoencoder import AutoencoderConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=tangents.Config(
        weight=0.1,
        num_tangents=8,
        net=AutoencoderConfig("dense", widths=(256, 128)),
        code=32,
        encoder=AutoencoderConfig("dense", widths=(512, 256)),
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=20, decay_steps=500),
    ),
    data=Images("fashion", validation=9900),
    train=TrainConfig(steps=500, batch_size=100, log_every=50, sample_every=0, eval_every=250, save_every=250),
    init_from={"encoder": "runs/contractive_fashion:params"},
)
