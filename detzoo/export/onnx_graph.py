"""Converts a frozen detector to an ONNX graph, by tf2onnx.

Opset 17: the first with every operator in use is 16 (RoiAlign with half a pixel's shift), and ONNX Runtime runs 17 from
version 1.12 (2022) on.

tf2onnx's own conversion of crops runs a loop over the boxes. Here a crop becomes one RoiAlign with a sample per bin.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo import __version__
from detzoo.errors import DetzooError
from detzoo.serving.frozen import FrozenGraph, quiet_conversion, reach
from detzoo.serving.served import INPUT_NAME

OPSET, IR_VERSION = 17, 8
INPUT_AXES = ("batch", "height", "width")


def convert(frozen: FrozenGraph) -> Any:
    """Converts a graph from images to named outputs.

    Returns:
        ``onnx.ModelProto`` with the input ``input_tensor`` [batch, height, width, 3] and the graph's output names.

    Raises:
        DetzooError: The graph has operators without a counterpart in ONNX.
    """
    import onnx
    from tf2onnx import optimizer, tf_loader, tfonnx

    inputs, outputs = [frozen.input_name], list(frozen.output_names.values())
    with _quiet(), quiet_conversion():
        with tf.Graph().as_default():
            graph_def = tf_loader.tf_optimize(inputs, outputs, frozen.graph_def)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,  # operators that are not converted are found below
                opset=OPSET,
                custom_op_handlers={"CropAndResize": (_crop_to_roi_align, [])},
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=dict(zip([*inputs, *outputs], [INPUT_NAME, *frozen.output_names])),
            )
        # Catching errors would copy the graph before each step, half of the time.
        model = optimizer.optimize_graph(converted, catch_errors=False, optimizers=_optimizers()).make_model("detzoo")
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    if unknown := sorted({node.op_type for node in model.graph.node} - known):
        raise DetzooError(f"ONNX has no counterpart of {', '.join(unknown)}, operators of this detector")
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "detzoo", __version__, ""
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.dim_value and (value.name == INPUT_NAME or axis == 0):
                size.dim_param = INPUT_AXES[axis]
    return model


def _optimizers() -> dict[str, Any]:
    """Returns the optimizers of tf2onnx that change detectors, by name, in its order."""
    from tf2onnx.optimizer.back_to_back_optimizer import BackToBackOptimizer
    from tf2onnx.optimizer.const_fold_optimizer import ConstFoldOptimizer
    from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer
    from tf2onnx.optimizer.merge_duplicated_nodes_optimizer import MergeDuplicatedNodesOptimizer
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    chosen = (
        TransposeOptimizer,
        ConstFoldOptimizer,
        MergeDuplicatedNodesOptimizer,
        IdentityOptimizer,
        BackToBackOptimizer,
    )
    return {each.__name__: each for each in chosen}


def keep_outputs(model: Any, names: Sequence[str]) -> Any:
    """Returns a copy of a model with these outputs only, without the operators that no output needs."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    outputs = {value.name: value for value in model.graph.output}
    sources = {output: list(node.input) for node in graph.node for output in node.output}
    # Tensors that bodies of loops and branches read from outside are inputs, too.
    for node in graph.node:
        inner = [name for each in _graphs_in(node) for inside in each.node for name in inside.input]
        for output in node.output:
            sources[output] += inner
    needed = reach(sources, names)
    read = {name for output in needed for name in sources[output]}
    nodes = [node for node in graph.node if needed & set(node.output)]
    constants = [constant for constant in graph.initializer if constant.name in read]
    del graph.node[:], graph.initializer[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.output.extend(outputs[name] for name in names)
    return result


def set_metadata(model: Any, entries: Mapping[str, str]) -> None:
    """Sets the model's ``metadata_props``; empty values are left out."""
    import onnx

    onnx.helper.set_model_props(model, {key: value for key, value in entries.items() if value})


def _graphs_in(node: Any) -> list[Any]:
    """Returns the bodies of a loop or a branch, also those inside them."""
    direct = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*direct, *(deeper for graph in direct for inner in graph.node for deeper in _graphs_in(inner))]


def _crop_to_roi_align(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Replaces a CropAndResize by a RoiAlign with one sample in the middle of each of h x w bins.

    CropAndResize samples row first + i step of a map with H rows, where first = ymin (H - 1) and
    step = (ymax - ymin) (H - 1) / (h - 1). These are the middles of h bins of size step, from first - step / 2 on. A
    crop of one row samples the middle of the box. RoiAlign itself subtracts half a cell. The operators differ only in
    samples up to one cell outside of the map: 0 in CropAndResize, the outermost cell in RoiAlign.
    """
    del args
    from onnx import TensorProto
    from tf2onnx import utils

    features, boxes, image_indices, _ = node.input
    height, width = (int(size) for size in node.inputs[3].get_tensor_value())
    shapes, dtypes = node.output_shapes, node.output_dtypes

    def constant(value: Any, dtype: Any = np.float32) -> str:
        return ctx.make_const(utils.make_name(name), np.array(value, dtype)).output[0]

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        return ctx.make_node(op, list(inputs), attr=attributes, name=utils.make_name(name)).output[0]

    shape = add("Shape", features)
    sides = add("Gather", shape, constant([1, 2], np.int64), axis=0)
    extent = add("Sub", add("Cast", sides, to=TensorProto.FLOAT), constant(1.0))
    low = add("Mul", add("Gather", boxes, constant([0, 1], np.int64), axis=1), extent)
    high = add("Mul", add("Gather", boxes, constant([2, 3], np.int64), axis=1), extent)
    step = add("Div", add("Sub", high, low), constant([max(height - 1, 1), max(width - 1, 1)]))
    # A single sample is moved from the first side to the middle, by half of the step, and has a bin without extent.
    is_single = constant([float(size == 1) for size in (height, width)])
    moved = add("Add", low, add("Mul", step, add("Mul", is_single, constant(0.5))))
    step = add("Mul", step, add("Sub", constant(1.0), is_single))
    start = add("Add", add("Sub", moved, add("Mul", step, constant(0.5))), constant(0.5))
    end = add("Add", start, add("Mul", step, constant([height, width])))
    rois = add("Gather", add("Concat", start, end, axis=1), constant([1, 0, 3, 2], np.int64), axis=1)  # x before y
    crops = add(
        "RoiAlign",
        add("Transpose", features, perm=[0, 3, 1, 2]),
        rois,
        add("Cast", image_indices, to=TensorProto.INT64),
        coordinate_transformation_mode="half_pixel",
        output_height=height,
        output_width=width,
        sampling_ratio=1,
        spatial_scale=1.0,
        mode="avg",
    )
    outputs = node.output
    ctx.remove_node(node.name)
    ctx.make_node(
        "Transpose", [crops], attr={"perm": [0, 2, 3, 1]}, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses tf2onnx's messages; what it could not convert is found in its result."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
