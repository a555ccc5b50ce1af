"""What pre-training is worth where labels are few: test accuracy on film reviews from 200 labels, over 5 seeds.

Pre-trains the BERT of configs/bert_speeches.py where it is not there, then fine-tunes as configs/bert_reviews.py does,
from it and from nothing. A seed draws the labels, the initial weights and the order; both rows have the same ones.

Run: python -m benchmarks.bert_labels [--workdir runs/labels] [--labels 200] [--seeds 5] [--pretrained RUN]
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.runs import figures, train
from jaxgen.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, default=Path("runs/labels"))
    parser.add_argument("--labels", type=int, default=200, help="training reviews; 0 for all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretrained", type=Path, help="a run of bert_speeches (default: WORKDIR/pretrained)")
    parser.add_argument("--steps", type=int, default=300, help="steps of fine-tuning (default: 300)")
    asked = parser.parse_args()

    # A run goes on with what it began with, whatever it is given: another source needs another folder.
    name = f"from_{asked.pretrained.resolve().name}" if asked.pretrained else "pre-trained"
    source = asked.pretrained or train(load_config(CONFIGS / "bert_speeches.py"), asked.workdir / "pretrained")
    tuning = load_config(CONFIGS / "bert_reviews.py")
    optimizer = dataclasses.replace(tuning.method.optimizer, decay_steps=asked.steps)
    table = {}
    for row, start in (("pre-trained", {"pretrained": f"{source}:params"}), ("from nothing", {})):
        found = []
        for seed in range(asked.seeds):
            config = dataclasses.replace(
                tuning,
                method=dataclasses.replace(tuning.method, optimizer=optimizer),
                data=dataclasses.replace(tuning.data, few=asked.labels, few_seed=seed),
                train=dataclasses.replace(tuning.train, steps=asked.steps, seed=seed),
                init_from=start,
            )
            folder = name if start else "from_nothing"
            workdir = asked.workdir / f"{folder}_{asked.labels}_{asked.steps}_{seed}"
            found.append(100 * figures(train(config, workdir))["accuracy"])
        table[row] = np.array(found)
    print(f"test accuracy in %, {asked.labels or 'all'} labels, mean of {asked.seeds} seeds and standard deviation")
    for row, found in (*table.items(), ("difference", table["pre-trained"] - table["from nothing"])):
        print(f"{row:14} {np.mean(found):6.2f} ± {np.std(found, ddof=1):.2f}")


if __name__ == "__main__":
    main()
