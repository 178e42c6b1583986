"""The classifiers of the SPP paper in model_configs/: table 2 in their headers, their sizes, what they train with."""

from __future__ import annotations

import math
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline
from detzoo.contracts import Groundtruth
from detzoo.features.network import symbolic

FOLDER = pathlib.Path(__file__).parents[1] / "model_configs"
# Top-1 and top-5 error of ten views in percent; arXiv:1406.4729, table 2, rows a (no SPP), b (single), c (multi-size).
TABLE_2 = {
    "zf5": ((35.99, 14.76), (34.98, 14.14), (34.60, 13.64)),
    "convnet5": ((34.93, 13.92), (34.38, 13.54), (33.94, 13.33)),
    "overfeat5": ((34.13, 13.52), (32.87, 12.80), (32.26, 12.33)),
    "overfeat7": ((32.01, 11.97), (30.36, 11.12), (29.68, 10.95)),
}
KINDS = ("no_spp", "single_size", "multi_size")
RESULTS = {
    f"spp_{network}_{kind}_imagenet": errors
    for network, rows in TABLE_2.items()
    for kind, errors in zip(KINDS, rows, strict=True)
} | {
    "spp_zf5_30_bins_imagenet": (35.06, 14.04),  # section 3.1.2
    "spp_overfeat7_random_size_imagenet": (30.06, 10.96),  # section 3.1.3
}
# Table 3: top-1 error of one crop and of the full image.
TABLE_3 = {
    "spp_zf5_single_size_imagenet": (38.01, 37.55),
    "spp_zf5_multi_size_imagenet": (37.57, 37.07),
    "spp_overfeat7_single_size_imagenet": (33.18, 32.72),
    "spp_overfeat7_multi_size_imagenet": (32.57, 31.25),
}
# Convolutions of table 1: filters x (size^2 x inputs + 1).
CONVOLUTIONS = {
    "zf5": 96 * 148 + 256 * 2401 + 384 * 2305 + 384 * 3457 + 256 * 3457,
    "convnet5": 96 * 364 + 256 * 2401 + 384 * 2305 + 384 * 3457 + 256 * 3457,
    "overfeat5": 96 * 148 + 256 * 2401 + 512 * 2305 + 2 * 512 * 4609,
    "overfeat7": 96 * 148 + 256 * 2401 + 512 * 2305 + 4 * 512 * 4609,
}


def header_of(name):
    return (FOLDER / f"{name}.config").read_text().split("\n\n")[0]


def test_every_row_has_its_config_and_no_other_is_there():
    assert {path.stem for path in FOLDER.glob("spp_*_imagenet.config")} == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_header_has_the_papers_errors(name):
    result = " ".join(re.sub(r"^# ?", "", line) for line in header_of(name).splitlines())
    top_1, top_5 = RESULTS[name]
    assert f"Result: {top_1:.2f} % top-1 and {top_5:.2f} % top-5 error of ten views" in result
    if name in TABLE_3:
        one, full = TABLE_3[name]
        assert f"{one:.2f} % top-1 of one crop and {full:.2f} % of the full image" in result


@pytest.mark.parametrize("name", RESULTS)
def test_numbers_of_the_paper(name):
    config = load_pipeline(FOLDER / f"{name}.config").message
    model, network = config.model.spp_classifier, config.model.spp_classifier.network
    bins = [] if "no_spp" in name else [4, 3, 2, 1] if "30_bins" in name else [6, 3, 2, 1]
    assert list(network.pyramid_bins) == bins
    assert sorted(model.train_size) == ([180, 224] if "multi_size" in name or "random_size" in name else [])
    assert list(model.train_size) != [180, 224] or model.random_train_size  # the first epoch is at 224
    assert (model.shorter_side, model.crop_size, network.fc_depth, network.dropout) == (256, 224, 4096, 0.5)
    epochs = config.train_config.num_steps * config.train_config.batch_size / 1_281_167
    assert round(epochs) == (70 if "zf5" in name else 90)  # section 3.1.1
    schedule = config.train_config.optimizer.momentum_optimizer.learning_rate.plateau_learning_rate
    numbers = (schedule.initial_learning_rate, schedule.factor, schedule.min_learning_rate)
    assert [f"{number:g}" for number in numbers] == ["0.01", "0.1", "0.0001"]  # section 3.1: divided by 10 twice
    steps = [step.WhichOneof("preprocessing_step") for step in config.train_config.data_augmentation_options]
    assert steps == ["random_horizontal_flip", "random_pca_color"]


@pytest.mark.parametrize("name", RESULTS)
def test_parameters(name):
    config = load_pipeline(FOLDER / f"{name}.config").message
    detector = symbolic(lambda: build_detector(config.model))
    network = name.split("_")[1]
    channels = 512 if "overfeat" in network else 256
    num_bins = 36 if "no_spp" in name else 30 if "30_bins" in name else 50
    connected = 4096 * (num_bins * channels + 1) + 4096 * 4097 + 1000 * 4097
    assert sum(math.prod(weight.shape) for weight in detector.weights) == CONVOLUTIONS[network] + connected
    size = 224 if "no_spp" in name else None
    assert detector.input_shape_px == (size, size)


def test_the_small_classifier_trains_a_step_at_both_sizes():
    model = load_pipeline(FOLDER / "shapes_spp_classifier_zf5.config").message.model
    detector = build_detector(model)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 120, 120, 3)).astype(np.float32)
    truth = Groundtruth(None, tf.constant([[0], [4]]), tf.ones([2, 1]), None, None, None, None)
    assert list(model.spp_classifier.train_size) == [120, 112]
    for side in model.spp_classifier.train_size:
        with tf.GradientTape() as tape:
            images = detector.preprocess(tf.image.resize(pixels, (side, side)))
            term = detector.loss_terms(detector.forward(images, training=True), truth)["classification"]
        gradients = tape.gradient(term.total, detector.trainable_variables)
        assert 0 < float(term.total) < math.inf
        assert all(np.all(np.isfinite(gradient)) and np.any(gradient) for gradient in gradients)
