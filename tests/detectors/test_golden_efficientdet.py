"""EfficientDet-D0 against the Object Detection API's own variables, and its outputs for the same weights and image."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline
from detzoo.contracts import Predictions
from detzoo.features.network import symbolic

pytestmark = pytest.mark.shared

NAME = "efficientdet_d0"
FINEST, COARSEST, COARSEST_OF_BACKBONE, NUM_ITERATIONS = 3, 7, 5, 3
BIFPN = "feature_extractor/_bifpn_stage"
CONV_AND_NORM = ("conv", "batch_norm")
TOWER_KINDS = 3  # convolution, normalisation, activation


def bifpn_nodes(finest, coarsest, coarsest_of_backbone, num_iterations):
    """detzoo's names of the nodes in the original's order, and the levels that each reads."""
    nodes = [(f"coarse_{level}", [level - 1]) for level in range(coarsest_of_backbone + 1, coarsest + 1)]
    for iteration in range(1, num_iterations + 1):
        nodes += [(f"{iteration}_down_{level}", [level, level + 1]) for level in range(coarsest - 1, finest - 1, -1)]
        nodes += [(f"{iteration}_up_{level}", [level, level, level - 1]) for level in range(finest + 1, coarsest)]
        nodes.append((f"{iteration}_up_{coarsest}", [coarsest, coarsest - 1]))
    return nodes


NODES = bifpn_nodes(FINEST, COARSEST, COARSEST_OF_BACKBONE, NUM_ITERATIONS)


def lateral(node, position, layer):
    """The 1 x 1 of a node for the map of the backbone at ``position`` of its inputs, or its normalisation."""
    name, levels = NODES[node]
    return f"neck/bifpn_{name}_lateral_{levels[position]}_{CONV_AND_NORM[layer]}"


# Where a tensor of the published layout lies in detzoo: pattern -> path, built from the numbers in the name.
RULES = [
    (rf"{BIFPN}/node_input_blocks/(\d+)/(\d)/1/(\d)", lateral),
    (rf"{BIFPN}/node_combine_op/(\d+)", lambda node: f"neck/bifpn_{NODES[node][0]}_sum"),
    # Layer 0 of a block is the activation.
    (rf"{BIFPN}/node_post_combine_block/(\d+)/1", lambda node: f"neck/bifpn_{NODES[node][0]}_separable"),
    (rf"{BIFPN}/node_post_combine_block/(\d+)/2", lambda node: f"neck/bifpn_{NODES[node][0]}_batch_norm"),
    (r"box_predictor/_head_scope_conv_layers/BoxPredictionTower/(\d)", lambda i: f"head/box_tower_{i}"),
    (r"box_predictor/_head_scope_conv_layers/ClassPredictionTower/(\d)", lambda i: f"head/class_tower_{i}"),
    (
        r"box_predictor/_base_tower_layers_for_heads/box_encodings/(\d)/(\d+)",
        lambda i, j: f"head/box_tower_{j // TOWER_KINDS}_level_{FINEST + i}_batch_norm",
    ),
    (
        r"box_predictor/_base_tower_layers_for_heads/class_predictions_with_background/(\d)/(\d+)",
        lambda i, j: f"head/class_tower_{j // TOWER_KINDS}_level_{FINEST + i}_batch_norm",
    ),
    (r"box_predictor/_box_prediction_head/_box_encoder_layers/0", lambda: "head/box_predictor"),
    (
        r"box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0",
        lambda: "head/class_predictor",
    ),
]
# The end of the classification network, from its last 1 x 1 to its logits, is stored but not computed in detection.
CLASSIFIER = re.compile(r"model/_feature_extractor/classification_backbone/layer_with_weights-\d+/.*")


def path_of(name, backbone_layers, suffix):
    """detzoo's path of a tensor of the published layout."""
    owner, kind = name.removesuffix(suffix).removeprefix("model/_").rsplit("/", 1)
    backbone = re.fullmatch(r"feature_extractor/_efficientnet/layer_with_weights-(\d+)", owner)
    if backbone:  # Keras 3 calls the kernel of a depthwise convolution "kernel"
        return f"{backbone_layers[int(backbone[1])]}/{kind.removeprefix('depthwise_')}"
    for pattern, path in RULES:
        match = re.fullmatch(pattern, owner)
        if match:
            return f"{path(*map(int, match.groups()))}/{kind}"
    raise AssertionError(f"no rule for {name}")


@pytest.fixture
def folder(shared):
    return shared / "golden" / NAME


def test_every_published_variable_of_the_detector_has_its_place(folder, golden_weights):
    detector = symbolic(lambda: build_detector(load_pipeline(folder / "pipeline.config").message.model))
    layers = golden_weights.owners_in(detector.network, "backbone")
    published = golden_weights.published_shapes(folder)
    classifier = {name for name in published if CLASSIFIER.fullmatch(name)}
    assert sum(np.prod(published[name]) for name in classifier) == 320 * 1280 + 4 * 1280 + (1280 + 1) * 1000
    ours = {path_of(name, layers, golden_weights.SUFFIX): published[name] for name in published.keys() - classifier}
    assert ours == {weight.path: tuple(weight.shape) for weight in detector.weights}
    assert len(ours) == len(published) - len(classifier)


@functools.cache
def outputs_of(golden, folder):
    """detzoo's detector with its inputs, predictions and losses, and the published outputs."""
    model = load_pipeline(folder / "pipeline.config").message.model
    detector = build_detector(model)
    layers = golden.owners_in(detector.network, "backbone")
    golden.set_seeded_weights(
        detector, folder, lambda name: path_of(name, layers, golden.SUFFIX), skipped=CLASSIFIER.fullmatch
    )
    padded, _ = golden.image_and_shape(folder, model)
    inputs = detector.preprocess(padded)
    predictions = detector.predict(inputs)
    losses = {
        name: float(term.total / tf.maximum(term.normalizer, 1.0))
        for name, term in detector.loss_terms(predictions, golden.golden_groundtruth()).items()
    }
    return detector, inputs, predictions, losses, dict(np.load(folder / "outputs.npz"))


@pytest.fixture
def outputs(folder, golden_weights):
    if not (folder / "outputs.npz").is_file():
        pytest.skip("there are no outputs of EfficientDet-D0 in the golden folder")
    return outputs_of(golden_weights, folder)


def test_padding_is_the_zero_of_the_normalised_image(folder, golden_weights):
    """The original normalises, then pads: 427 x 640 becomes 342 x 512, and rows 342 to 511 are 0."""
    model = load_pipeline(folder / "pipeline.config").message.model
    padded, true_shapes = golden_weights.image_and_shape(folder, model)
    np.testing.assert_array_equal(true_shapes, [[342, 512]])
    inputs = symbolic(lambda: build_detector(model)).preprocess(padded).numpy()
    assert inputs.shape == (1, 512, 512, 3)
    assert np.abs(inputs[:, :342]).max() > 1.0
    np.testing.assert_allclose(inputs[:, 342:], 0.0, atol=1e-6)


def test_normalised_image(outputs):
    _, inputs, *_, golden = outputs
    np.testing.assert_allclose([np.mean(inputs), np.std(inputs)], golden["preprocessed_mean_std"], atol=1e-3)


def test_raw_predictions(outputs):
    _, _, predictions, _, golden = outputs
    np.testing.assert_allclose(predictions.anchors_norm, golden["final_anchors"][0], atol=1e-6)
    np.testing.assert_allclose(predictions.box_deltas, golden["box_encodings"], atol=1e-3)
    name = "class_predictions_with_background"
    step = 1 if name in golden else 24
    logits = golden[name if name in golden else f"{name}__every24"]
    np.testing.assert_allclose(predictions.class_logits[:, ::step], logits, atol=1e-3)


def test_losses(outputs):
    *_, losses, golden = outputs
    assert losses["localization"] == pytest.approx(float(golden["loss_Loss/localization_loss"]), rel=1e-3)
    assert losses["classification"] == pytest.approx(float(golden["loss_Loss/classification_loss"]), rel=1e-3)


def test_detections_of_the_published_predictions(outputs, golden_weights):
    """Of theirs, because the scores of these weights are so close that rounding decides which boxes are first."""
    detector, _, _, _, golden = outputs
    predictions = Predictions(
        golden["box_encodings"], golden["class_predictions_with_background"], golden["final_anchors"][0]
    )
    detections = detector.postprocess(predictions, tf.constant([[342, 512]]), detector.input_shape_px)
    np.testing.assert_allclose(detections.raw_boxes_norm, golden["post_raw_detection_boxes"], atol=1e-5)
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-6)
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0], tolerance=1e-6)
    np.testing.assert_array_equal(detections.classes[0][clear], golden["post_detection_classes"][0][clear])
    np.testing.assert_allclose(detections.boxes_norm[0][clear], golden["post_detection_boxes"][0][clear], atol=1e-5)
