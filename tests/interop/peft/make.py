"""Made the folders beside it, with peft 0.21.2, transformers 5.24.0 and torch 2.13.0 (CPU) on Python 3.11.

  python -m venv ENV && ENV/bin/pip install torch==2.13.0 && ENV/bin/pip install peft==0.21.2 transformers==5.24.0
  ENV/bin/python tests/interop/peft/make.py

None is a dependency of jaxgen. Each folder has random adapters, as PEFT writes them, of the checkpoint of that name in
../huggingface, and `NAME.npz` the `logits` [B, T, V] of the adapted model for the `tokens` there. The script also lets
PEFT read what jaxgen wrote (`jaxgen/NAME`; ../test_peft.py checks that it still writes the same), and saves the logits.
"""

import shutil
from pathlib import Path

import numpy as np
import peft
import torch
import transformers

HERE = Path(__file__).parent
CHECKPOINTS = HERE.parent / "huggingface"
ADAPTERS = {
    "gpt2": peft.LoraConfig(r=3, lora_alpha=6, target_modules=["c_attn", "mlp.c_fc"], task_type="CAUSAL_LM"),
    "llama": peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 2},
        alpha_pattern={"v_proj": 3},
        use_rslora=True,
        task_type="CAUSAL_LM",
    ),
}


def base(name: str):
    return transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINTS / name, attn_implementation="eager").eval()


def logits_of(model, name: str) -> np.ndarray:
    tokens = torch.from_numpy(np.load(CHECKPOINTS / f"{name}.npz")["tokens"])
    with torch.no_grad():
        return model(tokens).logits.float().numpy()


for name, config in ADAPTERS.items():
    torch.manual_seed(0)
    model = peft.get_peft_model(base(name), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    shutil.rmtree(HERE / name, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink(missing_ok=True)
    np.savez(HERE / f"{name}.npz", logits=logits_of(model, name))
    print(name, sorted(f.name for f in (HERE / name).iterdir()))

for folder in sorted(HERE.glob("jaxgen/*")):
    name = folder.name.split("_")[0]
    model = peft.PeftModel.from_pretrained(base(name), folder).eval()
    if folder.name == name:
        np.testing.assert_allclose(logits_of(model, name), np.load(HERE / f"{name}.npz")["logits"], atol=1e-4)
    else:
        np.savez(HERE / f"{folder.name}.npz", logits=logits_of(model, name))
    print(f"PEFT reads jaxgen/{folder.name}")
