#!/usr/bin/env bash
# Trains, evaluates, exports and benchmarks a small detector, and draws its detections, on two CPU cores.
#   ./scripts/quickstart.sh [OUTPUT_DIR]      (default: ./quickstart)
# Each step is an ordinary detzoo command, printed before it runs. A step whose result exists is skipped.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
case "${1:-}" in
  -h | --help) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
# shellcheck source=scripts/setup_environment.sh
source "$root/scripts/setup_environment.sh"
setup_environment train
out="${1:-$root/quickstart}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
detzoo="$root/.venv/bin/detzoo"
config="$root/model_configs/shapes_ssd_mobilenet_v1.config"
started=$SECONDS
step_number=0

# step TITLE RESULT COMMAND... : runs the command unless RESULT (a file it writes last) exists.
step() {
  local title="$1" result="$2"
  shift 2
  step_number=$((step_number + 1))
  printf '\n[%d/7] %s\n' "$step_number" "$title"
  if [ -e "$result" ]; then
    printf '      exists already: %s\n' "$result"
    return
  fi
  printf '      $ detzoo %s\n' "$*"
  "$detzoo" "$@"
}

data=(
  --set "train_input_reader.label_map_path=$out/data/label_map.pbtxt"
  --set "train_input_reader.tf_record_input_reader.input_path[0]=$out/data/train-?????-of-00004.tfrecord"
  --set "eval_input_reader[0].label_map_path=$out/data/label_map.pbtxt"
  --set "eval_input_reader[0].tf_record_input_reader.input_path[0]=$out/data/heldout-?????-of-00001.tfrecord"
)

step "Generate the training images" "$out/data/train-00003-of-00004.tfrecord" \
  dataset shapes --output_path "$out/data/train" --num_images 1500 --image_size 160 --seed 1 --num_shards 4
step "Generate the held-out images" "$out/data/heldout-00000-of-00001.tfrecord" \
  dataset shapes --output_path "$out/data/heldout" --num_images 200 --image_size 160 --seed 2 --num_shards 1 \
  --images_dir "$out/data/heldout_images"
step "Train a small SSD from scratch" "$out/model/finished" \
  train --pipeline_config_path "$config" --model_dir "$out/model" "${data[@]}"
step "Evaluate it on the held-out images" "$out/evaluation/metrics.json" \
  evaluate --pipeline_config_path "$out/model/pipeline.config" --checkpoint_dir "$out/model" --output_dir "$out/evaluation"
step "Export a SavedModel" "$out/export/saved_model/saved_model.pb" \
  export --pipeline_config_path "$out/model/pipeline.config" --trained_checkpoint_dir "$out/model" \
  --output_directory "$out/export"
step "Benchmark the SavedModel" "$out/benchmark.json" \
  benchmark --saved_model "$out/export/saved_model" --runs 100 --output "$out/benchmark.json"
step "Draw detections on held-out images" "$out/detections/detections.json" \
  detect --saved_model "$out/export/saved_model" --images "$out/data/heldout_images" --output_dir "$out/detections" \
  --score_threshold 0.4

if [ ! -e "$out/detections.jpg" ]; then
  "$root/.venv/bin/python" "$root/scripts/contact_sheet.py" "$out/detections" "$out/detections.jpg"
fi

"$root/.venv/bin/python" - "$out" $((SECONDS - started)) <<'PYTHON'
import json
import sys

out, seconds = sys.argv[1], int(sys.argv[2])
metrics = json.load(open(f"{out}/evaluation/metrics.json"))
print(f"""
Done in {seconds // 60} min {seconds % 60} s. AP@.50 on the held-out images: {metrics["mAP@.50IOU"]:.3f}
  data         {out}/data            records, label map, held-out images
  training     {out}/model           checkpoints, TensorBoard events, pipeline.config, run.json
  evaluation   {out}/evaluation      metrics.json, detections.json
  SavedModel   {out}/export/saved_model
  benchmark    {out}/benchmark.json
  pictures     {out}/detections      the first eight: {out}/detections.jpg""")
PYTHON
