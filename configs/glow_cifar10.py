"""The CIFAR-10 model of Kingma & Dhariwal 2018 (arXiv 1807.03039, appendix C): 3 levels of 32 affine steps, width 512.

Prepare the data once: python -c "import tensorflow_datasets as tfds;
tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
Run: python train.py configs/glow_cifar10.py --workdir runs/glow_cifar10
Expect: the paper reports 3.35 bits/dim. Not run here: it needs accelerators. The batch of 512 splits over any
divisor of it. The number of steps is ours, 1800 epochs; so are a warm-up of ten epochs and the average of the weights.
"""

from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images
from jaxgen.flows import glow
from jaxgen.flows.multiscale import FlowConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=glow.Config(
        net=FlowConfig(levels=3, steps=32, width=512, min_scale=0.0, remat=True),
        optimizer=AdamWConfig(learning_rate=1e-3, warmup_steps=1000),
        ema_decay=0.9999,
        sample=glow.SampleConfig(temperature=0.7),
    ),
    data=Images("tfds:cifar10", flip=True, validation=0.0),
    train=TrainConfig(
        steps=180_000, batch_size=512, log_every=100, sample_every=10_000, eval_every=0, save_every=10_000
    ),
    mesh=MeshConfig(data=-1),
)
