#!/usr/bin/env bash
# Creates .venv in this checkout and installs detzoo into it, unless both exist already. Sourced by the other scripts.
#   setup_environment [EXTRA]     e.g. setup_environment test
set -euo pipefail

setup_environment() {
  local extra="${1:-}" root stamp wanted python
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  python="${PYTHON:-python3}"
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "detzoo needs Python 3.10 to 3.13 (TensorFlow 2.20); '$python' is $("$python" --version 2>&1 || echo missing)." >&2
    echo "Name another one: PYTHON=python3.11 $0" >&2
    exit 2
  fi
  if [ ! -x "$root/.venv/bin/python" ]; then
    echo "[setup] making .venv with $("$python" --version)"
    if ! "$python" -m venv "$root/.venv"; then
      rm -rf "$root/.venv"
      echo "The venv module is missing. On Debian: apt-get install python3-venv" >&2
      exit 2
    fi
  fi
  # One stamp per extra. It identifies the installed version, so that a changed pyproject.toml is installed again.
  stamp="$root/.venv/.installed${extra:+-$extra}"
  wanted="$(cksum <"$root/pyproject.toml") $root"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "[setup] installing detzoo${extra:+[$extra]} into .venv (TensorFlow is about 600 MB: one to five minutes)"
    # --use-pep517: pip before 23.1 (as in Debian 12) fails to build seqeval, which tf-models-official needs.
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 \
      --editable "$root${extra:+[$extra]}" \
      2> >(grep -v -e '^WARNING: Location' -e 'running pip as the .root. user' >&2)
    printf '%s\n' "$wanted" >"$stamp"
  fi
}
