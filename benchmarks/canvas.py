"""Measures that the padding of a batch does not change the accuracy of detectors with variable input size.

    python benchmarks/canvas.py --output_dir runs/shapes [--only shapes_ssd]

Trains configs of benchmarks/shapes_accuracy.py, unless the folder has their trained models. Then the detector is built
for images of any size and measured on the held-out images, each on canvases of several sizes.

Reading the table: each cell is a mAP. In "alone" an image is padded at the bottom and right, as in a batch whose
largest image has the canvas's size. The detector crops the padding, and an evaluation passes images of different sizes
one by one. So all values of the row should be equal; the target for their spread is 0.5. In "in a batch" the detector
gets an empty image of the canvas's size together with each image, as in a training batch. Both are padded to whole
cells of the larger one, so convolutions read this padding instead of their usual zeros. A detector that was trained
without padding loses accuracy this way; there is no limit for that loss.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import shapes_accuracy as shapes
import tensorflow as tf
from absl import app, logging

from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.checkpoints import restore_for_inference
from detzoo.config.load import load_pipeline
from detzoo.tasks.evaluate import make_evaluator

CANVASES_PX = (0, 2, 4, 16)  # more than the image: 128, 130, 132 and 144 pixels
WANTED_SPREAD = 0.5  # points of mAP
NAMES = ("shapes_faster_rcnn_mobilenet_v1_fpn", "shapes_mask_rcnn_mobilenet_v1_fpn", "shapes_ssd_mobilenet_v1")


class OnCanvas:
    """A detector that adds padding to its images.

    Args:
        detector: Detector with variable input size.
        more_px: Pixels of padding at the bottom and right.
        in_batch: Whether to add an empty image of the canvas's size to the batch.
        resizer: Resizer of the detector, which defines the colour of the padding.
    """

    def __init__(self, detector: Any, more_px: int, in_batch: bool, resizer: Any) -> None:
        self._detector, self._more_px, self._in_batch, self._resizer = detector, more_px, in_batch, resizer

    def preprocess(self, images: Any) -> Any:
        """Pads with the detector's colour of padding, and adds the empty image."""
        outside = self._resizer.pad_value
        canvas = tf.pad(images - outside, [[0, 0], [0, self._more_px], [0, self._more_px], [0, 0]]) + outside
        canvas = tf.concat([canvas, tf.zeros_like(canvas) + outside], axis=0) if self._in_batch else canvas
        return self._detector.preprocess(canvas)

    def forward(self, inputs: Any, true_shapes: Any, proposals: Any = None) -> Any:
        """Returns predictions, true shapes and the padded shape."""
        del proposals
        shape = tf.shape(inputs)[1:3]
        if self._in_batch:
            true_shapes = tf.concat([true_shapes, tf.tile(shape[tf.newaxis], [tf.shape(true_shapes)[0], 1])], axis=0)
        return self._detector.forward(inputs, true_shapes=true_shapes), true_shapes, shape

    def postprocess(self, predictions: Any, true_shapes: Any, padded_shape: Any) -> Any:
        """Returns the detections of all images but the empty one."""
        del padded_shape
        found, all_shapes, shape = predictions
        detections = self._detector.postprocess(found, all_shapes, tuple(tf.unstack(shape)))
        return tf.nest.map_structure(lambda x: x[: tf.shape(true_shapes)[0]], detections)


def main(argv: list[str]) -> None:
    """Prints one table. Exits with 1 if a spread exceeds its target."""
    del argv
    logging.set_verbosity(logging.ERROR)
    if not shapes.OUTPUT_DIR.value:
        sys.exit("give --output_dir, the folder of benchmarks/shapes_accuracy.py")
    out = pathlib.Path(shapes.OUTPUT_DIR.value)
    shapes.draw(out / "data" / "train", shapes.NUM_IMAGES.value, seed=1)
    shapes.draw(out / "data" / "heldout", shapes.HELDOUT_IMAGES, seed=2)
    lines, is_reached = [], True
    for name in (name for name in NAMES if shapes.ONLY.value in name):
        shapes.train_and_evaluate(out, name)
        for in_batch in (False, True):
            found = measure(out / name / "model", in_batch)
            spread = max(found) - min(found)
            is_reached = is_reached and (in_batch or spread <= WANTED_SPREAD)
            row = f"{name:38} {'in a batch' if in_batch else 'alone':10}"
            lines.append(f"{row} {' '.join(f'{value:6.2f}' for value in found)}  {spread:6.2f}")
    heading = " ".join(f"{f'+{more}':>6}" for more in CANVASES_PX)
    print(f"\n{'config':38} {'image':10}", heading, f" spread (target: at most {WANTED_SPREAD})")
    print("\n".join(lines))
    sys.exit(0 if is_reached else 1)


def measure(model_dir: pathlib.Path, in_batch: bool) -> list[float]:
    """Returns the mAP in points for each canvas."""
    message = load_pipeline(str(model_dir / "pipeline.config")).message
    resizer = getattr(message.model, message.model.WhichOneof("model")).image_resizer
    side = resizer.fixed_shape_resizer.height
    resizer.keep_aspect_ratio_resizer.min_dimension = resizer.keep_aspect_ratio_resizer.max_dimension = side
    message.eval_config.batch_size = 1
    evaluator = make_evaluator(message)
    detector = build_detector(message.model)
    restore_for_inference(detector, str(model_dir))
    return [
        100 * evaluator(OnCanvas(detector, more, in_batch, build_model_resizer(message.model)))["mAP"]
        for more in CANVASES_PX
    ]


if __name__ == "__main__":
    app.run(main)
