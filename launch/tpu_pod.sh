#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on every host of the slice. Not run.
#
#   ZONE=us-west4-a SHARE=10.0.0.2:/runs bash launch/tpu_pod.sh create    # the slice, checkout and environment
#   ZONE=us-west4-a bash launch/tpu_pod.sh train                          # again after a preemption: it goes on
#   ZONE=us-west4-a bash launch/tpu_pod.sh delete
#
# runs/ is a share (NFS, such as Filestore) that all hosts mount: a run's directory is a plain directory with a lock.
set -euo pipefail
NAME=${NAME:-jaxgen} TYPE=${TYPE:-v5litepod-64} VERSION=${VERSION:-v2-alpha-tpuv5-lite}
ZONE=${ZONE:?set ZONE, such as us-west4-a}

everywhere() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"
}

case "${1:-}" in
  create)
    gcloud compute tpus tpu-vm create "$NAME" --zone "$ZONE" --accelerator-type "$TYPE" --version "$VERSION"
    cd "$(dirname "$0")/.."
    git archive --prefix=jaxgen/ -o /tmp/jaxgen.tar HEAD
    gcloud compute tpus tpu-vm scp /tmp/jaxgen.tar "$NAME": --zone "$ZONE" --worker=all
    everywhere "tar xf jaxgen.tar && cd jaxgen && mkdir -p runs && sudo mount '${SHARE:?set SHARE, such as 10.0.0.2:/runs}' runs &&
      python3 -m venv .venv && .venv/bin/pip install -q -e . -c constraints.txt && .venv/bin/pip install -q 'jax[tpu]' -c constraints.txt"
    ;;
  train)
    everywhere "cd jaxgen && .venv/bin/python train.py configs/ddpm_imagenet64.py --workdir runs/ddpm_imagenet64 \
      --mesh.fsdp 16 --processes.auto"
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$NAME" --zone "$ZONE" --quiet
    ;;
  *)
    echo "usage: ZONE=… [NAME=… TYPE=… VERSION=… SHARE=…] $0 create | train | delete" >&2
    exit 2
    ;;
esac
