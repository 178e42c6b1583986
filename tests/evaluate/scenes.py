"""Evaluated images for tests of the analysis."""

from __future__ import annotations

import numpy as np

from detzoo.evaluate.images import EvaluatedImage


def image(objects, detections, name="image", shape=(100, 120), crowds=(), difficult=(), **fields):
    """An image of objects (class, box) and detections (class, box, score); crowds and difficult are rows of objects."""
    gt_boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    rows = np.arange(len(objects))
    return EvaluatedImage(
        image_id=name,
        shape=shape,
        gt_boxes_px=gt_boxes,
        gt_classes=np.array([each for each, _ in objects], np.int32),
        gt_is_crowd=np.isin(rows, crowds),
        gt_is_difficult=np.isin(rows, difficult),
        gt_area_px=np.prod(gt_boxes[:, 2:] - gt_boxes[:, :2], axis=1),
        boxes_px=np.array([box for _, box, _ in detections], np.float32).reshape(-1, 4),
        scores=np.array([score for *_, score in detections], np.float32),
        classes=np.array([each for each, *_ in detections], np.int32),
        **fields,
    )


def box(y, x, size=10):
    """A square box with this upper left corner."""
    return (y, x, y + size, x + size)


def six_errors(name="image"):
    """One image with one error of each kind; class 0 is a cat, 1 a dog."""
    objects = [(0, box(0, 0)), (1, box(20, 20)), (0, box(50, 50)), (1, box(80, 80))]
    detections = [
        (0, box(0, 0), 0.9),  # right
        (0, box(0, 1), 0.8),  # IoU 9 / 11 with the same cat: duplicate
        (0, box(20, 20), 0.7),  # on the dog: classification
        (0, box(50, 55), 0.6),  # IoU 5 / 15 with the second cat: localization
        (1, box(50, 55), 0.5),  # the same as a dog: both
        (1, box(0, 100), 0.4),  # background
    ]
    return image(objects, detections, name)  # the dog at 80, 80 is missed


def crowded(seed, num_images=30, num_classes=3, with_crowds=True):
    """Images with overlapping objects of several classes and sizes, and detections around them."""
    generator = np.random.default_rng(seed)
    images, all_scores = [], generator.permutation(40 * num_images).reshape(num_images, 40) / (40.0 * num_images)
    for number in range(num_images):
        count = int(generator.integers(1, 9))
        corners = generator.uniform(0, 250, [count, 2])
        sides = np.exp(generator.normal(3.7, 0.9, [count, 2]))
        boxes = np.concatenate([corners, corners + sides], axis=1)
        classes = generator.integers(0, num_classes, count)
        chosen = generator.integers(0, max(1, 3 * count // 4), 40)  # nothing is found near the last objects
        found = boxes[chosen] + generator.normal(0, 0.15, [40, 4]) * np.tile(sides[chosen], 2)
        found = np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], axis=1)
        found_classes = np.where(
            generator.uniform(size=40) < 0.7, classes[chosen], generator.integers(0, num_classes, 40)
        )
        found[:8] = generator.uniform((300, 300, 400, 400), (350, 350, 450, 450), [8, 4])
        scores = all_scores[number]
        crowds = np.flatnonzero(generator.uniform(size=count) < 0.1) if with_crowds else ()
        images.append(
            image(
                [(int(each), tuple(one)) for each, one in zip(classes, boxes)],
                [(int(each), tuple(one), float(score)) for each, one, score in zip(found_classes, found, scores)],
                f"image {number}",
                (512, 512),
                crowds,
            )
        )
    return images
