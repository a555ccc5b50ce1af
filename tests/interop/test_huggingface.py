"""Checkpoints that transformers wrote: its logits and its texts; and written back, the same tensors."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgen import cli
from jaxgen.data import tokenizer
from jaxgen.interop import huggingface
from jaxgen.language.generate import generate
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.transformer import Transformer, TransformerConfig

HERE = Path(__file__).parent / "huggingface"
NAMES = ("gpt2", "llama", "mistral", "qwen2", "mixtral")


def tensors_of(folder):
    return {name: x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_texts_are_those_of_transformers(name):
    model, expected = huggingface.read_checkpoint(HERE / name), np.load(HERE / f"{name}.npz")
    net, cfg = Transformer(model.config, model.num_tokens), SampleConfig(length=8, temperature=0.0)
    tokens = jnp.asarray(expected["tokens"], jnp.int32)

    @jax.jit
    def run(params):
        logits = net.logits(params, net.apply(params, tokens))
        return logits, generate(net, params, tokens, jax.random.key(0), cfg, stop=(-1,))

    logits, greedy = run(model.params)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    np.testing.assert_array_equal(greedy, expected["greedy"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_back_is_what_was_read(name, tmp_path):
    model = huggingface.read_checkpoint(HERE / name)
    chosen = tokenizer.read(HERE / name)
    huggingface.write_checkpoint(tmp_path, model, chosen, part=20_000)
    before, after = tensors_of(HERE / name), tensors_of(tmp_path)
    assert before.keys() == after.keys() and len(list(tmp_path.glob("model-*"))) > 1
    for tensor, x in before.items():
        np.testing.assert_array_equal(x, after[tensor])
    again = huggingface.read_checkpoint(tmp_path)
    assert again.config == model.config and again.num_tokens == 280
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (HERE / name, tmp_path))
    assert {old[key] == new[key] for key in ("model_type", "architectures", "vocab_size", "eos_token_id")} == {True}
    text = "the state of the union, Größe ☃!"
    assert tokenizer.read(tmp_path).encode(text) == chosen.encode(text)
    assert chosen.decode(chosen.encode(text)) == text and chosen.begin == chosen.end == 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_what_is_written_is_what_transformers_has_read(name, tmp_path):
    """`huggingface/jaxgen` was opened by transformers (make.py); what is written now is the same, byte by byte."""
    huggingface.write_checkpoint(tmp_path, huggingface.read_checkpoint(HERE / name), tokenizer.read(HERE / name))
    kept = HERE / "jaxgen" / name
    assert {p.name for p in kept.iterdir()} == {p.name for p in tmp_path.iterdir()}
    for file in kept.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_half_precision_padding_and_a_base_model(tmp_path):
    """bfloat16 tensors; a padded embedding loses its padding; without the prefix of the model with a head."""
    model, chosen = huggingface.read_checkpoint(HERE / "gpt2"), tokenizer.read(HERE / "gpt2")
    padded = {**model.params, "embed": {**model.params["embed"]}}
    padded["embed"]["tokens"] = np.pad(padded["embed"]["tokens"], ((0, 8), (0, 0)))
    huggingface.write_checkpoint(tmp_path, model._replace(params=padded), chosen, "bfloat16")
    tensors = tensors_of(tmp_path)
    assert tensors["transformer.wte.weight"].shape == (280, 16)
    assert {x.dtype for x in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    bare = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    bare["h.0.attn.bias"] = np.zeros((1, 1, 4, 4), np.float32)  # a mask that old files carry
    save_file(bare, tmp_path / "model.safetensors")
    again = huggingface.read_checkpoint(tmp_path)
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(again.params), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2**-8)


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(HERE / "gpt2", tmp_path / "gpt2")


def test_tensors_that_do_not_fit_are_listed(copied):
    tensors = tensors_of(copied)
    del tensors["transformer.h.1.ln_1.bias"]
    tensors["transformer.h.0.ln_1.bias"] = np.zeros(3, np.float32)
    tensors["transformer.adapter"] = np.zeros(3, np.float32)
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit its config.json") as error:
        huggingface.read_checkpoint(copied)
    assert str(error.value).split("\n")[1:] == [
        "  transformer.adapter: not a part of this model",
        "  transformer.h.0.ln_1.bias: (3,) in the file, (16,) by config.json",
        "  transformer.h.1.ln_1.bias: missing",
    ]


def test_what_cannot_be_read_gets_a_message(copied, tmp_path):
    change = lambda **fields: (copied / "config.json").write_text(
        json.dumps(json.loads((HERE / "gpt2/config.json").read_text()) | fields)
    )
    for fields, message in (
        ({"model_type": "gpt3"}, "did you mean gpt2"),
        ({"activation_function": "relu"}, "activation_function"),
        ({"scale_attn_by_inverse_layer_idx": True}, "which this network does not have"),
    ):
        change(**fields)
        with pytest.raises(ValueError, match=message):
            huggingface.read_checkpoint(copied)
    change()
    (copied / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="is damaged"):
        huggingface.read_checkpoint(copied)
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match="save it as safetensors first"):
        huggingface.read_checkpoint(copied)
    with pytest.raises(FileNotFoundError, match="is a folder with config.json"):
        huggingface.read_checkpoint(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"net\.post_norm=True"):
        huggingface.family_of(TransformerConfig(post_norm=True))


def test_the_command_converts_there_and_back(tmp_path, capsys):
    call = lambda *args: cli.run_command(cli.COMMANDS["convert"], [str(arg) for arg in args])
    assert call(HERE / "gpt2", tmp_path / "run") == 0
    assert call(tmp_path / "run", tmp_path / "back") == 0
    before, after = tensors_of(HERE / "gpt2"), tensors_of(tmp_path / "back")
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    assert "12,096 parameters" in capsys.readouterr().out
    assert call(HERE / "gpt2", tmp_path / "run") == 2
    assert "holds a config.json already" in capsys.readouterr().err
    assert call(tmp_path, tmp_path / "other") == 2
