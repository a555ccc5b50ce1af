"""Adapters that PEFT wrote: its logits; written back, the same tensors; ours, read by PEFT."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxgen import cli
from jaxgen.checksum import nested
from jaxgen.interop import huggingface, peft
from jaxgen.language import lora
from jaxgen.nets.transformer import Transformer

HERE = Path(__file__).parent
FOLDERS = HERE / "peft"


def logits(name, adapters, factored):
    """Of the tokens kept with the checkpoint of that name."""
    model = huggingface.read_checkpoint(HERE / "huggingface" / name)
    net = Transformer(model.config, model.num_tokens)
    params = {"adapters": adapters.params, "whole": {}}
    full = lora.adapted(model.params, params, adapters.alpha / adapters.rank, net.factored if factored else None)
    tokens = jnp.asarray(np.load(HERE / "huggingface" / f"{name}.npz")["tokens"], jnp.int32)
    return jax.jit(lambda params: net.logits(params, net.apply(params, tokens)))(full)


def config_of(name):
    return huggingface.read_checkpoint(HERE / "huggingface" / name).config


def read(folder, config, num_tokens=280):
    return peft.read_adapters(folder, config, num_tokens)


def write(folder, adapters, config, base="gpt2", num_tokens=280):
    peft.write_adapters(folder, adapters, config, num_tokens, base)


def blocks():
    """Adapters of GPT-2 that share nothing: of queries and values, not of keys; and of an output."""
    rng, wide = np.random.default_rng(0), {"q": 16, "v": 16, "out": 16}
    draw = lambda *shape: 0.3 * rng.standard_normal(shape, np.float32)
    leaves = {
        f"blocks/attention/{part}/kernel/{name}": draw(2, *((16, 2) if name == "lora_a" else (2, width)))
        for part, width in wide.items()
        for name in ("lora_a", "lora_b")
    }
    return peft.Adapters(2, 3.0, nested(leaves))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_logits_are_those_of_peft(name):
    """Of GPT-2's one module for queries, keys and values; of Llama's with ranks and alphas of their own, over √r."""
    adapters, expected = read(FOLDERS / name, config_of(name)), np.load(FOLDERS / f"{name}.npz")["logits"]
    assert adapters.rank == {"gpt2": 3, "llama": 4}[name]
    for factored in (True, False):
        np.testing.assert_allclose(logits(name, adapters, factored), expected, atol=1e-4)
    plain = np.load(HERE / "huggingface" / f"{name}.npz")["logits"]
    assert np.abs(expected - plain).max() > 0.1


def test_what_is_written_back_is_what_was_read(tmp_path):
    """To the bit, where the options are plain ones; and `peft/jaxgen/gpt2` was opened by PEFT (make.py)."""
    config = config_of("gpt2")
    write(tmp_path, read(FOLDERS / "gpt2", config), config)
    before, after = (load_file(folder / peft.TENSORS) for folder in (FOLDERS / "gpt2", tmp_path))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    check_kept(tmp_path, "gpt2")


def check_kept(folder, name):
    for file in (FOLDERS / "jaxgen" / name).iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


def test_adapters_of_parts_of_a_module_become_blocks(tmp_path):
    """PEFT, which read them, has our logits; read back they do the same, at the rank of the blocks."""
    config, ours = config_of("gpt2"), blocks()
    write(tmp_path, ours, config)
    check_kept(tmp_path, "gpt2_blocks")
    tree = json.loads((tmp_path / peft.CONFIG).read_text())
    assert tree["rank_pattern"] == {"attn.c_attn": 4} and tree["alpha_pattern"] == {"attn.c_attn": 6.0}
    b = load_file(tmp_path / peft.TENSORS)["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"]
    assert b.shape == (48, 4) and not b[16:32].any() and not b[:16, 2:].any() and not b[32:, :2].any()
    expected = np.load(FOLDERS / "gpt2_blocks.npz")["logits"]
    np.testing.assert_allclose(logits("gpt2", ours, True), expected, atol=1e-4)
    again = read(tmp_path, config)
    assert again.rank == 4
    np.testing.assert_allclose(logits("gpt2", again, True), expected, atol=1e-4)


def test_adapters_of_an_output_layer_have_a_column_for_each_token(tmp_path):
    """Llama's is untied; ours has rows up to a multiple of 64, which are not written, and are zeros when read."""
    config = dataclasses.replace(config_of("llama"), vocab_multiple=64)
    assert not config.tied
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((config.width, 2), (2, 320)))
    ours = peft.Adapters(2, 4.0, nested({"head/kernel/lora_a": a, "head/kernel/lora_b": b}))
    write(tmp_path, ours, config)
    stored = load_file(tmp_path / peft.TENSORS)["base_model.model.lm_head.lora_B.weight"]
    np.testing.assert_array_equal(stored, b[:, :280].T)
    again = read(tmp_path, config).params["head"]["kernel"]
    np.testing.assert_array_equal(again["lora_a"], a)
    np.testing.assert_array_equal(again["lora_b"], np.pad(b[:, :280], ((0, 0), (0, 40))))


def test_alpha_patterns_are_of_the_models_own_names(tmp_path):
    """As PEFT has them, `^` included; twice the default doubles what is added."""
    folder = tmp_path / "gpt2"
    shutil.copytree(FOLDERS / "gpt2", folder)
    tree = json.loads((folder / peft.CONFIG).read_text())
    plain = read(folder, config_of("gpt2")).params["blocks"]["attention"]["q"]["kernel"]["lora_b"]
    pattern = {"^transformer.h.1.attn.c_attn": 2 * tree["lora_alpha"]}
    (folder / peft.CONFIG).write_text(json.dumps(tree | {"alpha_pattern": pattern}))
    found = read(folder, config_of("gpt2")).params["blocks"]["attention"]["q"]["kernel"]["lora_b"]
    np.testing.assert_allclose(found, plain * np.array([1.0, 2.0])[:, None, None], rtol=1e-6)


def test_what_cannot_be_read_or_written_gets_a_message(tmp_path):
    config, folder = config_of("gpt2"), tmp_path / "gpt2"
    shutil.copytree(FOLDERS / "gpt2", folder)
    with pytest.raises(ValueError, match=r"c_attn: factors \(16, 3\) and \(3, 48\) of a matrix \[32, 96\]"):
        read(folder, dataclasses.replace(config, width=32, hidden=64))
    with pytest.raises(ValueError, match="does not fit this network:\n  base_model.model.transformer.h.1.attn"):
        read(folder, dataclasses.replace(config, num_layers=1))
    tree = json.loads((folder / peft.CONFIG).read_text())
    for change, message in (
        ({"use_dora": True}, "holds LORA adapters with use_dora: only plain LoRA is read"),
        ({"bias": "all"}, "with bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "with init_lora_weights=pissa_niter_4"),
        ({"alora_invocation_tokens": [1, 2]}, "with alora_invocation_tokens"),
        ({"peft_type": "IA3"}, "holds IA3 adapters"),
        ({"lora_alpha": None}, "is damaged"),
    ):
        (folder / peft.CONFIG).write_text(json.dumps(tree | change))
        with pytest.raises(ValueError, match=message):
            read(folder, config)
    (folder / peft.CONFIG).write_text(json.dumps(tree))
    (folder / peft.TENSORS).rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"adapter_model.safetensors \(adapter_model.bin needs PyTorch"):
        read(folder, config)
    odd = nested({f"embed/tokens/lora_{name}": np.zeros((4, 4)) for name in "ab"})
    with pytest.raises(ValueError, match="no such adapters as those of embed/tokens"):
        write(tmp_path / "odd", peft.Adapters(4, 4.0, odd), config)


def test_the_command_converts_there_and_back(tmp_path, capsys):
    call = lambda *args: cli.run_command(cli.COMMANDS["convert"], [str(arg) for arg in args])
    assert call(HERE / "huggingface/gpt2", tmp_path / "base") == 0
    assert call(FOLDERS / "gpt2", tmp_path / "run") == 2
    assert "say with --base RUN what they adapt" in capsys.readouterr().err
    assert call(FOLDERS / "gpt2", tmp_path / "run", "--base", tmp_path / "base") == 0
    assert call(tmp_path / "run", tmp_path / "back") == 0
    before, after = (load_file(folder / peft.TENSORS) for folder in (FOLDERS / "gpt2", tmp_path / "back"))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    assert "as PEFT reads them" in capsys.readouterr().out
    assert call(tmp_path / "run", tmp_path / "back") == 2
    assert "holds an adapter_config.json already" in capsys.readouterr().err
    assert call(tmp_path / "run", tmp_path / "merged", "--merge") == 0
    model = huggingface.read_checkpoint(tmp_path / "merged")
    net, tokens = Transformer(model.config, model.num_tokens), np.load(HERE / "huggingface/gpt2.npz")["tokens"]
    found = jax.jit(lambda params: net.logits(params, net.apply(params, jnp.asarray(tokens, jnp.int32))))(model.params)
    np.testing.assert_allclose(found, np.load(FOLDERS / "gpt2.npz")["logits"], atol=1e-4)
