#!/usr/bin/env bash
# Builds the documentation site from docs/ into site/; a dead link or an unknown name is an error: ./scripts/docs.sh [--serve]
#   --serve   shows the site on http://127.0.0.1:8000 and builds it again after each change
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup_environment.sh
source scripts/setup_environment.sh
setup_environment docs
export DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true
if [ "${1:-}" = "--serve" ]; then
  exec .venv/bin/python -m mkdocs serve
fi
.venv/bin/python -m mkdocs build --clean --quiet
echo "open site/index.html"
