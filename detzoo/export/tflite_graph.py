"""Converts a one-stage detector to TFLite in two parts, the network (optionally quantised) and the post-processing.

    image [1, H, W, 3] -> network -> box deltas [1, A, 4], class logits [1, A, C] -> post-processing -> detections

There are two conversions, because a quantised conversion of the whole would round scores and final boxes to multiples
of 1/256. ``join`` makes one model of both.

The post-processing is ``detzoo.export.tflite_nms``, in built-in operations.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import CenterPredictions, Tensor
from detzoo.data.resize import to_gray
from detzoo.detectors.center_net import CenterNet
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import DetzooError
from detzoo.export.freeze import freeze
from detzoo.export.saved_model import quiet_saver
from detzoo.export.tflite_metadata import METADATA_NAME
from detzoo.export.tflite_nms import best_pairs, suppress
from detzoo.postprocess.scores import ScoreFunction
from detzoo.serving.frozen import outputs_of, quiet_conversion
from detzoo.serving.tflite_detector import OUTPUTS

IMAGE, DELTAS, LOGITS = "image", "box_deltas", "class_logits"
NONE, FLOAT16, DYNAMIC, INT8 = "none", "float16", "dynamic", "int8"
QUANTIZATIONS = (NONE, FLOAT16, DYNAMIC, INT8)
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

    return _freeze_and_convert(predict, spec, _quantization(quantize, input_type, images))


def _quantization(quantize: str, input_type: str, images: np.ndarray | None) -> Callable[[Any], None]:
    """Returns the function that sets up a converter for a kind of weights and activations."""

    def configure(converter: Any) -> None:
        _store_small_weights(converter, quantize)
        if quantize == INT8:
            if images is None:
                raise ValueError("int8 needs images")
            converter.representative_dataset = lambda: _calibration(images)
            converter.inference_input_type = INPUT_DTYPES[input_type]
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]

    return configure


def _freeze_and_convert(
    function: Callable[[Tensor], dict[str, Tensor]], spec: tf.TensorSpec, configure: Callable[[Any], None]
) -> tuple[bytes, int]:
    """Returns the TFLite model of a function of an image, and the number of folded batch normalisations."""
    frozen, num_folded = freeze(tf.function(function, input_signature=[spec], autograph=False).get_concrete_function())

    def run_frozen(image: Tensor) -> dict[str, Tensor]:
        return outputs_of(frozen, [image])

    return _convert(tf.function(run_frozen, input_signature=[spec], autograph=False), configure), num_folded


def _store_small_weights(converter: Any, quantize: str) -> None:
    if quantize != NONE:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == FLOAT16:
        converter.target_spec.supported_types = [tf.float16]


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
        A TFLite model with the inputs ``box_deltas`` and ``class_logits`` and the outputs ``OUTPUTS``.

    Raises:
        DetzooError: TFLite cannot express the detector's post-processing.
    """
    detections, anchors_norm = detector.dense_detections, np.asarray(detector.static_anchors_norm, np.float32)
    if detections.limits.soft_nms_sigma > 0:
        raise DetzooError("TFLite models have no soft suppression; set soft_nms_sigma to 0")
    num_columns = detector.num_classes + int(detections.has_background_column)
    convert = detections.score_converter
    keeps_order = convert.function is not ScoreFunction.SOFTMAX  # so only the best logits need a score

    def detect(box_deltas: Tensor, class_logits: Tensor) -> dict[str, Tensor]:
        scores = class_logits if keeps_order else convert(class_logits)
        scores = scores[..., 1:] if detections.has_background_column else scores
        pairs = best_pairs(scores, detections.limits, detections.is_class_agnostic)
        pairs = pairs._replace(scores=convert(pairs.scores)) if keeps_order else pairs
        deltas = tf.gather(box_deltas, pairs.anchors, axis=1)[0]
        boxes = detections.box_coder.decode(deltas, tf.gather(tf.constant(anchors_norm), pairs.anchors))
        kept, is_filled = suppress(boxes, pairs, detections.limits, detector.num_classes, detections.is_class_agnostic)
        rows = [tf.gather(part, kept) for part in (boxes, tf.cast(pairs.classes, tf.float32), pairs.scores)]
        filled = tf.cast(is_filled, tf.float32)
        boxes, classes, best = (part * tf.reshape(filled, [-1] + [1] * (part.shape.rank - 1)) for part in rows)
        outputs = (tf.clip_by_value(boxes, 0.0, 1.0)[tf.newaxis], classes[tf.newaxis], best[tf.newaxis])
        return dict(zip(OUTPUTS, (*outputs, tf.reduce_sum(filled, keepdims=True))))

    signature = [
        tf.TensorSpec([1, len(anchors_norm), 4], name=DELTAS),
        tf.TensorSpec([1, len(anchors_norm), num_columns], name=LOGITS),
    ]
    return _convert(tf.function(detect, input_signature=signature, autograph=False))


def _convert(function: Any, configure: Callable[[Any], None] = lambda converter: None) -> bytes:
    """Converts a tf.function to TFLite through a SavedModel, whose signature names inputs and outputs."""
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


def join(network: bytes, postprocessing: bytes) -> bytes:
    """Joins network and post-processing to one TFLite model from the image to the detections.

    The inputs of the post-processing have the names of the network's outputs. Clients take the outputs by number:
    boxes, classes, scores, count. The converter orders them by a hash, so they are sorted here.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    first = flatbuffer_utils.read_model_from_bytearray(bytearray(network))
    second = flatbuffer_utils.read_model_from_bytearray(bytearray(postprocessing))
    inputs, between = _named_tensors(first)
    given, outputs = _named_tensors(second)
    places = _append(first, second, {given[name]: between[name] for name in given})
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


def attach(content: bytes, metadata: bytes) -> bytes:
    """Returns a TFLite model with TFLite Metadata in it."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer, buffer.data = METADATA_NAME, len(model.buffers), np.frombuffer(metadata, np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


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


def convert_center_net(
    detector: CenterNet, input_type: str, quantize: str, images: np.ndarray | None, convert_to_grayscale: bool
) -> tuple[bytes, int]:
    """Converts a CenterNet from pixels to boxes: its peaks need no custom operation.

    For int8 the network alone is quantised, ranges of activations from ``images`` uint8 [N, H, W, 3]; peaks and boxes
    are computed from its maps as float32.

    Returns:
        A TFLite model with the input ``image`` and the outputs ``OUTPUTS``, and the number of folded batch
        normalisations.
    """
    height, width = detector.input_shape_px
    heads = {head.replace("/", "_"): head for head in detector.network.output["maps"]}
    dtype = tf.float32 if quantize == INT8 else INPUT_DTYPES[input_type]
    spec = tf.TensorSpec([1, height, width, 3], dtype, name=IMAGE)

    def predict(image: Tensor) -> CenterPredictions:
        return detector.forward(detector.preprocess(to_gray(image) if convert_to_grayscale else image))

    def detect(predictions: CenterPredictions) -> dict[str, Tensor]:
        found = detector.boxes_of(predictions, tf.constant([[height, width]]), (height, width))
        values = (found.boxes_norm, found.classes, found.scores, found.num_valid)
        return {name: tf.cast(value, tf.float32) for name, value in zip(OUTPUTS, values)}

    configure = _quantization(quantize, input_type, images)
    if quantize != INT8:
        content, num_folded = _freeze_and_convert(lambda image: detect(predict(image)), spec, configure)
        return _with_ordered_outputs(content), num_folded

    def predict_maps(image: Tensor) -> dict[str, Tensor]:
        maps = predict(image).maps
        return {name: maps[head][-1] for name, head in heads.items()}

    def detect_in_maps(**maps: Tensor) -> dict[str, Tensor]:
        stacks = {heads[name]: [x] for name, x in maps.items()}
        return detect(CenterPredictions(stacks, tf.constant([[height, width]]), (height, width)))

    network, num_folded = _freeze_and_convert(predict_maps, spec, configure)
    shapes = {name: (1, *detector.network.output["maps"][head][-1].shape[1:]) for name, head in heads.items()}
    signature = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()}
    traced = tf.function(detect_in_maps, autograph=False).get_concrete_function(**signature)
    return join(network, _convert(traced)), num_folded


def _with_ordered_outputs(content: bytes) -> bytes:
    """Sorts the outputs as ``OUTPUTS`` and names them so; the converter orders them by a hash."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    inputs, outputs = _named_tensors(model)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    graph.outputs = [outputs[name] for name in OUTPUTS]
    for name, tensor in (*inputs.items(), *((name, outputs[name]) for name in OUTPUTS)):
        graph.tensors[tensor].name = name.encode()
    order = {entry.name.decode(): entry for entry in signature.outputs}
    signature.outputs = [order[name] for name in OUTPUTS]
    model.description = "detzoo: CenterNet"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
