"""The CIFAR-10 model of Ho et al. 2020 (arXiv 2006.11239, appendix B): 35.7 M parameters, 800,000 steps of 128.

Prepare the data once: python -c "import tensorflow_datasets as tfds;
tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
Run: python train.py configs/ddpm_cifar10.py --workdir runs/ddpm_cifar10
Expect: the paper reports FID 3.17 of 50,000 samples by the ancestral sampler in 1000 steps, and a bound of at most 3.75
bits/dim. Not run here: it needs accelerators. The batch of 128 splits over any divisor of it, 8 take 16 images each;
another number of devices needs another --train.batch-size. Deviation: bfloat16 over float32 parameters.
"""

from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images
from jaxgen.diffusion import ddpm
from jaxgen.diffusion.drawing import SampleConfig
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig

config = Experiment(
    method=ddpm.Config(
        prediction="eps",
        schedule="linear",
        net=UNetConfig(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolutions=(16,),
            num_heads=1,
            num_groups=32,
            film=False,
            layout="full",
            dropout=0.1,
            dtype="bfloat16",
        ),
        optimizer=AdamWConfig(learning_rate=2e-4, warmup_steps=5000),
        ema_decay=0.9999,
        sample=SampleConfig(sampler="ancestral", steps=1000, variance="beta"),
    ),
    data=Images("tfds:cifar10", flip=True, validation=0.0),
    train=TrainConfig(
        steps=800_000, batch_size=128, log_every=100, sample_every=10_000, eval_every=0, save_every=10_000
    ),
    mesh=MeshConfig(data=-1),
)
