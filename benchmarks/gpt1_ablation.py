"""GPT-1's ablation (Radford et al. 2018, table 5) on film reviews: test accuracy of four ways to make a classifier.

Pre-trains the transformer of configs/gpt_speeches.py, and an LSTM of its size, where they are not there, then
fine-tunes as configs/gpt_classifier_reviews.py does.

Run: python -m benchmarks.gpt1_ablation [--workdir runs/ablation] [--seeds 3] [--pretrained runs/gpt_speeches]
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.runs import figures, train
from jaxgen.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
ROWS = {  # options of the method, and which run it starts from
    "pre-trained, auxiliary loss": ({}, "transformer"),
    "no pre-training": ({}, None),
    "no auxiliary loss": ({"aux_weight": 0.0}, "transformer"),
    "LSTM, pre-trained, auxiliary loss": ({"core": "lstm"}, "lstm"),
}


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrained", type=Path, help="a run of gpt_speeches (default: WORKDIR/transformer)")
    parser.add_argument("--pretrain-steps", type=int, help="steps of the two runs that are started from")
    parser.add_argument("--steps", type=int, help="steps of fine-tuning")
    asked = parser.parse_args()

    def with_steps(config, steps):
        if steps is None:
            return config
        optimizer = dataclasses.replace(config.method.optimizer, decay_steps=steps)
        return dataclasses.replace(
            config,
            method=dataclasses.replace(config.method, optimizer=optimizer),
            train=dataclasses.replace(config.train, steps=steps),
        )

    base = with_steps(load_config(CONFIGS / "gpt_speeches.py"), asked.pretrain_steps)
    started = {}
    for core in ("transformer", "lstm"):
        config = dataclasses.replace(base, method=dataclasses.replace(base.method, core=core))
        given = asked.pretrained if core == "transformer" else None
        started[core] = given or train(config, asked.workdir / core)

    tuning = with_steps(load_config(CONFIGS / "gpt_classifier_reviews.py"), asked.steps)
    table = {}
    for row, (options, source) in ROWS.items():
        found = []
        for seed in range(asked.seeds):
            config = dataclasses.replace(
                tuning,
                method=dataclasses.replace(tuning.method, **options),
                train=dataclasses.replace(tuning.train, seed=seed, best_metric="eval/accuracy", best_mode="max"),
                init_from={"pretrained": f"{started[source]}:params"} if source else {},
            )
            name = row.replace(", ", "_").replace(" ", "_")
            found.append(100 * figures(train(config, asked.workdir / f"{name}_{seed}"))["accuracy"])
        table[row] = found
    print(f"test accuracy in %, mean of {asked.seeds} seeds and their standard deviation")
    for row, found in table.items():
        print(f"{row:36} {np.mean(found):6.2f} ± {np.std(found, ddof=1):.2f}")


if __name__ == "__main__":
    main()
