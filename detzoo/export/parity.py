"""Does an exported SavedModel compute what the detector in memory computes? (the last step of an export)

The raw boxes and scores of every anchor must agree. The final detections are compared by count only: two anchors whose
scores or overlaps differ by less than the rounding may change places in the suppression.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from detzoo.contracts import Tensor
from detzoo.errors import DetzooError
from detzoo.serving.given_regions import GivenRegions, inputs_of, random_regions
from detzoo.serving.served import CLASS_SCORES, ServingModule

# Rounding of float32 in another order of summation, through a hundred layers.
ABSOLUTE_TOLERANCE = 1e-3
RELATIVE_TOLERANCE = 1e-3
MIN_EQUAL_DETECTIONS = 0.9  # of the scores of final detections
MIN_EQUAL_REGIONS = 0.9  # of the rows of a two-stage detector
RAW_OUTPUTS = ("raw_detection_boxes", "raw_detection_scores")

# (batch, height, width): batches of one and of two, landscape and portrait.
SHAPES = ((1, 240, 320), (2, 200, 150))
NUM_REGIONS = 50  # of each image, where a detector is given them
LONG_SECONDS = 4.0  # for one image, compiling included


class ParityReport(NamedTuple):
    """The largest differences found, over all test images."""

    max_box_difference: float  # in fractions of the input
    max_score_difference: float


class Reference(NamedTuple):
    """An input, and what the detector in memory makes of it."""

    what: str  # the images, for messages
    given: Tensor  # or GivenRegions
    expected: dict[str, np.ndarray]


def reference_outputs(serving: ServingModule, input_type: str) -> list[Reference]:
    """What the detector in memory makes of a few images; of one alone where that takes long.

    Args:
        serving: the detector in memory.
        input_type: of the SavedModel.
    """
    references: list[Reference] = []
    for number, shape in enumerate(SHAPES):
        started = time.monotonic()
        given = example_input(serving, input_type, shape, seed=number)
        expected = {name: value.numpy() for name, value in serving(*inputs_of(given)).items()}
        references.append(Reference(f"{shape[0]} images of {shape[1]} x {shape[2]}", given, expected))
        if time.monotonic() - started > LONG_SECONDS:
            break
    return references


def check_parity(references: Sequence[Reference], loaded: object, chooses_regions: bool = False) -> ParityReport:
    """Compares a loaded SavedModel with the detector it was made of.

    Args:
        references: from ``reference_outputs``.
        loaded: what ``tf.saved_model.load`` gave.
        chooses_regions: see ``compare_outputs``.

    Raises:
        DetzooError: they disagree, or an output is not finite.
    """
    differences = []
    for what, given, expected in references:
        found = {name: value.numpy() for name, value in loaded(*inputs_of(given)).items()}  # type: ignore[operator]
        differences.append(compare_outputs(expected, found, what, chooses_regions))
    boxes, scores = (max(values) for values in zip(*differences, strict=True))
    return ParityReport(boxes, scores)


def _in_the_order_of(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The raw outputs found, each image's rows in the order of the expected rows that they are closest to."""
    ordered: dict[str, list[np.ndarray]] = {name: [] for name in RAW_OUTPUTS}
    for image in range(len(expected[RAW_OUTPUTS[0]])):
        distances = sum(
            np.abs(expected[name][image][:, np.newaxis] - found[name][image]).max(axis=-1) for name in RAW_OUTPUTS
        )
        rows = np.argmin(distances, axis=1)
        for name in RAW_OUTPUTS:
            ordered[name].append(found[name][image][rows])
    return {name: np.stack(rows) for name, rows in ordered.items()}


def compare_outputs(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], what: str, chooses_regions: bool = False
) -> tuple[float, float]:
    """The largest differences of raw boxes and raw scores.

    Args:
        expected: outputs of the detector in memory.
        found: outputs of the SavedModel.
        what: the images, for messages.
        chooses_regions: the detector has two stages. Proposals that differ by less than the rounding may replace each
            other, so rows are compared with the closest ones, and a few may be without an equal.

    Raises:
        DetzooError: names or shapes differ, values disagree beyond rounding, or are not finite.
    """
    shapes = {name: value.shape for name, value in expected.items()}
    found_shapes = {name: value.shape for name, value in found.items()}
    if shapes != found_shapes:
        raise DetzooError(f"the SavedModel's outputs differ on {what}: {found_shapes} instead of {shapes}")
    raw_outputs = (CLASS_SCORES,) if CLASS_SCORES in expected else RAW_OUTPUTS
    for name in raw_outputs:
        if not np.all(np.isfinite(expected[name])):
            raise DetzooError(f"the detector's {name} are not finite on {what}: its weights diverged in training")
    if chooses_regions:
        found = {**found, **_in_the_order_of(expected, found)}
    differences = {name: np.abs(expected[name] - found[name]) for name in raw_outputs}
    allowed = {name: ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected[name]) for name in raw_outputs}
    largest = []
    for name, difference in differences.items():
        is_within = np.all(difference <= allowed[name], axis=-1)
        if is_within.mean() < (MIN_EQUAL_REGIONS if chooses_regions else 1.0):
            worst = float(difference.max(initial=0.0))
            raise DetzooError(f"the SavedModel's {name} differ from the detector's by {worst:.3g} on {what}")
        largest.append(float(difference[is_within].max(initial=0.0)))
    if CLASS_SCORES in expected:
        return 0.0, largest[0]
    is_equal = np.abs(expected["detection_scores"] - found["detection_scores"]) <= 2 * ABSOLUTE_TOLERANCE
    if is_equal.size and is_equal.mean() < MIN_EQUAL_DETECTIONS:
        raise DetzooError(f"{(1 - is_equal.mean()):.0%} of the SavedModel's detections differ on {what}")
    return largest[0], largest[1]


def textured_images(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Images uint8 [batch, height, width, 3] of soft blobs, as rich in frequencies as photographs."""
    generator = np.random.default_rng(seed)
    batch, height, width = shape
    images = np.zeros([batch, height, width, 3])
    for cells in (3, 9, 30):
        coarse = tf.constant(generator.uniform(0, 85, [batch, cells, cells, 3]))
        images += tf.image.resize(coarse, [height, width], "bicubic").numpy()
    return np.clip(images, 0, 255).astype(np.uint8)


def example_input(serving: ServingModule, input_type: str, shape: tuple[int, int, int], seed: int = 0) -> Any:
    """What a served detector may be called with: images of ``shape`` (batch, height, width), and regions of them."""
    given = as_input(textured_images(shape, seed), input_type)
    if len(serving.input_specs) == 1:
        return given
    return GivenRegions(given, tf.constant(random_regions(shape[0], NUM_REGIONS, seed)))


def as_input(images: np.ndarray, input_type: str) -> Tensor:
    """Images uint8 [B, H, W, 3] as an input of the given type."""
    if input_type == "image_tensor":
        return tf.constant(images)
    if input_type == "float_image_tensor":
        return tf.constant(images, tf.float32)
    encoded = [_png(image) for image in images]
    if input_type == "tf_example":
        encoded = [_example(image) for image in encoded]
    return tf.constant(encoded)


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _example(encoded: bytes) -> bytes:
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
