"""Rules for numbers that are in range one by one, but together need tensors that no machine holds.

The sizes are lower bounds: single float32 tensors, and the anchors of the finest map alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detzoo.config import pb, stages, support
from detzoo.config.check.anchors import anchors_per_location
from detzoo.config.check.parts import input_size
from detzoo.config.problems import Findings

MOST_BYTES = 10**12  # of one tensor; the memory of the largest machines that train detectors
_FLOAT_BYTES = 4


def check_size(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks the tensors of a config without other errors against ``MOST_BYTES``."""
    for path, what, num_bytes in _tensors(config):
        if num_bytes > MOST_BYTES:
            text = f"asks for {what}, {num_bytes / 1e9:,.0f} GB; accepted: {MOST_BYTES / 1e9:,.0f} GB at most"
            findings.error(path, "tensor-size", text)


def _tensors(config: pb.TrainEvalPipelineConfig) -> Iterator[tuple[str, str, int]]:
    """Yields the field to change, the tensor in words and its bytes."""
    kind = str(config.model.WhichOneof("model"))
    model: Any = getattr(config.model, kind)
    size = input_size(model.image_resizer) if "image_resizer" in model.DESCRIPTOR.fields_by_name else None
    if size is None:
        return
    batch = max(config.train_config.batch_size, config.eval_config.batch_size)
    boxes = max(
        [config.train_config.max_number_of_boxes, *(reader.max_number_of_boxes for reader in config.eval_input_reader)]
    )
    area, pixels = size.height * size.width, f"{size.height} x {size.width} pixels"
    yield "train_config.batch_size", f"{batch} images of {pixels} per step", batch * area * 3 * _FLOAT_BYTES
    if config.train_input_reader.load_instance_masks:
        masks = f"{batch} x {boxes} masks of {pixels} per step"
        yield "train_config.max_number_of_boxes", masks, batch * boxes * area
    if kind == "faster_rcnn" and stages.has_second_stage(model):
        yield from _second_stage(model, batch)
    anchors = _num_anchors(model, kind, size.height, size.width)
    columns = 4 + (model.num_classes if kind == "ssd" else 1)
    predictions = f"{columns} numbers for each of {anchors} anchors of {batch} images"
    yield f"model.{kind}", predictions, batch * anchors * columns * _FLOAT_BYTES
    similarities = f"the similarities of {anchors} anchors and {boxes} boxes"
    yield "train_config.max_number_of_boxes", similarities, anchors * boxes * _FLOAT_BYTES


def _second_stage(model: pb.FasterRcnn, batch: int) -> Iterator[tuple[str, str, int]]:
    path, regions, side = "model.faster_rcnn", batch * model.second_stage_batch_size, model.initial_crop_size
    crops = f"{regions} crops of {side} x {side} cells per step"
    yield f"{path}.second_stage_batch_size", crops, regions * side**2 * _FLOAT_BYTES
    if stages.predicts_masks(model):
        head = model.second_stage_box_predictor.mask_rcnn_box_predictor
        masks = f"{regions} x {model.num_classes} masks of {head.mask_height} x {head.mask_width} cells per step"
        num_bytes = regions * model.num_classes * head.mask_height * head.mask_width * _FLOAT_BYTES
        yield f"{path}.second_stage_box_predictor.mask_rcnn_box_predictor", masks, num_bytes


def _num_anchors(model: Any, kind: str, height: int, width: int) -> int:
    """Returns the number of anchors on the finest map of an image, 0 for a model without anchors."""
    if kind not in ("ssd", "faster_rcnn") or (kind == "faster_rcnn" and model.proposals_from_reader):
        return 0
    message = model.feature_extractor
    extractor: Any = (support.SSD_EXTRACTORS if kind == "ssd" else support.REGION_EXTRACTORS)[message.type]
    if extractor.is_fpn:
        stride = 2**message.fpn.min_level
    elif kind == "faster_rcnn":
        stride = message.first_stage_features_stride
    else:
        stride = 2 ** (message.bifpn.min_level if extractor.is_bifpn else extractor.backbone_levels[0])
    generator = model.anchor_generator if kind == "ssd" else model.first_stage_anchor_generator
    return -(-height // stride) * -(-width // stride) * (anchors_per_location(generator) or [0])[0]
