"""Converts a one-stage detector to TFLite in two parts, the network (optionally quantised) and the post-processing.

    image [1, H, W, 3] -> network -> box deltas [1, A, 4], class logits [1, A, C] -> post-processing -> detections

There are two conversions, because a quantised conversion of the whole would round scores and final boxes to multiples
of 1/256. ``join`` makes one model of both.

The post-processing is the interpreter's operation TFLite_Detection_PostProcess, which decodes boxes and suppresses
overlaps: per class ("regular"), as the detector does. For ``use_class_agnostic_nms`` it is the "fast" form, which
suppresses among all classes.

With n > 1 threads, the operation's per-class suppression skips class n (tensorflow/tensorflow issue 56058, also in
TensorFlow 2.20 and in LiteRT). So the classes start at number ``NUM_EMPTY_CLASSES``, after empty ones.

Differs from the detector: a box without area inside the image stays among the detections, with a height or width of 0,
because the operation does not clip boxes to the image.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.resize import to_gray
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import DetzooError
from detzoo.export.freeze import freeze
from detzoo.export.saved_model import quiet_saver
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.postprocess.dense_detections import DenseDetections
from detzoo.serving.frozen import outputs_of, quiet_conversion
from detzoo.serving.tflite_detector import OUTPUTS

POSTPROCESS_OP = "TFLite_Detection_PostProcess"
IMAGE, DELTAS, LOGITS = "image", "box_deltas", "class_logits"
NONE, DYNAMIC, INT8 = "none", "dynamic", "int8"
QUANTIZATIONS = (NONE, DYNAMIC, INT8)
NUM_EMPTY_CLASSES = 17  # no class is lost with fewer threads
INPUT_DTYPES = {"image_tensor": tf.uint8, "float_image_tensor": tf.float32}


def convert_network(
    detector: OneStageDetector,
    input_type: str,
    quantize: str = NONE,
    images: np.ndarray | None = None,
    convert_to_grayscale: bool = False,
) -> tuple[bytes, int]:
    """Converts the network, with normalisation of pixels before it and batch normalisation folded.

    ``images`` uint8 [N, H, W, 3] determine the ranges of activations for int8; pixels are RGB, 0..255.

    Returns:
        A TFLite model with the input ``image`` and the outputs ``box_deltas`` and ``class_logits``, float32, and the
        number of folded batch normalisations.
    """
    # Integer hardware cannot cast. With int8 the graph takes float32, and its quantised input has the camera's bytes.
    dtype = tf.float32 if quantize == INT8 else INPUT_DTYPES[input_type]
    spec = tf.TensorSpec([1, *detector.input_shape_px, 3], dtype, name=IMAGE)

    def predict(image: Tensor) -> dict[str, Tensor]:
        image = to_gray(image) if convert_to_grayscale else image
        predictions = detector.forward(detector.preprocess(image))
        return {DELTAS: predictions.box_deltas, LOGITS: predictions.class_logits}

    frozen, num_folded = freeze(tf.function(predict, input_signature=[spec], autograph=False).get_concrete_function())

    def run_frozen(image: Tensor) -> dict[str, Tensor]:
        return outputs_of(frozen, [image])

    def configure(converter: Any) -> None:
        if quantize != NONE:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == INT8:
            if images is None:
                raise ValueError("int8 needs images")
            converter.representative_dataset = lambda: _calibration(images)
            converter.inference_input_type = INPUT_DTYPES[input_type]
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]

    return _convert(tf.function(run_frozen, input_signature=[spec], autograph=False), configure), num_folded


def _calibration(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yields the images as float32 [1, H, W, 3], the first with a black and a white corner.

    So the input's range is 0 to 255, its scale is 1, and a byte of the camera is a quantised value.
    """
    for number, image in enumerate(images):
        sample = image[np.newaxis].astype(np.float32)
        if number == 0:
            sample[0, 0, 0], sample[0, -1, -1] = 0.0, 255.0
        yield [sample]


def convert_postprocessing(detector: OneStageDetector) -> bytes:
    """Converts scores, decoding and suppression of a detector with a fixed input size.

    Returns:
        A TFLite model with the inputs ``box_deltas`` and ``class_logits`` and the outputs ``OUTPUTS``. Its operation
        lacks some attributes until ``complete``.

    Raises:
        DetzooError: TFLite cannot express the detector's post-processing.
    """
    detections, anchors_norm = detector.dense_detections, detector.static_anchors_norm
    if not isinstance(detections.box_coder, FasterRcnnBoxCoder):
        raise DetzooError(f"TFLite decodes FasterRcnnBoxCoder only, not {type(detections.box_coder).__name__}")
    if detections.limits.soft_nms_sigma > 0:
        raise DetzooError("TFLite has no soft suppression; set soft_nms_sigma to 0")
    num_anchors = len(anchors_norm)
    num_columns = detector.num_classes + int(detections.has_background_column)
    num_rows, num_empty = detections.limits.max_total_detections, num_empty_classes(detections, detector.num_classes)
    corners = np.asarray(anchors_norm, np.float32)
    centers_and_sizes = np.concatenate(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1, dtype=np.float32
    )

    # The converter replaces calls of this function by the operation and ignores the body.
    @tf.function(experimental_implements=_signature(detections, detector.num_classes), autograph=False)
    def operation(deltas: Tensor, scores: Tensor, anchors: Tensor) -> tuple[Tensor, ...]:
        del deltas, scores, anchors
        rows = tf.zeros([1, num_rows])
        return tf.zeros([1, num_rows, 4]), rows, rows, tf.zeros([1])

    def detect(box_deltas: Tensor, class_logits: Tensor) -> dict[str, Tensor]:
        scores = detections.score_converter(class_logits)
        scores = scores[..., 1:] if detections.has_background_column else scores
        if num_empty:
            scores = tf.pad(scores, [[0, 0], [0, 0], [num_empty, 0]])
        boxes, classes, best, count = operation(box_deltas, scores, tf.constant(centers_and_sizes))
        if num_empty:
            classes = tf.maximum(classes - float(num_empty), 0.0)
        return dict(zip(OUTPUTS, (tf.clip_by_value(boxes, 0.0, 1.0), classes, best, count)))

    signature = [
        tf.TensorSpec([1, num_anchors, 4], name=DELTAS),
        tf.TensorSpec([1, num_anchors, num_columns], name=LOGITS),
    ]

    def configure(converter: Any) -> None:
        converter.allow_custom_ops = True

    return _convert(tf.function(detect, input_signature=signature, autograph=False), configure)


def num_empty_classes(detections: DenseDetections, num_classes: int) -> int:
    """Returns the number of empty classes before the first one (see the module), 0 if the operation loses no class."""
    is_safe = detections.is_class_agnostic or num_classes <= 2  # with n > 1 threads it loses class n, from 0
    return 0 if is_safe else NUM_EMPTY_CLASSES


def operation_attributes(detections: DenseDetections, num_classes: int) -> dict[str, int | float | bool]:
    """Returns attributes with which TFLite_Detection_PostProcess works like ``detections``.

    The operation takes scores of at least its threshold, the detector takes scores above it and none below 0.
    """
    limits = detections.limits
    if not isinstance(detections.box_coder, FasterRcnnBoxCoder):
        raise TypeError("the operation decodes FasterRcnnBoxCoder only")
    scales = dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), detections.box_coder.scale_factors))
    threshold = np.nextafter(np.float32(max(limits.score_threshold, 0.0)), np.float32(2.0))
    return {
        "max_detections": limits.max_total_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": limits.max_detections_per_class,
        "use_regular_nms": not detections.is_class_agnostic,
        "nms_score_threshold": float(max(threshold, np.finfo(np.float32).tiny)),
        "nms_iou_threshold": limits.iou_threshold,
        "num_classes": num_classes + num_empty_classes(detections, num_classes),
        **scales,
    }


def _signature(detections: DenseDetections, num_classes: int) -> str:
    """Returns the argument of ``experimental_implements``: a NameAttrList as text."""
    kinds: dict[type, Callable[[Any], str]] = {
        bool: lambda value: f"b: {str(value).lower()}",
        int: lambda value: f"i: {value}",
        float: lambda value: f"f: {value:.9g}",
    }
    attributes = operation_attributes(detections, num_classes).items()
    texts = [f'attr {{ key: "{key}" value {{ {kinds[type(value)](value)} }} }}' for key, value in attributes]
    return " ".join([f'name: "{POSTPROCESS_OP}"', *texts])


def _convert(function: Any, configure: Callable[[Any], None]) -> bytes:
    """Converts a tf.function to TFLite through a SavedModel: only there ``experimental_implements`` has an effect."""
    module = tf.Module()
    module.function = function
    with tempfile.TemporaryDirectory() as folder, quiet_saver():
        path = pathlib.Path(folder) / "saved_model"
        tf.saved_model.save(module, str(path), signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
        configure(converter)
        try:
            with quiet_conversion():
                return converter.convert()
        except Exception as problem:  # the converter raises exceptions of many kinds
            reason = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
            raise DetzooError(f"TFLite's converter refuses the detector: {reason.strip()[:300]}") from problem


def complete(postprocessing: bytes, attributes: Mapping[str, int | float | bool]) -> bytes:
    """Sets all attributes of the post-processing's operation, from ``operation_attributes``.

    The converter leaves out the limit of detections per class.
    """
    from flatbuffers import flexbuffers
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(postprocessing))
    codes = [code.customCode for code in model.operatorCodes]
    for operator in model.subgraphs[0].operators:
        if codes[operator.opcodeIndex] == POSTPROCESS_OP.encode():
            operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(attributes))), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def join(network: bytes, postprocessing: bytes) -> bytes:
    """Joins network and post-processing (from ``complete``) to one TFLite model from the image to the detections.

    Clients take the outputs by number: boxes, classes, scores, count. The converter orders them by a hash, so they are
    sorted here.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    first = flatbuffer_utils.read_model_from_bytearray(bytearray(network))
    second = flatbuffer_utils.read_model_from_bytearray(bytearray(postprocessing))
    inputs, between = _named_tensors(first)
    given, outputs = _named_tensors(second)
    places = _append(first, second, {given[name]: between[name] for name in (DELTAS, LOGITS)})
    graph = first.subgraphs[0]
    graph.outputs = [places[outputs[name]] for name in OUTPUTS]
    for name, tensor in (*inputs.items(), *zip(OUTPUTS, graph.outputs)):
        graph.tensors[tensor].name = name.encode()
    signature, second_signature = first.signatureDefs[0], second.signatureDefs[0]
    order = {entry.name.decode(): entry for entry in second_signature.outputs}
    signature.outputs = [order[name] for name in OUTPUTS]
    for entry, tensor in zip(signature.outputs, graph.outputs):
        entry.tensorIndex = tensor
    first.description = "detzoo: one-stage detector"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(first))


def _named_tensors(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Returns tensor numbers of a model's inputs and outputs, by their names in its only signature."""
    [signature] = model.signatureDefs
    inputs, outputs = (
        {entry.name.decode(): entry.tensorIndex for entry in entries}
        for entries in (signature.inputs, signature.outputs)
    )
    return ({IMAGE: inputs[IMAGE]} if IMAGE in inputs else inputs), outputs


def _append(first: Any, second: Any, known: Mapping[int, int]) -> dict[int, int]:
    """Appends a second ModelT with one subgraph to the first.

    ``known`` maps tensors of the second to tensors of the first. Returns that map for all tensors of the second.
    """
    graph, added = first.subgraphs[0], second.subgraphs[0]
    num_buffers, num_codes = len(first.buffers), len(first.operatorCodes)
    first.buffers += second.buffers
    first.operatorCodes += second.operatorCodes
    places = dict(known)
    for number, tensor in enumerate(added.tensors):
        if number not in places:
            tensor.buffer += num_buffers
            places[number] = len(graph.tensors)
            graph.tensors.append(tensor)
    absent = {-1: -1}  # an optional input without a tensor
    for operator in added.operators:
        operator.opcodeIndex += num_codes
        operator.inputs = [(places | absent)[int(number)] for number in operator.inputs]
        operator.outputs = [places[int(number)] for number in operator.outputs]
        graph.operators.append(operator)
    return places
