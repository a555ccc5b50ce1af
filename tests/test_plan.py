"""Plans: against the arrays that training really holds, closed forms, and the command as a user types it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import harness
import toy_methods
from jaxgen import catalog, cli, devices
from jaxgen.config import load_config
from jaxgen.data import Images
from jaxgen.devices import GIB, Accelerator, named, of_kind
from jaxgen.plan import plan
from jaxgen.program import abstract_state, shardings_of
from jaxgen.sharding import make_mesh

ROOT = Path(__file__).parents[1]
toy_methods.register()
KMEANS, LM = (toy_methods.EXPERIMENTS[name] for name in ("toy_kmeans", "toy_lm"))


def lm(**options):
    return dataclasses.replace(LM, method=toy_methods.LmConfig(**options))


def test_the_state_is_what_a_device_really_holds():
    """Of an initialised state on 4 × 2 devices, the bytes that lie on one of them; no array lives while planning."""
    experiment = harness.on_mesh(LM, data=4, fsdp=2)
    drawn = plan(experiment, 8)
    spec = experiment.data.load().spec
    method = catalog.make(experiment.method, spec)
    mesh = make_mesh(experiment.mesh)
    abstract = abstract_state(method, spec, 16, mesh, experiment.mesh)
    with jax.set_mesh(mesh):
        batch = {name: jax.numpy.zeros(x.shape, x.dtype) for name, x in spec.batch(16, method.reads).items()}
        state = jax.jit(method.init, out_shardings=shardings_of(abstract))(jax.random.key(0), batch)
    for name, part in state.items():
        held = [
            s.data.nbytes for x in jax.tree.leaves(part) for s in x.addressable_shards if s.device == jax.devices()[0]
        ]
        assert drawn.state[name].bytes_a_device == sum(held), name
        assert drawn.state[name].bytes == sum(x.nbytes for x in jax.tree.leaves(part)), name
    assert drawn.parameters == 8 * 16 + 16 * 16 + 16 * 8
    # The rules of `embed` and `head` split them over `tensor`, which this mesh lacks; `hidden` is split over `fsdp`.
    assert drawn.state["params"].bytes_a_device == 4 * (8 * 16 + 16 * 16 / 2 + 16 * 8)
    # The compiled step's arguments: the state, an eighth of the batch (tokens and mask), a number for each of its two
    # metrics, and its own number; the attempt is of no use to a step without noise.
    assert drawn.memory.arguments == drawn.state_a_device + 2 * 12 * 4 * 16 / 8 + 4 * (2 + 1)


def test_planning_makes_no_array_of_the_state():
    before = {id(x) for x in jax.live_arrays()}
    plan(lm(width=256))
    new = [x for x in jax.live_arrays() if id(x) not in before]
    assert max((x.nbytes for x in new), default=0) < 1000


def test_the_peak_counts_the_donated_state_once_and_falls_with_accumulation():
    experiment = harness.with_train(lm(width=64), batch_size=4096)
    whole, parts = plan(experiment), plan(harness.with_train(lm(width=64, accumulate=8), batch_size=4096))
    memory = whole.memory
    assert memory.peak == memory.arguments + memory.temporary + memory.outputs - memory.aliased
    assert memory.aliased >= whole.state_a_device
    assert parts.memory.temporary < memory.temporary / 2 and parts.flops.model == whole.flops.model


def test_a_call_of_several_steps_takes_as_many_batches():
    one, four = (plan(harness.with_train(LM, steps_per_call=num, log_every=4)) for num in (1, 4))
    batch = 2 * 12 * 4 * 16 / 8  # an eighth of the tokens and the mask
    assert four.memory.arguments - one.memory.arguments == 3 * batch and four.flops == one.flops


def test_figures_of_a_language_model_by_hand(monkeypatch):
    monkeypatch.setattr(devices, "ACCELERATORS", (Accelerator("toy", "toy", 1e9, 10**6),))
    width, vocab, num, length = 16, 8, 16, 12
    drawn = plan(harness.with_train(lm(), steps=100), 4, device_kind="toy", compiled=False)
    forward = 2 * num * length * (width * width + width * vocab)
    assert drawn.flops.model == 3 * forward and not drawn.flops.notes
    assert drawn.examples == num and drawn.tokens == length and drawn.train_examples == 200
    assert drawn.num_devices == 4 and drawn.seconds(0.5) == pytest.approx(2 * 3 * forward / 4e9)
    assert drawn.memory is None and drawn.fits is None  # nobody knows its peak
    monkeypatch.setattr(devices, "ACCELERATORS", (Accelerator("toy", "toy", 1e9, 10**3),))
    assert plan(lm(), 4, device_kind="toy", compiled=False).fits is False  # the state alone is larger


def test_what_does_not_fit_gets_options_that_help(monkeypatch):
    monkeypatch.setattr(devices, "ACCELERATORS", (Accelerator("toy", "^TPU toy", 1e9, 10**5),))
    experiment = dataclasses.replace(harness.on_mesh(LM, data=8, fsdp=1), method=toy_methods.LmConfig(width=64))
    drawn = plan(experiment, 8, device_kind="toy")
    assert drawn.fits is False and drawn.has == 10**5
    split, accumulate, more, smaller = drawn.advice
    assert split.startswith("--mesh.fsdp 2") and accumulate.startswith("--method.accumulate 2")
    assert more.startswith("16 devices")
    assert smaller.startswith("--train.batch-size 8")
    followed = plan(dataclasses.replace(experiment, mesh=dataclasses.replace(experiment.mesh, data=-1, fsdp=8)), 8)
    assert followed.state_a_device < drawn.state_a_device / 3
    monkeypatch.setattr(devices, "ACCELERATORS", (Accelerator("toy", "^TPU toy", 1e9, 10**8),))
    assert plan(experiment, 8, device_kind="toy").fits is True


def test_a_cpu_has_no_peak_and_its_share_of_the_memory():
    drawn = plan(KMEANS, compiled=False)
    assert drawn.device == "cpu" and drawn.peak_flops is None and drawn.seconds(1.0) is None
    assert drawn.has == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    stand_ins = plan(KMEANS, 8, compiled=False)
    assert stand_ins.device is None and stand_ins.has is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("cpu", None),
    ],
)
def test_devices_are_known_by_the_names_that_jax_gives_them(kind, name):
    found = of_kind(kind)
    assert (found and found.name) == name
    if name:
        assert named(kind) is named(name) is named(name.lower()) is found


def test_memory_that_jax_takes(monkeypatch):
    assert devices.usable_memory(named("TPU v5e")) == 16 * GIB
    assert devices.usable_memory(named("A100")) == 60 * 10**9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert devices.usable_memory(named("A100")) == 72 * 10**9


def test_data_that_are_not_on_disk_need_not_be(tmp_path):
    """The paper's CIFAR-10 model: 35.7 M parameters, four float32 numbers each in the state."""
    config = load_config(ROOT / "configs/ddpm_cifar10.py")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=str(tmp_path)))
    drawn = plan(config, 8, device_kind="v5e", compiled=False)
    assert drawn.parameters == 35_746_307 and drawn.train_examples is None
    assert drawn.state_a_device == 16 * 35_746_307 + 4 * 3
    assert drawn.flops.model == pytest.approx(3 * 128 * 2 * 5.8e9, rel=0.05)  # about 6 G multiply-adds an image


CONFIG = """
import toy_methods
config = toy_methods.EXPERIMENTS["{name}"]
"""


def call(*args):
    return cli.run_command(cli.plan, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    Path("lm_toy.py").write_text(CONFIG.format(name="toy_lm"))
    return tmp_path


def test_the_command_prints_a_table_and_writes_nothing(folder, capsys):
    options = ["--devices", 8, "--device-kind", "h100", "--mesh.fsdp", 2, "--train.steps", 50, "--workdir", "runs/a"]
    assert call("lm_toy.py", *options) == 0
    text = capsys.readouterr().out
    for part in (
        "8 devices: data 4, fsdp 2, tensor 1",
        "params",
        "16 examples, 192 tokens",
        "50 steps, 800 examples, 9,600 tokens",
        "at the peak",
        "60 GB for JAX, 989 TFLOP/s: fits",
        "if 40% of the peak is reached",
    ):
        assert part in " ".join(text.split()), text
    assert call("lm_toy.py", "--no-compile") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "not compiled" in text and "cpu" in text and "time a step" not in text
    assert call("lm_toy.py", "--devices", 2, "--device-kind", "h100", "--no-compile", "--price", 3600e6) == 0
    text = " ".join(capsys.readouterr().out.split())
    flops = 3 * 2 * 16 * 12 * (16 * 16 + 16 * 8)  # a step's, see above
    for part in (
        f"counted: {flops / (6 * 512 * 192):.2f} times",
        "20 tokens a parameter: 10,240 tokens",
        f"{8 * flops / (0.4 * 2 * 989e12) * 2 * 1e6:,.2f} at 40%",
    ):
        assert part in text, text
    assert call("lm_toy.py", "--devices", 2) == 0
    assert "one that would do: v2, v3" in " ".join(capsys.readouterr().out.split())
    assert [p.name for p in folder.iterdir() if p.name != "__pycache__"] == ["lm_toy.py"]


def test_mistakes_get_a_message_that_says_what_to_do(folder, capsys):
    for options, hint in [
        (["lm_toi.py"], "did you mean lm_toy.py"),
        (["lm_toy.py", "--device-kind", "v5f"], "did you mean v5"),
        (["lm_toy.py", "--device-kind", "abacus"], "there are: v2, v3"),
        (["lm_toy.py", "--devices", 0], "--devices is a number from 1 on, not 0"),
        (["lm_toy.py", "--devices", 9], "--xla_force_host_platform_device_count=9"),
        (["lm_toy.py", "--devices", 8, "--mesh.fsdp", 3], "does not fit 8 device(s)"),
        (["lm_toy.py", "--devices", 8, "--train.batch-size", 12], "does not divide over"),
    ]:
        assert call(*options) == 2
        assert hint in capsys.readouterr().err, options
    with pytest.raises(SystemExit) as stop:
        call("lm_toy.py", "--train.stpes", 5)
    assert stop.value.code == 2 and "train.steps" in capsys.readouterr().err
    assert call("--devices", 8, "lm_toy.py") == 2 and "comes before the options" in capsys.readouterr().out
    assert call("--help") == 0


def test_data_that_tfds_does_not_know_are_missed(folder, monkeypatch, capsys):
    Path("images.py").write_text((ROOT / "configs/ddpm_cifar10.py").read_text())
    assert call("images.py", "--no-compile", "--data.name", "tfds:cifar11", "--data.data-dir", folder) == 2
    assert "did you mean 'cifar10_1'?" in capsys.readouterr().err
    assert Images("tfds:mnist", data_dir=str(folder)).spec().shapes["image"] == (28, 28, 1)


def test_a_mesh_that_is_not_here_is_simulated():
    """In a process of its own, as a user starts it: more devices than this machine has cores or the tests simulate."""
    code = "import sys; from jaxgen.cli import main; sys.argv[0] = 'jaxgen'; sys.exit(main())"
    args = ["plan", "configs/kmeans_fashion.py", "--devices", "24", "--train.batch-size", "240", "--no-compile"]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "24 devices: data 24, fsdp 1, tensor 1" in done.stdout, done.stdout + done.stderr


def test_a_mixture_has_fewer_parameters_for_a_token_than_in_all():
    """gpt_moe_speeches: a token meets those of gpt_speeches, routers, and the other expert's output bias."""
    dense, mixture = (
        plan(load_config(ROOT / f"configs/{name}.py"), compiled=False) for name in ("gpt_speeches", "gpt_moe_speeches")
    )
    assert dense.active == dense.parameters
    assert mixture.active - dense.parameters == 4 * (256 * 8 + 256)
    each = 2 * 256 * 512 + 512 + 256
    assert mixture.parameters - mixture.active == 4 * 6 * each
    # Places for a quarter more than an even share, in three products of each of two layers; and the routers.
    tokens = 16 * 256
    extra = 3 * 4 * tokens * 2 * (0.25 * 2 * 256 * 512 * 2 + 256 * 8)
    assert mixture.flops.model - dense.flops.model == extra
