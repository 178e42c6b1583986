# Trains, evaluates and exports. Build in a checkout of detzoo, and run in the folder of your project:
#
#   docker build -f docker/train.Dockerfile -t detzoo .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" \
#       detzoo train --pipeline_config_path pipeline.config --model_dir runs/my
#
# TensorFlow finds the GPU's driver of the host (NVIDIA Container Toolkit); without --gpus all it uses the CPU.
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY protos protos
COPY model_configs model_configs
COPY docs docs
COPY detzoo detzoo
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[train,video]" "tensorflow[and-cuda]==2.20.*"
WORKDIR /work
ENV HOME=/tmp
ENTRYPOINT ["detzoo"]
CMD ["--help"]
