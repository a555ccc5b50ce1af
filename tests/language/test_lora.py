"""LoRA: the base at step 0 and for ever, factors against sums, what is trained, meshes, several adapters at once."""

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import harness
from jaxgen import catalog, cli, runs
from jaxgen.config import Experiment, MeshConfig, TrainConfig, experiment_from_json
from jaxgen.data import SOURCES, Images, Text, Toy, batch_at
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.diffusion import ddpm
from jaxgen.gans import gan
from jaxgen.language import adapters, classify, gpt, lora
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.transformer import Transformer, TransformerConfig
from jaxgen.nets.unet import UNetConfig
from jaxgen.optimizer import AdamWConfig
from jaxgen.report.log import read_metrics
from jaxgen.sharding import make_mesh
from jaxgen.trained import Run, open_run
from toy_texts import text_file

NET = TransformerConfig(num_layers=2, width=16, num_heads=2, context=24, dropout=0.1)
BASE = gpt.Config(NET, sample=SampleConfig(length=6))
CONFIG = lora.Config(BASE, rank=2, alpha=6.0, targets=("attention/[qv]/kernel", "mlp/"), optimizer=AdamWConfig(1e-2, 0))
FILE = text_file()
DATA = Text(f"file:{FILE}", "bytes", 24, "fit", data_dir=FILE.rpartition("/")[0])
TINY = Experiment(CONFIG, DATA, TrainConfig(batch_size=16))
FORMS = (Transformer.factored, None)  # factors beside the kernels of dense layers, and added to all of them
EVERYWHERE = dataclasses.replace(CONFIG, targets=(*CONFIG.targets, "embed/tokens"), whole=("^norm/", "positions"))


@pytest.fixture(scope="module")
def data():
    return DATA.load()


@pytest.fixture(scope="module")
def first(data):
    """The base's method, the state of a run of it, and a batch."""
    method = gpt.make(BASE, data.spec)
    batch = jax.tree.map(jnp.asarray, batch_at(data, seed=0, step=0, batch_size=8, keys=method.reads))
    return method, jax.jit(method.init)(jax.random.key(3), batch), batch


@pytest.fixture(scope="module")
def trained(first, data):
    """The first state of adapters of that run, in all places, and the one after three steps."""
    method = catalog.make(EVERYWHERE, data.spec)
    before = jax.jit(method.init)(jax.random.key(0), first[2], {"base": first[1]["params"]})
    state, step = before, jax.jit(method.step)
    for i in range(3):
        state, _ = step(state, first[2], jax.random.key(i))
    return method, before, state


def test_step_0_is_the_base_bit_for_bit(first, trained):
    base, state, batch = first
    method, before, _ = trained
    a, b = (
        jax.jit(base.evaluate)(state, batch, jax.random.key(0)),
        jax.jit(method.evaluate)(before, batch, jax.random.key(0)),
    )
    harness.assert_bitwise(a, b)
    draw = lambda method, state: jax.jit(method.sample, static_argnums=2)(state, jax.random.key(1), 4)
    harness.assert_bitwise(draw(base, state), draw(method, before))
    # The first loss too, dropout and all.
    first_loss = lambda method, state: jax.jit(method.step)(state, batch, jax.random.key(9))[1]["loss"]
    assert first_loss(method, before) == first_loss(base, state)


def test_the_base_stays_and_all_else_is_trained(first, trained):
    _, before, state = trained
    harness.assert_bitwise(state["base"], first[1]["params"])
    old, new = harness.leaves(before["params"]), harness.leaves(state["params"])
    assert len(new) == 2 * 5 + 3 and all((new[path] != old[path]).any() for path in new)
    moments = [x for x in jax.tree.leaves(state["opt_state"]) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in new.values())


def test_factors_are_what_their_sum_is(first, trained):
    """Logits with the factors beside the kernels of scanned layers, and of a plain model with them added: 1e-5."""
    net = gpt.core_of(BASE, gpt.Tokenizer(DATA.load().spec.tokenizer))
    _, _, state = trained
    beside = lora.adapted(state["base"], state["params"], EVERYWHERE.scale, net.factored)
    assert beside["blocks"]["attention"]["q"]["lora_a"].shape == (2, 16, 2)
    assert "lora_a" not in beside["blocks"]["attention"]["k"]
    merged = lora.merged(EVERYWHERE, state)
    kernel, (a, b) = (
        state["base"]["blocks"]["mlp"]["up"]["kernel"],
        (state["params"]["adapters"]["blocks"]["mlp"]["up"]["kernel"][name] for name in ("lora_a", "lora_b")),
    )
    expected = [np.asarray(kernel[i]) + 6 / 2 * np.asarray(a[i]) @ np.asarray(b[i]) for i in range(2)]
    np.testing.assert_allclose(merged["blocks"]["mlp"]["up"]["kernel"], expected, rtol=1e-6, atol=1e-7)
    logits = jax.jit(lambda params: net.logits(params, net.apply(params, first[2]["tokens"])))
    ours, plain = logits(beside), logits(first[1]["params"])
    np.testing.assert_allclose(ours, logits(merged), atol=1e-5)
    assert np.abs(ours - plain).max() > 1e-2


def test_gradients_are_those_through_the_sum(first, data):
    """Of A and B through the factored layers, and through W + (α/r) A B by autodiff; of no layer's W is there one."""
    method, state, batch = first
    objective, batch = method.objective, {k: v[:2] for k, v in batch.items()}
    factors = catalog.make(CONFIG, data.spec).init(jax.random.key(0), batch, {"base": state["params"]})["params"]
    factors = jax.tree.map(lambda x: x + 0.1, factors)

    def loss(params, factored):
        noise = jax.random.split(jax.random.key(0), 2)
        return objective.loss_fn(lora.adapted(state["params"], params, 3.0, factored), batch, noise)[0]

    through = {form: jax.jit(jax.grad(loss), static_argnums=1).lower(factors, form).compile() for form in FORMS}
    factored, summed = (harness.leaves(program(factors)) for program in through.values())
    for path, x in factored.items():
        np.testing.assert_allclose(x, summed[path], atol=1e-5, err_msg=path)
    # The gradient of an MLP's first matrix, [16, 64], in a program as the compiler leaves it.
    found = [re.search(r"= f32\[(16,64|64,16)\]\S* dot\(", program.as_text()) for program in through.values()]
    assert not found[0] and found[1]


def test_any_method_of_one_loss_can_be_adapted():
    """The U-Net of a diffusion run: dense layers and convolutions, from its average; the average is what is sampled."""
    spec = (digits := Images("digits").load()).spec
    base = ddpm.Config(
        net=UNetConfig(width=8, multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=2),
        sample=ddpm.SampleConfig(steps=1),
    )
    cfg = lora.Config(base, rank=2, targets=("time_in/kernel", "conv.*/kernel"), optimizer=AdamWConfig(1e-2, 0))
    plain, method = ddpm.make(base, spec), catalog.make(cfg, spec)
    batch = batch_at(digits, seed=0, step=0, batch_size=4, keys=("image",))
    warm = jax.jit(plain.init)(jax.random.key(5), batch)
    warm |= dict.fromkeys(("params", "ema"), jax.tree.map(lambda x: x + 0.1, warm["ema"]))  # no zeros that hide layers
    state = jax.jit(method.init)(jax.random.key(0), batch, {"base": warm["ema"]})
    step, draw = jax.jit(method.step), jax.jit(method.sample, static_argnums=2)
    key = lambda: jax.random.key(1)
    after, _ = step(state, batch, key())
    harness.assert_bitwise(draw(state, key(), 2), jax.jit(plain.sample, static_argnums=2)(warm, key(), 2))
    harness.assert_bitwise(after["base"], warm["ema"])
    conv = [x for path, x in harness.leaves(after["params"]).items() if "lora_b" in path and x.ndim == 4]
    assert conv and all((x != 0).any() for x in conv)  # [height, width, r, outputs]
    assert "adapter" not in method.conditions


def test_a_classifier_with_a_head_of_its_own(first):
    text = dataclasses.replace(DATA, packing="none", label="verb").load()
    base = classify.Config(dataclasses.replace(NET, dropout=0.0))
    cfg = lora.Config(base, targets=("net/blocks/",), whole=("^head/",), optimizer=AdamWConfig(1e-2, 0))
    method = catalog.make(cfg, text.spec)
    assert method.starts_from == ("pretrained", "base") and method.sample is None
    batch = batch_at(text, seed=0, step=0, batch_size=8, keys=method.reads)
    state = jax.jit(method.init)(jax.random.key(0), batch, {"pretrained": first[1]["params"]})
    after = jax.jit(method.step)(state, batch, jax.random.key(0))[0]
    harness.assert_bitwise(after["base"]["net"], first[1]["params"])
    assert (after["params"]["whole"]["head"]["kernel"] != state["base"]["head"]["kernel"]).any()


def test_factors_are_split_as_their_matrix_is(tmp_path, data):
    """On 2×2×2 devices the losses are those of one; A is split by its inputs, B by its outputs, where W is."""
    losses = []
    for shape in ((1, 1, 1), (2, 2, 2)):
        experiment = harness.on_mesh(TINY, *shape)
        folder = tmp_path / "x".join(map(str, shape))
        harness.train(experiment, folder, devices=math.prod(shape), steps=2, log_every=1, eval_every=0, sample_every=0)
        losses.append([line["loss"] for line in read_metrics(folder / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    state = harness.saved_state(experiment, folder, devices=8)
    spec = lambda tree, *names: tree["blocks"][names[0]][names[1]]["kernel"]
    found, base = state["params"]["adapters"], state["base"]
    assert spec(base, "attention", "q").sharding.spec == P(None, "fsdp", "tensor")
    assert spec(found, "attention", "q")["lora_a"].sharding.spec == P(None, "fsdp", None)
    assert spec(found, "attention", "q")["lora_b"].sharding.spec == P(None, None, "tensor")
    assert spec(found, "mlp", "down")["lora_a"].sharding.spec == P(None, "tensor", None)
    assert spec(found, "mlp", "down")["lora_b"].sharding.spec == P(None, None, "fsdp")


def test_rules_of_factors():
    rules = (("q/kernel", P("fsdp", "tensor"), 4), ("conv", P(None, None, None, "fsdp")))
    assert lora.rules_of("a/q/kernel", rules)[1] == ("a/q/kernel/lora_b$", P(None, "tensor"), 4)
    assert [rule[1] for rule in lora.rules_of("conv", rules)] == [
        P(None, None, None, None),
        P(None, None, None, "fsdp"),
    ]
    assert [rule[1] for rule in lora.rules_of("other", rules)] == [P(None, None), P(None, None)]


def test_each_row_with_adapters_of_its_own(first, trained, data):
    """Three sets, the first without effect: rows equal those of each set alone; with beams too."""
    base, plain, _ = first
    for beams in (1, 2):
        cfg = dataclasses.replace(
            CONFIG, base=dataclasses.replace(BASE, sample=SampleConfig(length=4, temperature=0.0, beams=beams))
        )
        method = catalog.make(cfg, data.spec)
        assert method.conditions == ("prompt", "adapter")
        state = method.init(jax.random.key(0), first[2], {"base": plain["params"]})
        sets = [jax.tree.map(lambda x, i=i: x + 0.3 * i, state["params"]) for i in range(3)]
        draw = jax.jit(method.sample, static_argnums=2)
        prompt = jnp.array([[-1, 256, 97, 98], [256, 99, 100, 101], [-1, -1, 256, 97], [-1, 256, 97, 98]], jnp.int32)
        which = jnp.array([2, 0, 1, 0])
        together = draw(lora.with_sets(state, sets), jax.random.key(1), 4, {"prompt": prompt, "adapter": which})[
            "tokens"
        ]
        alone = [draw({**state, "params": each}, jax.random.key(1), 4, {"prompt": prompt})["tokens"] for each in sets]
        np.testing.assert_array_equal(together, [alone[i][row] for row, i in enumerate(which)])
    assert (alone[0][0] != alone[2][0]).any()


SMALL = dataclasses.replace(
    CONFIG,
    base=gpt.Config(
        TransformerConfig(num_layers=1, width=8, num_heads=1, context=24),
        sample=SampleConfig(length=2, temperature=0.0),
    ),
    optimizer=AdamWConfig(0.3, 0),
)


def test_adapters_that_do_not_go_together_are_refused(tmp_path):
    """Of another base or rank, of a run that takes none, and fewer than prompts."""
    harness.train(dataclasses.replace(TINY, method=SMALL), tmp_path / "a", steps=1, sample_every=0, eval_every=0)
    run, mesh = open_run(tmp_path / "a"), make_mesh(MeshConfig(data=1), jax.devices()[:1])
    state = harness.saved_state(dataclasses.replace(TINY, method=SMALL), tmp_path / "a")
    found = adapters.with_sets(run, mesh, state, [tmp_path / "a"] * 2)
    a = found["sets"]["adapters"]["blocks"]["attention"]["q"]["kernel"]["lora_a"]
    assert a.shape == (2, 1, 8, 2) and (a[0] == a[1]).all()
    assert adapters.rows(run, [tmp_path / "a"] * 2, 2, 5)["adapter"].tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="adapts another base"):
        adapters.with_sets(run, mesh, {**state, "base": jax.tree.map(lambda x: x + 1, state["base"])}, [tmp_path / "a"])
    other = run._replace(config=dataclasses.replace(run.config, method=dataclasses.replace(SMALL, rank=1)))
    with pytest.raises(ValueError, match="has no adapters like those of"):
        adapters.with_sets(other, mesh, state, [tmp_path / "a"])
    more = {**state["params"], "whole": {"embed/tokens": jnp.zeros((2, 8))}}
    with pytest.raises(ValueError, match=r"trains other parameters than .*: whole/embed/tokens"):
        adapters.with_sets(run, mesh, {**state, "params": more}, [tmp_path / "a"])
    with pytest.raises(ValueError, match="takes no --adapter"):
        adapters.rows(run._replace(method=run.method._replace(conditions=())), [tmp_path / "a"], 1, 1)
    with pytest.raises(ValueError, match="1 --adapter for 2 --prompt"):
        adapters.rows(run, [tmp_path / "a"], 2, 8)


@pytest.mark.slow
def test_the_command_draws_prompts_with_adapters_of_several_runs(tmp_path, capsys):
    """Two runs on one base: a row is what its run alone writes; prompts without adapters of their own are refused."""
    for name, seed, init_from in (("a", 1, {}), ("b", 2, {"base": f"{tmp_path / 'a'}:base"})):
        experiment = dataclasses.replace(TINY, method=SMALL, init_from=init_from)
        harness.train(experiment, tmp_path / name, steps=1, seed=seed, sample_every=0, eval_every=0)
    prompts, sets = ["--prompt", "ann ", "--prompt", "bob "], ["--adapter", tmp_path / "a", "--adapter", tmp_path / "b"]

    def call(run, *args):
        args = [tmp_path / run, "--mesh.data", 8, "--num", 8, "--out", tmp_path / "out.npz", *args]
        return cli.run_command(cli.COMMANDS["sample"], [str(arg) for arg in args])

    def tokens(*args):
        assert call(*args) == 0
        return np.load(tmp_path / "out.npz")["tokens"]

    a, b = tokens("a", *prompts), tokens("b", *prompts)
    both = tokens("a", *prompts, *sets)
    np.testing.assert_array_equal(both, np.concatenate([a[:4], b[4:]]))
    assert (a[4:] != b[4:]).any()
    capsys.readouterr()
    assert call("b", "--stream", *prompts[2:]) == 0
    assert capsys.readouterr().out == Tokenizer("bytes").decode(b[4]) + "\n"
    for args, message in (
        ([*prompts, "--adapter", tmp_path / "a"], "1 --adapter for 2 --prompt"),
        ([*sets, "--stream"], "without --adapter"),
    ):
        assert call("a", *args) == 2
        assert message in capsys.readouterr().err


def test_the_base_keeps_its_name_and_its_sampling_options():
    """In config.json; a run goes on with other ones, but not with another base."""
    document, spec = harness.document(TINY), DATA.load().spec
    assert document["method"]["config"]["base"]["name"] == "gpt"
    run = Run(Path("run"), TINY, spec, catalog.make(CONFIG, spec)).with_sampling(SampleConfig(length=3))
    assert run.config.method.base.sample.length == 3 == run.config.method.sample.length
    assert runs.differing_identity(document, harness.document(run.config)) == []
    other = dataclasses.replace(
        TINY, method=dataclasses.replace(CONFIG, base=dataclasses.replace(BASE, num_tokens=300))
    )
    (line,) = runs.differing_identity(document, harness.document(other))
    assert line == "method.base.config.num_tokens: null → 300"
    document["method"]["config"]["base"]["name"] = "gtp"
    with pytest.raises(ValueError, match="unknown method.base gtp .did you mean gpt"):
        experiment_from_json(document, catalog.kinds(), SOURCES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("atention/q/kernel",)}, r"nothing to adapt matches 'atention/q/kernel' \(did you mean blocks/"),
        ({"targets": ("norm",)}, "nothing to adapt matches 'norm'"),
        ({"targets": ("(",)}, "no regular expression"),
        ({"whole": ("q/kernel",)}, "matches both method.targets and method.whole"),
        ({"rank": 0}, "rank=0 must be 1 or more"),
        ({"alpha": 0.0}, "alpha=0.0 above 0"),
    ],
)
def test_bad_options_get_a_message(data, changes, message):
    with pytest.raises(ValueError, match=message):
        catalog.make(dataclasses.replace(CONFIG, **changes), data.spec)


def test_a_method_of_two_losses_is_refused():
    with pytest.raises(ValueError, match="only a method of one loss"):
        catalog.make(
            lora.Config(gan.Config(gen=gan.GeneratorConfig("mlp"), critic=gan.CriticConfig("mlp"))),
            Toy("ring").load().spec,
        )
