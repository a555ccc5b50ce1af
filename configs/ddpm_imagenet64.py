"""Class-conditional ImageNet at 64×64 after Nichol & Dhariwal 2021 (arXiv 2102.09672, section 3 and appendix A).

Cosine schedule, learned variance with the hybrid loss, scale-shift conditioning, attention at 16 and 8. Guidance, which
that paper lacks, costs a dropped label in ten.

Prepare the data once: python -c "import tensorflow_datasets as tfds;
tfds.builder('imagenet_resized/64x64', file_format='array_record').download_and_prepare()"
Run: python train.py configs/ddpm_imagenet64.py --workdir runs/ddpm_imagenet64
Then: jaxgen evaluate runs/ddpm_imagenet64 --split validation (the data set has no test split)
Expect: the paper reports FID 2.92 for its larger model of 270 M parameters; this has the shape of its smaller one,
122 M. Not run here: it needs accelerators, in fours (fsdp); the batch of 128 splits over any divisor of it.
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
        schedule="cosine",
        num_timesteps=4000,
        learn_variance=True,
        condition=("label",),
        net=UNetConfig(
            width=128,
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            attention_resolutions=(16, 8),
            num_heads=4,
            num_groups=32,
            layout="full",
            direct_condition=False,
            dtype="bfloat16",
        ),
        optimizer=AdamWConfig(learning_rate=1e-4, warmup_steps=1000),
        ema_decay=0.9999,
        sample=SampleConfig(sampler="ancestral", variance="learned", steps=250, guidance=1.5),
    ),
    data=Images("tfds:imagenet_resized/64x64"),
    train=TrainConfig(
        steps=1_500_000, batch_size=128, log_every=100, sample_every=10_000, eval_every=10_000, save_every=10_000
    ),
    mesh=MeshConfig(data=-1, fsdp=4),
)
