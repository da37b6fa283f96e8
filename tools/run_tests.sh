#!/usr/bin/env bash
# Sets everything up, then checks lint, types, documentation and tests; arguments go to pytest.
#   bash tools/run_tests.sh
#   bash tools/run_tests.sh -m 'not slow' tests/taxonomy
# HIERSEG_TEST_DATA=DIR adds the tests on real data, which skip without it.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" --test
cd "$HIERSEG_ROOT"
# One test process a core, each with one thread. (Afterwards nproc would answer with that number.)
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failed=()
check() {
    local name=$1 start=$SECONDS
    echo "== $name"
    "${@:2}" || failed+=("$name")
    echo "== $name: $((SECONDS - start)) s"
}

check lint "$PYTHON" -m ruff check .
check format "$PYTHON" -m ruff format --check .
check types "$PYTHON" -m mypy
# All pages anew each time: a page that is not read again gives no warning.
check documentation "$PYTHON" -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build/html
# In the order of tests/conftest.py; xdist's own puts files of few tests last, and those are the longest.
check tests "$PYTHON" -m pytest -n "$cores" --dist loadfile --no-loadscope-reorder --durations 10 "$@"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
