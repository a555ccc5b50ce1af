#!/usr/bin/env bash
# Several machines that no scheduler manages: one process on each, started over ssh. Not run.
#
#   bash launch/hosts.sh node0 node1 node2 node3
#
# The checkout, its environment (.venv) and runs/ lie in the same place on all of them, on a file system that they share.
# Ctrl-C (or a SIGTERM) here goes to the first process: all save after the same step and end. The same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
(($# > 0)) || { echo "usage: $0 HOST …" >&2; exit 2; }

hosts=("$@") pids=()
trap 'ssh "${hosts[0]}" pkill -TERM -f -- --processes.coordinator' INT TERM
for i in "${!hosts[@]}"; do
  ssh "${hosts[$i]}" "cd '$PWD' && exec .venv/bin/python train.py configs/ddpm_imagenet64.py \
    --workdir runs/ddpm_imagenet64 \
    --processes.coordinator ${hosts[0]}:1234 --processes.num ${#hosts[@]} --processes.id $i --processes.heartbeat 60" \
    < /dev/null &
  pids+=($!)
done

status=0
for pid in "${pids[@]}"; do
  wait "$pid" || { kill -0 "$pid" 2> /dev/null && wait "$pid"; } || status=$? # a trap ends the first wait
done
exit "$status"
