#!/usr/bin/env bash
# Tests on several processes: one a GPU, or, on a machine without one, that many on the CPU (gloo).
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
source "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh"

[[ $# -ge 3 ]] || { echo 'usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]' >&2; exit 2; }
launch "$3" "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
