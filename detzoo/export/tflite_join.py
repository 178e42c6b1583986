"""Joins the TFLite models of network and post-processing, with the outputs in the order that clients expect.

TFLite's converter orders the outputs by a hash, and clients take them by number: boxes, classes, scores, count. It also
leaves out an attribute of the operation, the limit of detections a class. Both are put right here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detzoo.export.tflite_graph import DELTAS, IMAGE, LOGITS, POSTPROCESS_OP
from detzoo.serving.tflite_detector import OUTPUTS

DESCRIPTION = "detzoo: one-stage detector"


def complete(postprocessing: bytes, attributes: Mapping[str, int | float | bool]) -> bytes:
    """The post-processing with all attributes of its operation, ``operation_attributes``."""
    from flatbuffers import flexbuffers
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(postprocessing))
    codes = [code.customCode for code in model.operatorCodes]
    for operator in model.subgraphs[0].operators:
        if codes[operator.opcodeIndex] == POSTPROCESS_OP.encode():
            operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(attributes))), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def join(network: bytes, postprocessing: bytes) -> bytes:
    """One TFLite model from the image to the detections.

    Args:
        network: from ``convert_network``.
        postprocessing: from ``complete``.
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
    order = {name: entry for entry in second_signature.outputs for name in [entry.name.decode()]}
    signature.outputs = [order[name] for name in OUTPUTS]
    for entry, tensor in zip(signature.outputs, graph.outputs):
        entry.tensorIndex = tensor
    first.description = DESCRIPTION
    return bytes(flatbuffer_utils.convert_object_to_bytearray(first))


def _named_tensors(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Tensor numbers of a model's inputs and of its outputs, by their names in its only signature."""
    [signature] = model.signatureDefs
    inputs, outputs = (
        {entry.name.decode(): entry.tensorIndex for entry in entries}
        for entries in (signature.inputs, signature.outputs)
    )
    return ({IMAGE: inputs[IMAGE]} if IMAGE in inputs else inputs), outputs


def _append(first: Any, second: Any, known: Mapping[int, int]) -> dict[int, int]:
    """Adds the second model's operators behind the first one's.

    Args:
        first: a ModelT; changed.
        second: a ModelT with one subgraph.
        known: tensors of the second that are tensors of the first.

    Returns:
        For each tensor of the second its number in the first.
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
    absent = {-1: -1}  # of an optional input
    for operator in added.operators:
        operator.opcodeIndex += num_codes
        operator.inputs = [(places | absent)[int(number)] for number in operator.inputs]
        operator.outputs = [places[int(number)] for number in operator.outputs]
        graph.operators.append(operator)
    return places
