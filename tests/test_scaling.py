"""Rules of thumb by their published numbers, and the count of FLOPs beside the formula."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxgen.config import Experiment, TrainConfig, load_config
from jaxgen.data import Text
from jaxgen.language import gpt
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.plan import plan
from jaxgen.scaling import fit_power_law, optimal_size, optimal_tokens, training_flops
from toy_texts import text_file


def test_chinchilla():
    """70 B parameters, 1.4 T tokens, 5.88e23 FLOPs (Hoffmann et al. 2022, table 1 and 3: 5.76e23)."""
    assert optimal_tokens(70e9) == 1.4e12
    assert training_flops(70e9, 1.4e12) == 5.88e23
    assert optimal_size(5.88e23) == pytest.approx(70e9)


def test_a_power_law_is_found():
    x = np.array([1e4, 1e5, 1e6, 1e7])
    found = fit_power_law(x, 12.0 * x**-0.076)
    assert found.exponent == pytest.approx(-0.076) and found.factor == pytest.approx(12.0)
    assert found.r_squared == pytest.approx(1.0) and found(1e8) == pytest.approx(12.0 * 1e8**-0.076)
    noisy = fit_power_law(x, 12.0 * x**-0.076 * np.array([1.0, 1.2, 0.8, 1.0]))
    assert noisy.r_squared < 0.9
    with pytest.raises(ValueError, match="two different x"):
        fit_power_law([3.0, 3.0], [1.0, 2.0])


def test_counted_flops_are_those_of_the_formula():
    """6 for each weight of a matrix product, and attention's 12 T D a layer (Chowdhery et al. 2022, appendix B)."""
    net = TransformerConfig(num_layers=3, width=64, num_heads=4, context=32)
    file = text_file()
    data = Text(f"file:{file}", "bytes", 32, data_dir=file.rpartition("/")[0])
    experiment = Experiment(gpt.Config(net), data, TrainConfig(batch_size=4))
    drawn = plan(experiment, 1, compiled=False)
    products = 3 * 12 * 64**2 + 257 * 64  # the tied output layer; looking the embedding up is none
    assert drawn.tokens == 32
    assert drawn.flops.model == 4 * 32 * (6 * products + 12 * 3 * 32 * 64)
    rule = training_flops(drawn.parameters, 4 * 32)
    assert drawn.flops.model == pytest.approx(rule, rel=0.2)  # of so short rows; 10 % for wider networks
    wide = dataclasses.replace(experiment, method=gpt.Config(dataclasses.replace(net, width=256)))
    drawn = plan(wide, 1, compiled=False)
    assert drawn.flops.model == pytest.approx(training_flops(drawn.parameters, 4 * 32), rel=0.1)


@pytest.mark.parametrize("name", ["gpt2_124m", "llama_1b"])
def test_a_plan_needs_neither_the_text_nor_its_tokenizer(name, monkeypatch, tmp_path):
    config = load_config(Path(__file__).parents[1] / "configs" / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    drawn = plan(config, 8, device_kind="v5p", compiled=False)
    assert drawn.tokens == config.data.length and drawn.train_examples is None
    num = {"gpt2_124m": 124_439_808 + 47 * 768, "llama_1b": 1_100_048_384}[name]
    assert drawn.flops.model > 6 * 0.9 * (num - 32000 * 2048) * config.train.batch_size * config.data.length
    unknown = dataclasses.replace(config, method=dataclasses.replace(config.method, num_tokens=None))
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in data\.tokenizer=data/"):
        plan(unknown, 8, device_kind="v5p", compiled=False)
