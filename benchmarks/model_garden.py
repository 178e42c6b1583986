"""Model Garden's RetinaNet (tf-models-official), with which latency.py and train_step.py compare detzoo's.

It runs in a separate process, because its Keras 2 and detzoo's Keras 3 must not be loaded together:

    python benchmarks/model_garden.py serve FOLDER             writes a SavedModel, RetinaNet ResNet-50 640, 91 classes
    python benchmarks/model_garden.py train DTYPE BATCH STEPS  prints a JSON object with the seconds of each step
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

SIZE_PX = 640
NUM_CLASSES = 91  # 90 and the background
EXPERIMENT = "retinanet_resnetfpn_coco"
OBJECTS_PER_IMAGE = 7  # COCO's mean


def experiment() -> Any:
    """Returns the published experiment at the size of the comparison."""
    from official.core import exp_factory
    from official.vision import configs  # noqa: F401  (registers the experiments)

    parameters = exp_factory.get_exp_config(EXPERIMENT)
    parameters.task.model.num_classes = NUM_CLASSES
    parameters.task.model.input_size = [SIZE_PX, SIZE_PX, 3]
    parameters.task.model.norm_activation.use_sync_bn = False
    parameters.task.init_checkpoint = None
    return parameters


def serve(folder: str) -> None:
    """Writes the SavedModel with random weights, including resizing and non-maximum suppression."""
    from official.vision.serving.detection import DetectionModule

    module = DetectionModule(
        params=experiment(), batch_size=1, input_image_size=[SIZE_PX, SIZE_PX], input_type="image_tensor"
    )
    signatures = module.get_inference_signatures({"image_tensor": "serving_default"})
    tf.saved_model.save(module, folder, signatures=signatures)


def train(dtype: str, batch_size: int, num_steps: int) -> list[float]:
    """Returns the seconds of each training step on one batch in memory, without the first two (tracing)."""
    import tf_keras
    from official.vision.tasks.retinanet import RetinaNetTask

    parameters = experiment()
    if dtype == "bfloat16":
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    task = RetinaNetTask(parameters.task)
    model = task.build_model()
    optimizer = tf_keras.optimizers.SGD(0.001, momentum=0.9)
    images = tf.random.uniform([batch_size, SIZE_PX, SIZE_PX, 3], seed=0)
    labels = targets(parameters.task, batch_size)
    step = tf.function(lambda: task.train_step((images, labels), model, optimizer)["loss"])
    seconds = []
    for _ in range(num_steps + 2):
        started = time.perf_counter()
        step().numpy()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def targets(task: Any, batch_size: int) -> dict[str, Any]:
    """Returns labels of random objects in the format of Model Garden's parser."""
    from official.vision.ops import anchor

    model, parser = task.model, task.train_data.parser
    boxes_of = anchor.build_anchor_generator(
        min_level=model.min_level,
        max_level=model.max_level,
        num_scales=model.anchor.num_scales,
        aspect_ratios=model.anchor.aspect_ratios,
        anchor_size=model.anchor.anchor_size,
    )
    anchors = boxes_of(image_size=(SIZE_PX, SIZE_PX))
    corners = np.sort(np.random.default_rng(0).uniform(0, SIZE_PX, (OBJECTS_PER_IMAGE, 2, 2)), axis=1)
    boxes = tf.constant(corners.reshape(OBJECTS_PER_IMAGE, 4), tf.float32)
    classes = tf.range(1, OBJECTS_PER_IMAGE + 1)[:, tf.newaxis]
    labeler = anchor.AnchorLabeler(parser.match_threshold, parser.unmatched_threshold)
    class_targets, box_targets, _, class_weights, box_weights = labeler.label_anchors(anchors, boxes, classes)
    one = {
        "cls_targets": class_targets,
        "box_targets": box_targets,
        "anchor_boxes": anchors,
        "cls_weights": class_weights,
        "box_weights": box_weights,
    }
    return tf.nest.map_structure(lambda value: tf.repeat(value[tf.newaxis], batch_size, axis=0), one)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(train(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
