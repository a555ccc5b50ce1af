"""A GAN with minibatch discrimination on the bundled 28×28 Fashion-MNIST; all else as in dcgan_fashion.

Run: python train.py configs/minibatch_fashion.py --workdir runs/minibatch_fashion
Time and figures: not measured yet; compare eval/duplicates and eval/coverage with those of dcgan_fashion
"""

from jaxgen.config import Experiment, Rule, TrainConfig
from jaxgen.data import Images
from jaxgen.gans import minibatch
from jaxgen.gans.networks import CriticConfig, GeneratorConfig
from jaxgen.gans.optimizers import PlayerConfig

rate = PlayerConfig(learning_rate=2e-4, b1=0.5, b2=0.999, decay_steps=8000)
config = Experiment(
    method=minibatch.Config(
        loss="non_saturating",
        code=64,
        gen=GeneratorConfig("resnet", widths=(64, 32), norm="batch"),
        critic=CriticConfig(widths=(64, 128), batch_features="discrimination", group_size=16),
        gen_optimizer=rate,
        critic_optimizer=rate,
        # Batch normalisation lets a critic tell whole batches apart: it ranks all pairs right, and has little to teach.
        penalty="r1",
        penalty_weight=0.2,
        augment=("translation",),
    ),
    data=Images("fashion", validation=512),
    train=TrainConfig(
        steps=8000,
        batch_size=64,
        log_every=50,
        sample_every=1000,
        eval_every=1000,
        save_every=1000,
        rules=(Rule("eval/duplicates", above=0.5, patience=3),),
    ),
)
