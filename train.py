"""Trains, or goes on with, a run: `python train.py configs/ddpm_faces.py [--workdir DIR] [--train.steps 5000 …]`."""

import sys

from jaxgen.cli import run_command, train

if __name__ == "__main__":
    sys.exit(run_command(train, sys.argv[1:]))
