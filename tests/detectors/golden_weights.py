"""The seeded weights of the published layouts, and what the tests that compare with golden outputs share."""

from __future__ import annotations

import importlib.util
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.checkpoints import restore_for_inference
from detzoo.config.load import load_pipeline
from detzoo.contracts import Groundtruth
from detzoo.tasks.export import export


def seeded_checkpoint(folder, scratch):
    """Writes the checkpoint of a golden folder into ``scratch``; gives its prefix."""
    seeded = _module(folder.parent / "seeded_checkpoint.py")
    if (folder / "object_graph.pb").is_file():
        return pathlib.Path(seeded.write_checkpoint(str(folder), f"{scratch}/ckpt-0"))
    values = {**seeded.values_of(str(folder)), "global_step": np.int64(0)}  # of TensorFlow 1
    prefix = pathlib.Path(scratch) / "model.ckpt"
    tensors = [tf.constant(value) for value in values.values()]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=tensors
    )
    return prefix


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_detector(folder):
    """The model block of a golden folder, and its detector, with the seeded checkpoint imported."""
    model = load_pipeline(folder / "pipeline.config").message.model
    detector = build_detector(model)
    with tempfile.TemporaryDirectory() as scratch:
        restore_for_inference(detector, seeded_checkpoint(folder, scratch))
    return model, detector


def exported_outputs(folder, scratch):
    """The outputs of an export of the seeded checkpoint for the golden image, by `detzoo export`'s function."""
    path = export(
        folder / "pipeline.config", seeded_checkpoint(folder, scratch), f"{scratch}/exported", check=False
    ).path
    image = tf.io.decode_png(tf.io.read_file(str(folder.parent / "image1.png")))
    return {name: value.numpy() for name, value in tf.saved_model.load(str(path))(image[tf.newaxis]).items()}


def image_and_shape(folder, model):
    """The resized and padded golden image [1, H, W, 3] and its true shape [1, 2]."""
    image = tf.io.decode_png(tf.io.read_file(str(folder.parent / "image1.png")))
    padded, true_shape = build_model_resizer(model)(tf.cast(image, tf.float32))
    return padded[tf.newaxis], true_shape[tf.newaxis]


def predictions_of(detector, inputs, **options):
    """Predictions from a graph, which frees maps on its way: eager Keras keeps all of them, 1 GB more.

    The graph is not optimized, so that it rounds as eager code does.
    """
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        return tf.function(detector.forward, autograph=False)(inputs, **options)
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def golden_groundtruth():
    """The ground truth of the published losses."""
    return Groundtruth(
        boxes_norm=tf.constant([[[0.05, 0.03, 0.95, 0.32], [0.10, 0.42, 0.94, 0.97], [0.3, 0.3, 0.4, 0.4]]]),
        classes=tf.constant([[0, 1, 5]]),
        weights=tf.ones([1, 3]),
        is_crowd=tf.zeros([1, 3], tf.bool),
        is_difficult=tf.zeros([1, 3], tf.bool),
        area_px=tf.zeros([1, 3]),
        masks=tf.zeros([1, 3, 0, 0], tf.uint8),
    )


def losses_of(detector, predictions):
    """The parts of the loss of predictions for the golden ground truth."""
    terms = detector.loss_terms(predictions, golden_groundtruth())
    return {name: float(term.total / tf.maximum(term.normalizer, 1.0)) for name, term in terms.items()}


def served_differences(golden, found):
    """The largest differences of served scores, and of boxes and masks in rows that cannot change places.

    Of CenterNet, the original's rows with a centre in the padding are left out: detzoo has none.
    """
    rows = np.ones(golden["post_detection_scores"].shape[1], bool)
    if "post_detection_boxes_strided" in golden:
        strided = golden["post_detection_boxes_strided"][0]
        rows = (strided[:, 0] + strided[:, 2]) / 2 < golden["true_image_shapes"][0, 0] / 4
    else:
        np.testing.assert_array_equal(found["num_detections"], golden["post_num_detections"])
    scores = golden["post_detection_scores"][0][rows]
    clear = clear_rows(scores)
    found = {name: values[0][: len(scores)] for name, values in found.items() if values.ndim > 1}
    np.testing.assert_array_equal(
        found["detection_classes"][clear], golden["post_detection_classes"][0][rows][clear] + 1
    )

    def largest(name, *keys):
        values = [golden[key][0][rows] for key in keys if key in golden]
        return max((float(np.abs(found[name] - value)[clear].max(initial=0.0)) for value in values), default=0.0)

    masks = largest("detection_masks", "detection_masks", "post_detection_masks")
    return (
        float(np.abs(found["detection_scores"] - scores).max()),
        largest("detection_boxes", "post_detection_boxes"),
        masks,
    )


def clear_rows(scores, tolerance=1e-4):
    """Rows whose score is farther than ``tolerance`` from both neighbours': others may change places."""
    gaps = np.abs(np.diff(scores, prepend=np.inf, append=-np.inf))
    return np.minimum(gaps[:-1], gaps[1:]) > tolerance
