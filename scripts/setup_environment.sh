#!/usr/bin/env bash
# Makes a virtual environment in this checkout and installs detzoo into it; reuses what exists. Sourced by other scripts.
#   setup_environment EXTRA [FOLDER [REQUIREMENT...]]     e.g. setup_environment test
# EXTRA is one of pyproject.toml, or "" for inference alone. FOLDER is .venv if it is not given.
set -euo pipefail

setup_environment() {
  local extra="${1:-}" folder="${2:-.venv}" root venv stamp wanted python
  local requirements=("${@:3}")
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  venv="$root/$folder"
  python="${PYTHON:-python3}"
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "detzoo needs Python 3.10 to 3.13 (TensorFlow 2.20); '$python' is $("$python" --version 2>&1 || echo missing)." >&2
    echo "Name another one: PYTHON=python3.11 $0" >&2
    exit 2
  fi
  if [ ! -x "$venv/bin/python" ]; then
    echo "[setup] making $folder with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
      rm -rf "$venv"
      echo "The venv module is missing. On Debian: apt-get install python3-venv" >&2
      exit 2
    fi
  fi
  # One stamp for each extra; it names what was installed, so a changed pyproject.toml is installed again.
  stamp="$venv/.installed${extra:+-$extra}"
  wanted="$(cksum <"$root/pyproject.toml") $root${requirements[*]+ ${requirements[*]}}"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "[setup] installing detzoo${extra:+[$extra]} into $folder (2.2 to 3.8 GB, one to five minutes)"
    # --use-pep517: pip before 23.1 (Debian 12 has one) builds seqeval, which tf-models-official needs, in a way that fails.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 \
      --editable "$root${extra:+[$extra]}" ${requirements[@]+"${requirements[@]}"} \
      2> >(grep -v -e '^WARNING: Location' -e 'running pip as the .root. user' >&2)
    printf '%s\n' "$wanted" >"$stamp"
  fi
}
