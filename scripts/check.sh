#!/usr/bin/env bash
# Checks lint, formatting, types and generated files, as pre-commit and CI do: ./scripts/check.sh [--fix]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup_environment.sh
source scripts/setup_environment.sh
setup_environment test
bin=.venv/bin
if [ "${1:-}" = "--fix" ]; then
  "$bin/ruff" check --quiet --fix detzoo tests benchmarks scripts
  "$bin/ruff" format --quiet detzoo tests benchmarks scripts
  "$bin/python" scripts/compile_protos.py
  "$bin/python" scripts/update_readme.py
  "$bin/python" scripts/list_published_configs.py
fi
echo "[check] ruff"
"$bin/ruff" check detzoo tests benchmarks scripts
"$bin/ruff" format --check --quiet detzoo tests benchmarks scripts || { echo "run ./scripts/check.sh --fix" >&2; exit 1; }
echo "[check] mypy"
"$bin/mypy"
echo "[check] generated files"
"$bin/python" scripts/compile_protos.py --check
"$bin/python" scripts/update_readme.py --check
"$bin/python" scripts/list_published_configs.py --check
