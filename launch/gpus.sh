#!/usr/bin/env bash
# One machine with one or several GPUs: one process drives all of them. Not run.
#
#   bash launch/gpus.sh                                                   # all GPUs share the batch
#   bash launch/gpus.sh --mesh.fsdp 8                                     # and split the state between them
#   CUDA_VISIBLE_DEVICES=0,1 bash launch/gpus.sh --train.batch-size 64    # two of them, a smaller batch
set -euo pipefail
cd "$(dirname "$0")/.."

exec python train.py configs/ddpm_cifar10.py --workdir runs/ddpm_cifar10 "$@"
