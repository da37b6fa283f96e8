#!/usr/bin/env bash
# Trains on several processes: one a GPU, or, on a machine without one, that many on the CPU (gloo).
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
source "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh"

[[ $# -ge 2 ]] || { echo 'usage: dist_train.sh CONFIG GPUS [arguments of tools/train.py]' >&2; exit 2; }
launch "$2" "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
