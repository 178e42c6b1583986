"""CenterNet: a small one trained and exported, and the published ones against the original's layout and outputs."""

from __future__ import annotations

import csv
import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from detzoo.benchmark.random_weights import randomize
from detzoo.builders.detector import build_detector, with_num_classes
from detzoo.builders.resize import build_model_resizer
from detzoo.checkpoints.object_detection_api import match_detector
from detzoo.checkpoints.object_graph import ObjectGraph
from detzoo.config import pb
from detzoo.config.load import load_pipeline
from detzoo.contracts import Groundtruth
from detzoo.errors import ConfigError
from detzoo.export.exporter import Export
from detzoo.export.tflite import TfliteOptions, export_tflite
from detzoo.features.network import symbolic
from detzoo.folders import KEYPOINT_LABEL_MAP_FILE
from detzoo.serving.served import ServingModule
from detzoo.serving.tflite_detector import TfliteDetector
from detzoo.tasks.export import with_keypoint_label_map

SMALL = """
center_net {
  num_classes: 3
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor { type: 'hourglass_10' }
  object_detection_task {
    localization_loss { l1_localization_loss {} }
    scale_head_params { num_filters: 16 kernel_sizes: 3 }
    offset_head_params { num_filters: 16 kernel_sizes: 3 }
  }
  object_center_params {
    max_box_predictions: 10
    classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2 beta: 4 } }
    center_head_params { num_filters: 16 kernel_sizes: 3 }
  }
}
"""
WITH_OUTPUTS = "centernet_mobilenet_v2_fpn_512x512"
KEYPOINTS = "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8"
NAMES = [
    WITH_OUTPUTS,
    "centernet_mobilenet_v2_fpn_separable_512x512",
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8",  # ResNet v2 in spite of its name
    "centernet_resnet101_v1_fpn_512x512_type_resnet_v1_101_fpn",
    "centernet_hourglass104_512x512_coco17_tpu-8",
    "centernet_hourglass104_512x512_kpts_coco17_tpu-32",
    KEYPOINTS,
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8",
    "center_net_deepmac_512x512_voc_only_tpu-32",
]


def message(*changes):
    model = text_format.Parse(SMALL, pb.DetectionModel())
    for change in changes:
        text_format.Merge(change, model)
    return model


@pytest.fixture(scope="module")
def detector():
    return build_detector(message())


def truth():
    return Groundtruth(
        boxes_norm=tf.constant([[[0.1, 0.2, 0.9, 0.7], [0.4, 0.4, 0.6, 0.6]], [[0.0, 0.0, 0.5, 0.5], [0.0] * 4]]),
        classes=tf.constant([[0, 2], [1, -1]]),
        weights=tf.constant([[1.0, 1.0], [1.0, 0.0]]),
        is_crowd=tf.zeros([2, 2], tf.bool),
        is_difficult=tf.zeros([2, 2], tf.bool),
        area_px=tf.zeros([2, 2]),
        masks=tf.zeros([2, 2, 0, 0], tf.uint8),
    )


def test_the_initial_scores_follow_the_bias(detector):
    maps = detector.forward(tf.zeros([1, 64, 96, 3])).maps
    assert {name: x[-1].shape for name, x in maps.items()} == {
        "object_center": (1, 16, 24, 3),
        "box/scale": (1, 16, 24, 2),
        "box/offset": (1, 16, 24, 2),
    }
    np.testing.assert_allclose(np.mean(tf.sigmoid(maps["object_center"][-1])), 0.1, atol=0.02)


def test_every_weight_trains_and_the_loss_falls():
    detector = build_detector(message("center_net { image_resizer { fixed_shape_resizer { height: 32 width: 48 } } }"))
    images = tf.constant(np.random.default_rng(0).uniform(0, 1, (2, 32, 48, 3)), tf.float32)
    optimizer = keras.optimizers.Adam(3e-3)
    weights = detector.trainable_variables

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            predictions = detector.forward(detector.preprocess(images), training=True)
            terms = detector.loss_terms(predictions, truth())
            loss = tf.add_n([term.total / term.normalizer for term in terms.values()])
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply(gradients, weights)
        return loss

    optimizer.build(weights)
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def test_an_export_has_no_outputs_of_anchors(detector):
    serving = ServingModule(detector, build_model_resizer(message()))
    outputs = serving(tf.constant(np.random.default_rng(0).integers(0, 255, (2, 50, 80, 3)), tf.uint8))
    assert {name: value.shape for name, value in outputs.items()} == {
        "detection_boxes": (2, 10, 4),
        "detection_scores": (2, 10),
        "detection_classes": (2, 10),
        "num_detections": (2,),
        "detection_multiclass_scores": (2, 10, 3),
    }
    assert np.all(np.diff(outputs["detection_scores"]) <= 0.0)
    assert np.all((outputs["detection_boxes"] >= 0.0) & (outputs["detection_boxes"] <= 1.0))


def test_an_input_that_the_stride_does_not_divide_is_padded():
    model = message("center_net { image_resizer { fixed_shape_resizer { height: 50 width: 70 } } }")
    built = build_detector(model)
    predictions = built.forward(built.preprocess(tf.zeros([1, 50, 70, 3])))
    assert predictions.maps["object_center"][-1].shape == (1, 14, 18, 3)  # of 56 x 72 pixels
    assert built.postprocess(predictions, tf.constant([[50, 70]]), (50, 70)).boxes_norm.shape == (1, 10, 4)


def test_other_classes_keep_all_but_the_heatmap(detector):
    changed = with_num_classes(detector, 5)
    ours = {weight.path: weight for weight in detector.weights}
    other = {weight.path for weight in changed.weights if not np.array_equal(weight, ours[weight.path])}
    assert other == {"head/object_center.0.predictor/kernel", "head/object_center.0.predictor/bias"}


@pytest.mark.parametrize("size", ["10", "20", "32", "52"])
def test_hourglasses_return_to_stride_four(size):
    built = symbolic(
        lambda: build_detector(message(f"center_net {{ feature_extractor {{ type: 'hourglass_{size}' }} }}"))
    )
    stride = {"10": 8, "20": 16, "32": 32, "52": 128}[size]
    assert built.cell_multiple_px == stride
    [heatmap] = built.network.output["maps"]["object_center"]
    assert heatmap.shape == (None, *(-(-side // stride) * stride // 4 for side in (64, 96)), 3)  # of the padded input


def basic_parameters(blocks):
    """Parameters of the backbone of ResNet-18 or -34, activated before its convolutions, from the paper's table 1."""
    total, channels = 7 * 7 * 3 * 64 + 64, 64
    for number, num_blocks in enumerate(blocks):
        filters = 64 * 2**number
        # First a batch normalisation (4 per channel), a shortcut with biases, and two convolutions, each normalised.
        total += 4 * channels + (channels + 1) * filters + 9 * channels * filters + 9 * filters**2 + 8 * filters
        total += (num_blocks - 1) * (4 * filters + 2 * 9 * filters**2 + 8 * filters)
        channels = filters
    return total


@pytest.mark.parametrize(("depth", "blocks"), [("18", (2, 2, 2, 2)), ("34", (3, 4, 6, 3))])
def test_small_resnets_have_basic_blocks(depth, blocks):
    model = message(f"center_net {{ feature_extractor {{ type: 'resnet_v1_{depth}_fpn' }} }}")
    built = symbolic(lambda: build_detector(model))
    assert built.backbone.count_params() == basic_parameters(blocks)
    [backbone] = [layer for layer in built.network.layers if layer.name == "backbone"]
    shapes = {level: x.shape for level, x in backbone.output.items()}
    assert shapes == {2 + n: (None, 64 // 4 // 2**n, 96 // 4 // 2**n, 64 * 2**n) for n in range(4)}
    # The last block of a stage has the stride, so that its input, not its sum, is what a shortcut samples.
    assert "conv3_block1_0_pool" not in [layer.name for layer in backbone.layers]
    assert f"conv3_block{blocks[1]}_0_pool" in [layer.name for layer in backbone.layers]


@pytest.mark.parametrize("order", ["", "bgr_ordering: true"])
def test_means_and_deviations_are_in_the_order_of_the_channels(order):
    given = np.array([203.0, 102.0, 51.0] if order else [51.0, 102.0, 203.0])
    wanted = (given - [1, 2, 3]) / [1, 2, 4]
    for kind, expected in (
        ("hourglass_10", wanted),
        ("mobilenet_v2", wanted / 127.5 - 1.0),  # the extractor's own comes last
        ("resnet_v1_50_fpn", wanted[::-1] - [103.939, 116.779, 123.68]),
    ):
        change = f"type: '{kind}' channel_means: [1, 2, 3] channel_stds: [1, 2, 4] {order}"
        model = message(f"center_net {{ feature_extractor {{ {change} }} }}")
        built = symbolic(functools.partial(build_detector, model))
        found = built.preprocess(tf.constant([[[[51.0, 102.0, 203.0]]]]))[0, 0, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


POSE = """center_net {
  keypoint_label_map_path: '%s'
  keypoint_estimation_task {
    task_name: 'pose' keypoint_class_name: '%s'
    loss {
      localization_loss { l1_localization_loss {} }
      classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2 beta: 4 } }
    }
    keypoint_label_to_std { key: '%s' value: 0.3 }
  }
}"""


def keypoint_map(tmp_path):
    path = tmp_path / "keypoints.pbtxt"
    path.write_text('item { id: 1 name: "cat" keypoints { id: 0 label: "ear" } keypoints { id: 1 label: "tail" } }')
    return path


@pytest.mark.parametrize(
    ("class_name", "label", "problem"),
    [
        ("dog", "ear", r"keypoint_class_name is 'dog', but .*keypoints.pbtxt has keypoints of 'cat'"),
        ("cat", "nose", r"keypoint_label_to_std names nose, but the keypoints of 'cat' in .* are ear, tail"),
    ],
)
def test_a_keypoint_label_map_that_does_not_fit_is_reported(tmp_path, class_name, label, problem):
    model = message(POSE % (keypoint_map(tmp_path), class_name, label))
    with pytest.raises(ConfigError, match=problem):
        symbolic(lambda: build_detector(model))


def test_an_export_brings_its_keypoint_label_map(tmp_path):
    path = keypoint_map(tmp_path)
    pipeline = pb.TrainEvalPipelineConfig(model=message(POSE % (path, "cat", "ear")))
    text = with_keypoint_label_map(pipeline)
    assert text == path.read_text()
    assert pipeline.model.center_net.keypoint_label_map_path == KEYPOINT_LABEL_MAP_FILE
    assert Export("model {}", keypoint_label_map_text=text).files() == {
        "pipeline.config": "model {}",
        KEYPOINT_LABEL_MAP_FILE: text,
    }
    assert with_keypoint_label_map(pb.TrainEvalPipelineConfig(model=message())) == ""


def stored_shapes(folder):
    with (folder / "variables.csv").open() as file:
        return {row["name"]: math.prod(map(int, row["shape"].split("x"))) for row in csv.DictReader(file)}


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_found_in_the_original_layout(shared, name):
    folder = shared / "golden" / name
    model = load_pipeline(folder / "pipeline.config").message.model
    detector = symbolic(lambda: build_detector(model))
    graph = ObjectGraph((folder / "object_graph.pb").read_bytes())
    match = match_detector(graph, [weight.path for weight in detector.weights])
    sizes = stored_shapes(folder)
    assert match.unused == []
    assert set(match.keys) == {weight.path for weight in detector.weights}
    assert len(set(match.keys.values())) == len(match.keys)
    assert all(math.prod(weight.shape) == sizes[match.keys[weight.path]] for weight in detector.weights)
    assert len(match.keys) + len(match.leftovers) == len(sizes)
    # ResNet v2 ends with a batch normalisation that no map follows; DeepMAC has the state of a random generator.
    unused = 4 if "resnet_v2" in model.center_net.feature_extractor.type else 0
    assert len(match.leftovers) == unused + model.center_net.HasField("deepmac_mask_estimation")


@pytest.fixture(scope="module", params=[WITH_OUTPUTS, pytest.param(KEYPOINTS, marks=pytest.mark.slow)])
def outputs(shared, golden_weights, quick_initializers, request):
    folder = shared / "golden" / request.param
    return folder, *golden_weights.seeded_detector(folder), dict(np.load(folder / "outputs.npz"))


def run(golden_weights, outputs, square):
    folder, model, detector, golden = outputs
    image = tf.io.decode_png(tf.io.read_file(str(folder.parent / "image1.png")))
    prefix = "square_" if square else ""
    padded, true_shape = build_model_resizer(model)(tf.cast(image[:, :427] if square else image, tf.float32))
    inputs, shapes = detector.preprocess(padded[tf.newaxis]), true_shape[tf.newaxis]
    predictions = golden_weights.predictions_of(detector, inputs, true_shapes=shapes)
    return predictions, detector.postprocess(predictions, shapes, (512, 512)), prefix, golden


def compare_maps(predictions, prefix, golden):
    compared = 0
    for head, stacks in predictions.maps.items():
        for stack, values in enumerate(stacks):
            key = f"{prefix}{head.replace('/', '_')}_{stack}"
            if key in golden:
                np.testing.assert_allclose(values, golden[key], atol=1e-3, err_msg=key)
            else:
                steps = tuple(slice(None, None, step) for step in golden[f"{key}__stride"])
                np.testing.assert_allclose(values[steps], golden[f"{key}__sub"], atol=1e-3, err_msg=key)
            compared += 1
    assert compared >= 3


@pytest.mark.shared
@pytest.mark.parametrize("square", [False, True])
def test_published_outputs(golden_weights, outputs, square):
    predictions, found, prefix, golden = run(golden_weights, outputs, square)
    compare_maps(predictions, prefix, golden)
    maps = predictions.maps
    boxes = golden[f"{prefix}post_detection_boxes_strided"][0]
    last_row = float(predictions.true_shapes[0, 0]) / 4
    inside = (boxes[:, 0] + boxes[:, 2]) / 2 < last_row  # the original also detects in the padding
    scores = golden[f"{prefix}post_detection_scores"][0][inside]
    np.testing.assert_allclose(found.scores[0][: len(scores)], scores, atol=1e-4)
    clear = np.flatnonzero(golden_weights.clear_rows(scores))
    assert len(clear) >= 10
    compared = [
        (found.classes, "classes"),
        (found.boxes_norm, "boxes"),
        (found.multiclass_scores, "multiclass_scores"),
        *([(found.keypoints_norm, "keypoints"), (found.keypoint_scores, "keypoint_scores")] if len(maps) > 3 else []),
    ]
    for ours, theirs in compared:
        expected = golden[f"{prefix}post_detection_{theirs}"][0][inside]
        np.testing.assert_allclose(np.asarray(ours)[0][clear], expected[clear], atol=1e-3)


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "factor"), [("loss", 1.0), ("lossunpadded", 342 / 512)])
def test_published_losses(golden_weights, outputs, kind, factor):
    predictions, _, _, golden = run(golden_weights, outputs, square=False)
    truth = golden_weights.golden_groundtruth()
    truth = truth._replace(boxes_norm=truth.boxes_norm * [factor, 1.0, factor, 1.0])
    if "groundtruth_keypoints" in golden:
        points = golden["groundtruth_keypoints"][np.newaxis]
        visible = 2 * np.isfinite(points[..., 0]).astype(np.int32)
        points = tf.constant(points * [factor, 1.0], tf.float32)
        truth = truth._replace(keypoints_norm=points, keypoint_visibility=tf.constant(visible))
    for name, term in outputs[2].loss_terms(predictions, truth).items():
        expected = float(golden[f"{kind}_Loss_{name.replace('/', '_')}"])
        assert float(term.total / term.normalizer) == pytest.approx(expected, rel=1e-4), name


def test_tflite_has_the_original_signature_and_the_same_detections(tmp_path):
    model = message("center_net { image_resizer { fixed_shape_resizer { height: 32 width: 48 } } }")
    small = build_detector(model)
    randomize(small)
    [bias] = [weight for weight in small.weights if weight.path == "head/box-scale.0.predictor/bias"]
    bias.assign([3.0, 4.0])  # cells: boxes with an area
    path, report = export_tflite(small, build_model_resizer(model), tmp_path, TfliteOptions(), Export())
    assert report.max_box_difference < 1e-4
    runner = TfliteDetector(path)
    boxes, classes, scores, count = runner.outputs(np.full((1, 32, 48, 3), 90, np.uint8))
    assert (boxes.shape, classes.shape, scores.shape, count.shape) == ((1, 10, 4), (1, 10), (1, 10), (1,))
    data = tmp_path / "images"
    data.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
    options = TfliteOptions("int8", "image_tensor", str(data))
    path, report = export_tflite(small, build_model_resizer(model), tmp_path, options, Export())
    assert report.is_quantized
    boxes, _, scores, _ = TfliteDetector(path).outputs(np.full((1, 32, 48, 3), 90, np.uint8))
    assert (boxes.shape, scores.shape) == ((1, 10, 4), (1, 10))
