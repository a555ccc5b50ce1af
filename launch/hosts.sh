#!/usr/bin/env bash
# Several machines that no scheduler manages: one process on each, started over ssh. Not run.
#
#   bash launch/hosts.sh node0 node1 node2 node3
#
# The checkout, its environment (.venv) and runs/ lie in the same place on all of them, on a file system that they share.
# Ctrl-C or a SIGTERM to any process saves and ends all; the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

hosts=("$@")
for i in "${!hosts[@]}"; do
  ssh -tt "${hosts[$i]}" "cd '$PWD' && exec .venv/bin/python train.py configs/ddpm_imagenet64.py \
    --workdir runs/ddpm_imagenet64 \
    --processes.coordinator ${hosts[0]}:1234 --processes.num ${#hosts[@]} --processes.id $i --processes.heartbeat 60" \
    2>&1 < /dev/null | sed "s/^/$i: /" &
done
wait
