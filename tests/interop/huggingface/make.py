"""Made the folders beside it, with transformers 5.24.0, torch 2.13.0 (CPU) and numpy 2.4 on Python 3.11.

  python -m venv ENV && ENV/bin/pip install torch==2.13.0 && ENV/bin/pip install transformers==5.24.0
  ENV/bin/python tests/interop/huggingface/make.py [NAME …]

Neither is a dependency of jaxgen. Each folder is a small random checkpoint as transformers writes it, with a tokenizer,
and beside it, in `NAME.npz`, `tokens` [B, T], its `logits` [B, T, V] and the `greedy` continuation [B, T + 8] of the
tokens. The script also checks that transformers reads what jaxgen wrote (`jaxgen/NAME`; ../test_huggingface.py checks
that it still writes the same) with the same logits.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
TEXT = ["the state of the union is strong and the people of the states are free to work", "Größe, ☃!"] * 4
VOCAB = 280

COMMON = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.5}
LLAMA = COMMON | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
SCALING = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "gpt2": transformers.GPT2Config(**COMMON, n_embd=16, n_layer=2, n_head=4, n_positions=64),
    "llama": transformers.LlamaConfig(**LLAMA, head_dim=6, rope_parameters=SCALING),
    "mistral": transformers.MistralConfig(**LLAMA, sliding_window=5),
    "qwen2": transformers.Qwen2Config(**LLAMA | {"tie_word_embeddings": True}),
    "mixtral": transformers.MixtralConfig(**LLAMA, num_local_experts=3, num_experts_per_tok=2),
}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXT, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=names[0], eos_token=names[0])


def logits_of(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.float().numpy()


for name in sys.argv[1:] or MODELS:
    config = MODELS[name]
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # scales and biases away from 1 and 0, which would hide them
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    shutil.rmtree(HERE / name, ignore_errors=True)
    model.save_pretrained(HERE / name, max_shard_size="10KB" if name == "llama" else "1GB")
    tokenizer().save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    tokens = np.random.default_rng(0).integers(1, VOCAB, (2, 24))
    greedy = model.generate(
        torch.from_numpy(tokens), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    np.savez(HERE / f"{name}.npz", tokens=tokens, logits=logits_of(model, tokens), greedy=greedy.numpy())
    print(name, sum(p.numel() for p in model.parameters()), sorted(f.name for f in (HERE / name).iterdir()))

for folder in sorted(HERE.glob("jaxgen/*")):
    if folder.name not in MODELS:  # BERT's are of make_bert.py
        continue
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    expected = np.load(HERE / f"{folder.name}.npz")
    np.testing.assert_allclose(logits_of(model, expected["tokens"]), expected["logits"], atol=1e-4)
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(path) for path in (folder, HERE / folder.name))
    assert all(ours(text)["input_ids"] == theirs(text)["input_ids"] for text in TEXT)
    print(f"transformers reads jaxgen/{folder.name}")
