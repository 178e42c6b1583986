#!/usr/bin/env bash
# Sets up .venv-inference with TensorFlow 2.21 and without training, and runs the tests of what works there: imports,
# export, evaluation, detection, data, configs, benchmarks. Tests that train are skipped with a reason.
#   ./scripts/test_inference.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup_environment.sh
source scripts/setup_environment.sh
setup_environment "" .venv-inference "tensorflow==2.21.*" "pytest>=8" "pytest-xdist>=3.6"
export TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=Agg
if [ "$#" -eq 0 ]; then
  shopt -s globstar failglob # a pattern without a file is an error
  set -- -n "${PYTEST_WORKERS:-auto}" --dist loadfile tests/evaluate \
    tests/**/test_{extras,import_floors,load,override,check,text,conversion,records,inspect,batches}.py \
    tests/**/test_{exporter,freeze,detect_files,benchmark_runner}.py \
    tests/**/test_cli_{benchmark,config,dataset,detect,evaluate,export,export_tflite,main,train}.py
fi
exec .venv-inference/bin/python -m pytest -rs "$@"
