#!/usr/bin/env bash
# Trains under Slurm.
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS= \
#       bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
set -eu
[[ $# -ge 4 ]] || { echo 'usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]' >&2; exit 2; }

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}

# SRUN_ARGS holds several arguments: it is split at blanks.
# shellcheck disable=SC2086
PYTHONPATH=$TOOLS/..${PYTHONPATH:+:$PYTHONPATH} exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$3" --work-dir="$4" --launcher=slurm "${@:5}"
