"""Compares an exported SavedModel with the detector in memory, the last step of an export.

The raw boxes and scores of every anchor must agree. Only the number of equal final detections is checked: two anchors
whose scores or overlaps differ by less than the rounding may change places in the suppression.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.errors import DetzooError
from detzoo.serving.given_regions import GivenRegions, inputs_of, random_regions, with_context
from detzoo.serving.served import CLASS_SCORES, ServingModule

# Rounding of float32 sums in a different order, over a hundred layers.
ABSOLUTE_TOLERANCE = 1e-3
RELATIVE_TOLERANCE = 1e-3
MIN_EQUAL_DETECTIONS = 0.9  # of the scores of final detections
MIN_EQUAL_REGIONS = 0.9  # of the rows of a two-stage detector
RAW_OUTPUTS = ("raw_detection_boxes", "raw_detection_scores")
FINAL_OUTPUTS = ("detection_boxes", "detection_multiclass_scores")  # compared in a detector without anchors

# (batch, height, width): batches of one and of two, landscape and portrait.
SHAPES = ((1, 240, 320), (2, 200, 150))
NUM_REGIONS = 50  # per image, for a detector that classifies given regions
LONG_SECONDS = 4.0  # for one image, compiling included


class ParityReport(NamedTuple):
    """The largest differences over all test images."""

    max_box_difference: float  # in fractions of the input
    max_score_difference: float


class Reference(NamedTuple):
    """An input and the detector's outputs for it."""

    what: str  # describes the images in messages
    given: Tensor  # or GivenRegions, or GivenContext
    expected: dict[str, np.ndarray]


def reference_outputs(serving: ServingModule, input_type: str) -> list[Reference]:
    """Runs the detector in memory on a few images, or on one only if it takes long."""
    references: list[Reference] = []
    for number, shape in enumerate(SHAPES):
        started = time.monotonic()
        given = example_input(serving, input_type, shape, seed=number)
        expected = {name: value.numpy() for name, value in serving(*inputs_of(given)).items()}
        references.append(Reference(f"{shape[0]} images of {shape[1]} x {shape[2]}", given, expected))
        if time.monotonic() - started > LONG_SECONDS:
            break
    return references


def check_parity(
    references: Sequence[Reference],
    outputs: Callable[[Any], Mapping[str, Any]],
    chooses_regions: bool = False,
    model: str = "the SavedModel",
) -> ParityReport:
    """Compares the outputs of a loaded model with the detector's ``reference_outputs``; see ``compare_outputs``.

    Raises:
        DetzooError: The outputs disagree or are not finite.
    """
    differences = []
    for what, given, expected in references:
        found = {name: np.asarray(value) for name, value in outputs(given).items()}
        differences.append(compare_outputs(expected, found, what, chooses_regions, model))
    boxes, scores = (max(values) for values in zip(*differences, strict=True))
    return ParityReport(boxes, scores)


def _in_the_order_of(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns each image's outputs of these names in the order of the closest expected rows."""
    ordered: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for image in range(len(expected[names[0]])):
        distances = sum(
            np.abs(expected[name][image][:, np.newaxis] - found[name][image]).max(axis=-1) for name in names
        )
        rows = np.argmin(distances, axis=1)
        for name in names:
            ordered[name].append(found[name][image][rows])
    return {name: np.stack(rows) for name, rows in ordered.items()}


def compare_outputs(
    expected: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    what: str,
    chooses_regions: bool = False,
    model: str = "the SavedModel",
) -> tuple[float, float]:
    """Returns the largest differences of raw boxes and raw scores; messages name the images and the ``model``.

    In a detector of two stages (``chooses_regions``) proposals that differ by less than the rounding may replace each
    other, so rows are compared with the closest ones, and a few rows may lack an equal. A detector without anchors is
    compared so by its final detections.

    Raises:
        DetzooError: Names or shapes differ, values disagree beyond rounding, or values are not finite.
    """
    shapes = {name: value.shape for name, value in expected.items()}
    found_shapes = {name: value.shape for name, value in found.items()}
    if shapes != found_shapes:
        raise DetzooError(f"{model}'s outputs differ on {what}: {found_shapes} instead of {shapes}")
    names: tuple[str, ...] = (CLASS_SCORES,) if CLASS_SCORES in expected else RAW_OUTPUTS
    if CLASS_SCORES not in expected and RAW_OUTPUTS[0] not in expected:
        names, chooses_regions = FINAL_OUTPUTS, True  # peaks may replace each other as proposals do
    if chooses_regions:
        found = {**found, **_in_the_order_of(expected, found, names)}
    largest = []
    for name in names:
        if not np.all(np.isfinite(expected[name])):
            raise DetzooError(f"the detector's {name} are not finite on {what}: its weights diverged in training")
        difference = np.abs(expected[name] - found[name])
        is_within = np.all(difference <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected[name]), axis=-1)
        if is_within.mean() < (MIN_EQUAL_REGIONS if chooses_regions else 1.0):
            worst = float(difference.max(initial=0.0))
            raise DetzooError(f"{model}'s {name} differ from the detector's by {worst:.3g} on {what}")
        largest.append(float(difference[is_within].max(initial=0.0)))
    if CLASS_SCORES in expected:
        return 0.0, largest[0]
    is_equal = np.abs(expected["detection_scores"] - found["detection_scores"]) <= 2 * ABSOLUTE_TOLERANCE
    if is_equal.size and is_equal.mean() < MIN_EQUAL_DETECTIONS:
        raise DetzooError(f"{(1 - is_equal.mean()):.0%} of {model}'s detections differ on {what}")
    return largest[0], largest[1]


def textured_images(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Returns images uint8 [batch, height, width, 3] of soft blobs, with frequencies like photographs."""
    generator = np.random.default_rng(seed)
    batch, height, width = shape
    images = np.zeros([batch, height, width, 3])
    for cells in (3, 9, 30):
        coarse = tf.constant(generator.uniform(0, 85, [batch, cells, cells, 3]))
        images += tf.image.resize(coarse, [height, width], "bicubic").numpy()
    return np.clip(images, 0, 255).astype(np.uint8)


def example_input(serving: ServingModule, input_type: str, shape: tuple[int, int, int], seed: int = 0) -> Any:
    """Returns inputs of a served detector: images of ``shape`` (batch, height, width), and its side inputs."""
    given = as_input(textured_images(shape, seed), input_type)
    if len(serving.input_specs) == 1:
        return given
    if serving.detector.context_length:
        spec = serving.input_specs[1]
        memory = np.random.default_rng(seed).uniform(size=[NUM_REGIONS, spec.shape[-1]]).astype(np.float32)
        return with_context(given, spec, memory)
    return GivenRegions(given, tf.constant(random_regions(shape[0], NUM_REGIONS, seed)))


def as_input(images: np.ndarray, input_type: str) -> Tensor:
    """Converts images uint8 [B, H, W, 3] to inputs of the given type."""
    if input_type in ("image_tensor", "float_image_tensor"):
        return tf.constant(images, tf.uint8 if input_type == "image_tensor" else tf.float32)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    return tf.constant(encoded if input_type != "tf_example" else [_example(image) for image in encoded])


def _example(encoded: bytes) -> bytes:
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
