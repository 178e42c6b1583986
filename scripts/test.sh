#!/usr/bin/env bash
# Sets up .venv with the test extra and runs the whole suite: ./scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup_environment.sh
source scripts/setup_environment.sh
setup_environment test
export TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=Agg
if [ "$#" -eq 0 ]; then
  # One worker per core: most of the time is spent tracing graphs, which is single-threaded.
  exec .venv/bin/python -m pytest tests -n "${PYTEST_WORKERS:-auto}" --dist worksteal --durations 10
fi
exec .venv/bin/python -m pytest "$@"
