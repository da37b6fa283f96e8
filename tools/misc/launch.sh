# Sourced by dist_train.sh and dist_test.sh: starts one Python process for each GPU, or on the CPU.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The interpreter of the active environment, else of the one that tools/setup.sh made.
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python
    [[ -z ${VIRTUAL_ENV:-} && -x $TOOLS/../.venv/bin/python ]] && PYTHON=$TOOLS/../.venv/bin/python
fi

# launch PROCESSES SCRIPT [ARGUMENT...]
launch() {
    local processes=$1 cores
    if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
        echo "error: the number of GPUs must be a whole number from 1, not '$processes'" >&2
        exit 2
    fi
    # PyTorch's launcher gives every process one thread unless told otherwise; on a CPU that wastes cores.
    cores=$(nproc)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
    PYTHONPATH=$TOOLS/..${PYTHONPATH:+:$PYTHONPATH} exec "$PYTHON" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
        --nproc_per_node="$processes" "${@:2}"
}
