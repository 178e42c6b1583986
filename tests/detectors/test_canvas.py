"""Detectors of free size: the padding that an image comes with changes neither its anchors nor its detections."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.random_weights import randomize
from detzoo.contracts import Batch, Groundtruth
from detzoo.evaluate.runner import Evaluator
from detzoo.ops.anchors import MultiscaleAnchors

FREE = "image_resizer { identity_resizer {} }"
CANVASES = (128, 130, 132, 144)
IMAGE = np.random.default_rng(0).uniform(0, 255, (128, 120, 3)).astype(np.float32)
ONE_MAP = """faster_rcnn { first_stage_anchor_generator { multiscale_anchor_generator {
  min_level: 4 max_level: 4
  anchor_scale: 2 aspect_ratios: 1
  scales_per_octave: 1 normalize_coordinates: false
} } }"""


def build(name, load_module):
    """A detector for images of any size; its name says its family and kind."""
    family, _, kind = name.partition(" ")
    if family == "two-stage":
        more = ("plain", ONE_MAP) if kind == "one_map" else (kind,)
        detector = load_module("small_two_stage.py").build(*more, f"faster_rcnn {{ {FREE} }}")
    elif family == "masks":
        detector = load_module("small_mask_proposals.py").build(f"segmentation_proposals {{ {FREE} }}")
    else:
        one_stage = load_module("small_one_stage.py")
        detector = one_stage.detector(*([one_stage.FPN_LITE] if family == "retinanet" else []), f"ssd {{ {FREE} }}")
    return detector


def on_canvas(image, size):
    """The image in the top left corner of a black square, as a batch of one."""
    canvas = np.zeros((1, size, size, 3), np.float32)
    canvas[0, : image.shape[0], : image.shape[1]] = image
    return tf.constant(canvas)


def detect(detector, small, images, shapes):
    """Predictions and detections of images of the given true shapes."""
    options = {"proposals": small.given_proposals()} if getattr(detector, "wants_proposals", False) else {}
    if options:  # fractions of the image -> of the padded input; one image
        scale = np.tile(np.array(shapes[0]) / np.array(images.shape[1:3]), 2).astype(np.float32)
        options["proposals"] = options["proposals"]._replace(boxes_norm=options["proposals"].boxes_norm[:1] * scale)
        options["proposals"] = options["proposals"]._replace(num_valid=tf.constant([3]), scores=tf.zeros([1, 4]))
    shapes = tf.constant(shapes)
    predictions = detector.forward(detector.preprocess(images), true_shapes=shapes, **options)
    return predictions, detector.postprocess(predictions, shapes, tuple(images.shape[1:3]))


@pytest.mark.parametrize(
    "name",
    [
        "retinanet",
        "ssd",
        "masks",
        "two-stage pyramid_masks",
        "two-stage rfcn",
        "two-stage one_map",
    ],
)
def test_detections_of_an_image_are_the_same_on_every_canvas(name, load_module, small):
    detector = build(name, load_module)
    randomize(detector, 0)  # so that scores differ
    _, expected = detect(detector, small, on_canvas(IMAGE, 128), [[128, 120]])
    assert expected.num_valid.numpy()[0] > 0
    for size in CANVASES[1:]:
        _, found = detect(detector, small, on_canvas(IMAGE, size), [[128, 120]])
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_array_equal(found.num_valid, expected.num_valid)
        # The network sees the same pixels. Only the frame of the boxes differs, and that by rounding.
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        np.testing.assert_allclose(found.boxes_norm, expected.boxes_norm, atol=1e-5)
        if not isinstance(found.masks, tuple):
            np.testing.assert_allclose(found.masks, expected.masks, atol=1e-5)


def test_given_regions_are_classified_the_same_on_every_canvas(load_module, small):
    detector = small.build("from_reader", small.PYRAMID, f"faster_rcnn {{ proposals_from_reader: true {FREE} }}")
    randomize(detector, 0)
    expected, _ = detect(detector, small, on_canvas(IMAGE, 128), [[128, 120]])
    for size in CANVASES:
        found, _ = detect(detector, small, on_canvas(IMAGE, size), [[128, 120]])
        np.testing.assert_allclose(found.class_logits[:, :3], expected.class_logits[:, :3], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "training"), [("retinanet", True), ("two-stage pyramid", True), ("two-stage one_map", False)]
)
def test_anchors_of_an_image_are_the_same_next_to_a_larger_one(name, training, load_module, small):
    # A batch is padded to its largest image. The anchors of the first cells keep their positions in pixels.
    detector = build(name, load_module)
    first_rows = {}
    for size in CANVASES:
        inputs = detector.preprocess(tf.zeros([2, size, size, 3]))
        predictions = detector.forward(inputs, training=training, true_shapes=tf.constant([[128, 120], [size, size]]))
        anchors = np.asarray(getattr(predictions, "first_stage", predictions).anchors_norm) * size
        first_rows[size] = np.stack([anchors[0], anchors[1]])
    for size in CANVASES:
        np.testing.assert_allclose(first_rows[size], first_rows[128], atol=1e-3)


def test_an_evaluation_gives_an_image_the_same_detections_in_every_batch(load_module):
    detector = build("retinanet", load_module)
    randomize(detector, 0)
    shapes = tf.constant([[128, 120], [144, 130], [128, 120]])
    images = np.zeros((3, 144, 130, 3), np.float32)
    images[0, :128, :120], images[1], images[2, :128, :120] = IMAGE, 200.0, IMAGE[::-1]
    off = tf.zeros([3, 1], tf.bool)
    nothing = Groundtruth(
        tf.zeros([3, 1, 4]),
        tf.fill([3, 1], -1),
        tf.zeros([3, 1]),
        off,
        off,
        tf.zeros([3, 1]),
        tf.zeros([3, 1, 0, 0], tf.uint8),
    )
    whole = Batch(tf.constant(images), shapes, shapes, tf.constant(["1", "2", "3"]), tf.range(3), nothing)
    records = tf.data.Dataset.from_tensor_slices(whole)
    one_by_one, together = (Evaluator(records.batch(n), {1: "a"}, show_progress=False).detect(detector) for n in (1, 3))
    assert [len(image.boxes_px) > 0 for image in together] == [True] * 3
    for alone, other in zip(one_by_one, together, strict=True):
        np.testing.assert_allclose(other.boxes_px, alone.boxes_px, atol=1e-3)
        np.testing.assert_allclose(other.scores, alone.scores, atol=1e-6)


def test_anchors_lie_half_a_stride_inside_at_every_size(load_module):
    # Strides 8, 16 and 32 of the levels 3 to 5: 70 x 65 pixels pad to 96 x 96, so 12, 6 and 3 cells along each side.
    detector = build("retinanet", load_module)
    predictions = detector.forward(detector.preprocess(tf.zeros([1, 70, 65, 3])))
    anchors = np.asarray(predictions.anchors_norm) * [70, 65, 70, 65]
    centres = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    expected = [
        [(row + 0.5) * stride, (column + 0.5) * stride]
        for stride, cells in ((8, 12), (16, 6), (32, 3))
        for row in range(cells)
        for column in range(cells)
        for _ in range(2)
    ]
    np.testing.assert_allclose(centres, expected, atol=1e-3)


def test_padding_has_the_colour_of_the_resizer(load_module):
    # Black before the normalisation to -1 .. 1 is -1; one-stage detectors pad with 0 after it.
    for name, colour in (("two-stage pyramid", -1.0), ("retinanet", 0.0)):
        detector = build(name, load_module)
        inputs = detector.preprocess(tf.constant(IMAGE[np.newaxis]))
        canvas = detector.whole_cells(inputs, None).numpy()
        side = 128  # a multiple of 64 and of 32
        assert canvas.shape == (1, side, side, 3)
        np.testing.assert_array_equal(canvas[:, :, :120], inputs)
        np.testing.assert_array_equal(canvas[:, :, 120:], np.full((1, side, 8, 3), colour, np.float32))


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        ("retinanet", 32),  # level 5
        ("two-stage pyramid", 64),  # level 6
        ("two-stage one_map", 16),
        ("two-stage plain", 1),  # anchors in pixels on one map: what the Object Detection API sees
        ("two-stage rfcn", 1),
        ("masks", 32),
    ],
)
def test_multiples_are_the_coarsest_strides(name, multiple, load_module):
    assert build(name, load_module).cell_multiple_px == multiple


def test_inputs_of_fixed_size_keep_the_rule_of_the_object_detection_api(small):
    # 70 x 96 pixels: 70 is no multiple of 8, so the rows of level 3 start at 0; 96 is one, so its columns start at 4.
    detector = small.build("pyramid", "faster_rcnn { image_resizer { fixed_shape_resizer { height: 70 width: 96 } } }")
    first = detector.forward(detector.preprocess(tf.zeros([1, 70, 96, 3])), training=True).first_stage
    box = first.anchors_norm.numpy()[0] * [70, 96, 70, 96]
    np.testing.assert_allclose([box[0] + box[2], box[1] + box[3]], [0.0, 8.0], atol=1e-4)
    expected = MultiscaleAnchors(3, 6, 3.0, (1.0, 2.0), 1)([(9, 12), (5, 6), (3, 3), (2, 2)], (70, 96))
    np.testing.assert_allclose(first.anchors_norm, expected, atol=1e-6)
