"""The seeded weights of the published layouts, and what the tests that compare with golden outputs share."""

from __future__ import annotations

import csv
import importlib.util
import pathlib

import numpy as np
import tensorflow as tf

from detzoo.builders.resize import build_model_resizer
from detzoo.contracts import Groundtruth

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def published_shapes(folder):
    """Name of each published variable to its shape."""
    with (folder / "variables.csv").open() as file:
        return {row["name"]: tuple(int(size) for size in row["shape"].split("x")) for row in csv.DictReader(file)}


def owners_in(model, name):
    """Paths of the layers with weights inside the nested model ``name``, in its order; none where it is not there."""
    nested = (layer for layer in model.layers if layer.name == name)
    return [layer.weights[0].path.rsplit("/", 1)[0] for model in nested for layer in model.layers if layer.weights]


def seeded_checkpoint(folder, scratch):
    """Writes the checkpoint of a golden folder into ``scratch``; gives its prefix."""
    spec = importlib.util.spec_from_file_location("seeded_checkpoint", folder.parent / "seeded_checkpoint.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    return pathlib.Path(seeded.write_checkpoint(str(folder), f"{scratch}/ckpt-0"))


def set_seeded_weights(detector, folder, path_of, skipped=lambda name: False):
    """Gives every variable the value that follows from its published name; ``path_of`` says which that is.

    Published variables that are ``skipped`` have no place in the detector.
    """
    spec = importlib.util.spec_from_file_location("seeded_checkpoint", folder.parent / "seeded_checkpoint.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    weights = {weight.path: weight for weight in detector.weights}
    for name, shape in published_shapes(folder).items():
        if not skipped(name):
            weights.pop(path_of(name)).assign(seeded.value_for(name, list(shape)))
    assert not weights


def image_and_shape(folder, model):
    """The resized and padded golden image [1, H, W, 3] and its true shape [1, 2]."""
    image = tf.io.decode_png(tf.io.read_file(str(folder.parent / "image1.png")))
    padded, true_shape = build_model_resizer(model)(tf.cast(image, tf.float32))
    return padded[tf.newaxis], true_shape[tf.newaxis]


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


def clear_rows(scores, tolerance=1e-4):
    """Rows whose score is farther than ``tolerance`` from both neighbours': others may change places."""
    gaps = np.abs(np.diff(scores, prepend=np.inf, append=-np.inf))
    return np.minimum(gaps[:-1], gaps[1:]) > tolerance
