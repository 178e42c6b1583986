"""Adds the memory of Context R-CNN to records: the features that an exported detector gives to boxes.

from detzoo.tasks.context import add_context

add_context("exported", "records/train-*", "with_context/train")
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from detzoo.datasets.context_memory import Boxes, MemoryOptions, add_memory, describe_records
from detzoo.errors import UsageError
from detzoo.tasks.models import load_exported, start_tensorflow

if TYPE_CHECKING:
    from detzoo.datasets.context_memory import MemorySummary


def add_context(
    saved_model: str | pathlib.Path,
    input_path: str,
    output_path: str,
    *,
    options: MemoryOptions | None = None,
    top_k: int = 1,
    min_score: float = 0.0,
    num_shards: int = 1,
    beam_options: Any = None,
) -> MemorySummary:
    """Writes records again, each with the features of the best boxes in the images of its camera.

    Args:
        saved_model: Exported Faster R-CNN with ``output_final_box_features``, of detzoo or the Object Detection API.
        input_path: TFRecord files: a path, a glob, stem@10, or several, separated by commas.
        output_path: Prefix of the files to write.
        options: Groups and sizes of memories.
        top_k: Boxes per image that give features.
        min_score: Boxes with lower scores give none.
        num_shards: Number of files to write.
        beam_options: ``PipelineOptions`` of Apache Beam, to detect by a pipeline; None to detect in this process.

    Raises:
        UsageError: The model has no features of boxes.
        DataError: A record lacks what the memory needs.
    """
    options = options or MemoryOptions()
    load = functools.partial(_load_description, saved_model, top_k, min_score, options)
    describe = load()
    if beam_options is not None:
        from detzoo.tasks.beam_pipelines import apply_by_beam

        folder = pathlib.Path(output_path).parent.absolute()
        describe = functools.partial(apply_by_beam, beam_options, folder, load)
    return add_memory(input_path, describe, output_path, options, num_shards)


def _load_description(
    saved_model: str | pathlib.Path, top_k: int, min_score: float, options: MemoryOptions
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Returns the first pass over records, with the model's best boxes."""
    start_tensorflow()
    import numpy as np

    from detzoo.files.images import decode_image, to_rgb
    from detzoo.serving.saved_detector import SavedDetector
    from detzoo.serving.served import FEATURES_OUTPUT

    detector = load_exported(saved_model)
    if not isinstance(detector, SavedDetector) or FEATURES_OUTPUT not in detector.function.structured_outputs:
        raise UsageError(
            f"--saved_model {saved_model} has no output {FEATURES_OUTPUT}; export a Faster R-CNN as a SavedModel with "
            "--set model.faster_rcnn.output_final_box_features=true"
        )

    def detect(encoded: bytes) -> Boxes:
        image = np.asarray(to_rgb(decode_image(encoded, "")[0]))
        outputs = {name: np.asarray(value)[0] for name, value in detector.outputs(detector.as_input(image)).items()}
        features = outputs[FEATURES_OUTPUT]  # [M, h, w, C]
        count = min(top_k, int(outputs["num_detections"]))
        chosen = np.flatnonzero(outputs["detection_scores"][:count] >= min_score)
        return Boxes(outputs["detection_boxes"][chosen], features[chosen].mean(axis=(1, 2)))

    return functools.partial(describe_records, detect, options)
