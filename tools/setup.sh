#!/usr/bin/env bash
# Prepares the Python environment that hierseg runs in; quickstart.sh and run_tests.sh source it.
#
#   bash tools/setup.sh           the environment, ready to train
#   bash tools/setup.sh --test    with the test tools too
#   source tools/setup.sh         the same, and sets $PYTHON to its interpreter
#
# Uses the active virtual environment, else makes .venv beside pyproject.toml; never changes another Python.
# The second time it finds everything in place and takes well under a second. Settings, all optional:
#   PYTHON=python3.12          the interpreter to make .venv from
#   PIP_FIND_LINKS=DIR         where ready wheels lie, such as one of onedl-mmcv with compiled operators
#   HIERSEG_COMPILE_OPS=1      compile mmcv's operators: 20 minutes on two cores, nvcc for a GPU; no need to
#   HIERSEG_CPU_ONLY=1         leave a GPU alone: the CPU build of torch
#   HIERSEG_SKIP_SETUP=1       install nothing: everything is there for $PYTHON (default: python)
#   HIERSEG_CONSTRAINTS=FILE   other versions than the tested ones of constraints.txt, at your own risk

HIERSEG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# True for CPython 3.10 to 3.13: the versions that every package is released for.
python_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10; do
        if python_fits "$candidate" && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo 'error: no Python 3.10 to 3.13 with its venv module was found. Install one (on Debian and Ubuntu:' \
        'apt install python3 python3-venv) or name one: PYTHON=/path/to/python3.12' >&2
    return 1
}

make_environment() {
    local environment=$HIERSEG_ROOT/.venv base
    if [[ -n ${VIRTUAL_ENV:-} ]]; then
        environment=$VIRTUAL_ENV
        if ! python_fits "$environment/bin/python"; then
            echo "error: the active virtual environment $environment is not Python 3.10 to 3.13." \
                'Deactivate it, or activate one that is.' >&2
            return 1
        fi
    elif ! { python_fits "$environment/bin/python" && "$environment/bin/python" -m pip --version >/dev/null 2>&1; }; then
        base=$(find_python) || return 1
        echo "[setup] making $environment with $("$base" --version)"
        "$base" -m venv --clear "$environment" || return 1
    fi
    PYTHON=$environment/bin/python
}

# A GPU that must be left alone has to be invisible to torch, too.
[[ ${HIERSEG_CPU_ONLY:-0} == 1 ]] && export CUDA_VISIBLE_DEVICES=-1

if [[ ${HIERSEG_SKIP_SETUP:-0} == 1 ]]; then
    PYTHON=${PYTHON:-python}
else
    make_environment && "$PYTHON" "$HIERSEG_ROOT/tools/setup_environment.py" "$@" || exit 1
fi
