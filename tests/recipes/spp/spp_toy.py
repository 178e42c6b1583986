"""A small SPP-net and images in memory, whose classes are colours: what the tests of the chain train."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch, Groundtruth, Proposals
from detzoo.detectors.spp_net import SppNet, SppParts, WindowScales
from detzoo.features.normalization import subtract_imagenet_mean
from detzoo.ops.nms import NmsLimits

HEIGHT, WIDTH, NUM_IMAGES, NUM_WINDOWS = 72, 96, 6, 30
COLOURS = np.array([[250, 30, 30], [30, 250, 30]], np.float32)  # of the classes
SIDE_PX = 32


def make_detector(**parts):
    keras.utils.set_random_seed(7)
    made = {"pyramid_bins": (2, 1), "fc_depth": 16, "depth_multiplier": 0.2, "dropout": 0.0} | parts
    limits = NmsLimits(score_threshold=0.0, iou_threshold=0.3, max_detections_per_class=20, max_total_detections=20)
    return SppNet(SppParts(**made), WindowScales((96,), 48), limits, subtract_imagenet_mean, NUM_WINDOWS, 2)


def make_batch(number):
    """Image ``number``: a square of its class's colour on grey, and windows around it."""
    random = np.random.default_rng(number)
    colour = number % 2
    top, left = random.integers(0, [HEIGHT - SIDE_PX, WIDTH - SIDE_PX])
    image = np.full([HEIGHT, WIDTH, 3], 120, np.float32) + random.normal(0, 5, [HEIGHT, WIDTH, 3])
    image[top : top + SIDE_PX, left : left + SIDE_PX] = COLOURS[colour]
    true = np.array([top, left, top + SIDE_PX, left + SIDE_PX]) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    near = true + random.normal(0, 0.06, [NUM_WINDOWS // 2, 4])
    corners = random.uniform(0, 0.6, [NUM_WINDOWS - len(near), 2])
    far = np.concatenate([corners, corners + random.uniform(0.2, 0.4, corners.shape)], axis=1)
    windows = np.clip(np.concatenate([near, far]), 0, 1).astype(np.float32)
    row = np.zeros([1, 1], np.float32)
    truth = Groundtruth(
        boxes_norm=true[np.newaxis, np.newaxis].astype(np.float32),
        classes=np.array([[colour]], np.int32),
        weights=row + 1,
        is_crowd=row > 0,
        is_difficult=row > 0,
        area_px=row,
        masks=np.zeros([1, 1, 0, 0], np.uint8),
    )
    shape = np.array([[HEIGHT, WIDTH]], np.int32)
    proposals = Proposals(windows[np.newaxis], np.ones([1, NUM_WINDOWS], np.float32), np.array([NUM_WINDOWS], np.int32))
    index = np.array([number], np.int64)
    batch = Batch(image[np.newaxis].astype(np.float32), shape, shape, np.array([str(number)]), index, truth, proposals)
    return tf.nest.map_structure(tf.constant, batch)


def read(first_record):
    """The finite stream of batches from a position on."""
    return [make_batch(number) for number in range(first_record, NUM_IMAGES)]


def read_for_ever(first_record):
    """The endless stream: image i comes at the positions i, i + 6, ..."""
    number = first_record
    while True:
        batch = make_batch(number % NUM_IMAGES)
        yield batch._replace(record_index=tf.constant([number], tf.int64))
        number += 1
