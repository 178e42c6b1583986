#!/usr/bin/env bash
# Sets up .venv with the test extra and runs the suite on all cores: ./scripts/test.sh [--all]
#   --all   also runs the full sweeps over all configs, extractors and benchmarks (about ten minutes more on two cores)
# With other arguments runs pytest with them: ./scripts/test.sh tests/ops -k nms
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup_environment.sh
source scripts/setup_environment.sh
setup_environment test
export TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=Agg
if [ "$#" -eq 0 ] || [ "$*" = "--all" ]; then
  # One worker per core: most of the time is spent tracing graphs, which is single-threaded.
  exec .venv/bin/python -m pytest tests "$@" -n "${PYTEST_WORKERS:-auto}" --dist worksteal --durations 10
fi
exec .venv/bin/python -m pytest "$@"
