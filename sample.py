"""Draws samples from a run: `python sample.py runs/ddpm_faces --num 64 --out faces.png`."""

import sys

from jaxgen.cli import run_command, sample

if __name__ == "__main__":
    sys.exit(run_command(sample, sys.argv[1:]))
