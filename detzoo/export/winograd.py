"""3 x 3 convolutions by Winograd's minimal filtering, with a quarter to a half of the multiplications.

A step of an export for CPUs, whose library computes such convolutions directly (on a GPU, cuDNN chooses by itself).
With tiles of 4 x 4 outputs, F(4 x 4, 3 x 3), each tile takes 36 instead of 144 products per pair of channels. With
tiles of 2 x 2 outputs it takes 16 instead of 36:

    outputs = A^T [ (G filter G^T) * (B^T inputs B) ] A

The products are matrix products [tiles, C] times [C, K], one per point. Filters are transformed at export, so they take
four times the memory (nearly twice with small tiles).

Rounding errors are five times those of a direct convolution with large tiles, one and a half times with small ones.
Small tiles compute everything that the choice of regions for a second stage depends on: some of thousands of proposals
are so close that an error of 1e-5 changes which of them are kept. They also compute small maps, which mostly have many
channels: their filters take less memory.

References:
    Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308, sections 4.1 to 4.3; Barabasz
    et al., "Error analysis and improving the accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.export.freeze import add_constant, constant_behind
from detzoo.serving.frozen import FrozenGraph, node_of, outputs_of, reach
from detzoo.serving.given_regions import inputs_of

# Outputs of a tile per direction -> the points of the polynomials, in addition to infinity. With the usual points 0,
# +-1, +-2 the large tile has twice the rounding errors.
_POINTS = {2: (0, 1, -1), 4: (0, Fraction(7, 10), Fraction(-7, 10), Fraction(7, 5), Fraction(-7, 5))}
KERNEL = 3
SMALL_TILE, LARGE_TILE = sorted(_POINTS)

# By measurement: smaller convolutions lose more by moving tiles than they gain by fewer products.
MIN_CHANNELS = 64
MIN_PAIRS = 64 * 128  # of an input and an output channel
MIN_TILES = 64
MANY_CROPS = 300  # assumed if the graph does not determine the number of crops of an image for a second stage
# Of the transformed inputs of a convolution: larger ones lose more by memory access than they gain by fewer products.
MAX_SPECTRUM_BYTES = 256 * 2**20

PRODUCT = "winograd_product"  # name of the products, which the count of multiply-adds looks for
_SCOPE = "winograd"


class _Transforms(NamedTuple):
    """The matrices of F(m x m, 3 x 3) in one direction, with n = m + 2 points."""

    inputs: np.ndarray  # B^T [n, n]
    filter: np.ndarray  # G [n, 3]
    outputs: np.ndarray  # A^T [m, n]


@functools.cache
def transforms(tile: int) -> _Transforms:
    """Constructs the matrices by Toom and Cook: evaluate polynomials at the points, multiply, interpolate."""
    points = _POINTS[tile]
    at_infinity = [Fraction(0)] * (KERNEL - 1) + [Fraction(1)]
    rows_of_filter, rows_of_inputs = [], []
    for point in points:
        others = [other for other in points if other != point]
        weight = math.prod((point - other for other in others), start=Fraction(1))
        rows_of_filter.append([point**power / weight for power in range(KERNEL)])
        rows_of_inputs.append([*_polynomial(others), Fraction(0)])
    columns_of_outputs = [[point**power for power in range(tile)] for point in points]
    columns_of_outputs.append([Fraction(0)] * (tile - 1) + [Fraction(1)])
    return _Transforms(
        np.array([*rows_of_inputs, _polynomial(points)], np.float64),
        np.array([*rows_of_filter, at_infinity], np.float64),
        np.array(columns_of_outputs, np.float64).T,
    )


def _polynomial(roots: Sequence[int | Fraction]) -> list[Fraction]:
    """Returns the coefficients, lowest first, of the polynomial with these roots and a leading 1."""
    coefficients = [Fraction(1)]
    for root in roots:
        higher = [Fraction(0), *coefficients]
        coefficients = [above - root * below for above, below in zip(higher, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


class _Candidate(NamedTuple):
    """A convolution that could be replaced."""

    name: str
    source: str  # tensor name of its input
    filter_name: str  # node of its filter, a constant
    channels: tuple[int, int]  # of the input and of the output


def use_winograd(frozen: FrozenGraph, example: Tensor, chooses_regions: bool = False) -> tuple[FrozenGraph, int]:
    """Replaces the convolutions that become faster for the ``example``, an input of a typical size.

    Large tiles are used for crops only if the detector has two stages (``chooses_regions``).

    Returns:
        A graph with the same results up to rounding, and the number of replaced convolutions.
    """
    candidates = _candidates(frozen.graph_def)
    shapes = _shapes_for(frozen, candidates, example)
    static_sizes = {name: shape[1:3] for name, shape in _static_shapes(frozen, candidates).items()}
    tiles = {
        name: LARGE_TILE
        if (_is_one_tile(size) or not chooses_regions) and _num_tiles(shapes[name], LARGE_TILE) >= MIN_TILES
        else SMALL_TILE
        for name, size in static_sizes.items()
    }
    chosen = [
        candidate
        for candidate in candidates
        if _num_tiles(shapes[candidate.name], tiles[candidate.name]) >= MIN_TILES
        and _spectrum_bytes(shapes[candidate.name], candidate.channels, tiles[candidate.name]) <= MAX_SPECTRUM_BYTES
    ]
    if not chosen:
        return frozen, 0
    nodes = {node.name: node for node in frozen.graph_def.node}
    result = tf.compat.v1.GraphDef(versions=frozen.graph_def.versions, library=frozen.graph_def.library)
    transformed: dict[str, tuple[str, int]] = {}
    for candidate in chosen:
        size, tile = static_sizes[candidate.name], tiles[candidate.name]
        name = f"{candidate.filter_name}/{_SCOPE}_filter_{tile}"
        transformed[name] = (candidate.filter_name, tile)
        _splice(result, candidate, name, size, tile)
        del nodes[candidate.name]
    # Filters are added last, and those that are no longer read not at all: they are most of the memory.
    sources = {node.name: [*map(node_of, node.input)] for node in (*nodes.values(), *result.node)}
    needed = reach(sources, map(node_of, (*frozen.input_names, *frozen.output_names.values())))
    result.node.extend(node for name, node in nodes.items() if name in needed)
    kernels = {node.name: node for node in frozen.graph_def.node if node.op == "Const"}
    for name, (filter_name, tile) in transformed.items():
        kernel = tf.make_ndarray(kernels[filter_name].attr["value"].tensor)
        add_constant(result, name, transform_filter(kernel, tile))
    return frozen._replace(graph_def=result), len(chosen)


def transform_filter(kernel: np.ndarray, tile: int) -> np.ndarray:
    """Returns G filter G^T of a filter [3, 3, C, K]: float32 [(tile + 2)**2, C, K], computed in double precision."""
    matrix = transforms(tile).filter
    transformed = np.einsum("pi,qj,ijck->pqck", matrix, matrix, kernel.astype(np.float64))
    return transformed.reshape(len(matrix) ** 2, *kernel.shape[2:]).astype(np.float32)


def convolve(inputs: Tensor, transformed_filter: Tensor, tile: int) -> Tensor:
    """Computes a 3 x 3 convolution of stride 1 with "same" padding.

    Args:
        inputs: float32 [B, H, W, C], C static; H and W may depend on the image.
        transformed_filter: float32 [(tile + 2)**2, C, K], from ``transform_filter``.
        tile: 2 or 4.

    Returns:
        float32 [B, H, W, K].
    """
    height, width, channels = inputs.shape[1:]
    filters, window = transformed_filter.shape[-1], tile + KERNEL - 1
    matrices = transforms(tile)
    forward = np.kron(matrices.inputs, matrices.inputs).astype(np.float32)
    back = np.kron(matrices.outputs, matrices.outputs).astype(np.float32)
    if _is_one_tile((height, width), tile):  # with padding around it: a crop of a two-stage detector
        inner = [row * window + column for row in range(1, height + 1) for column in range(1, width + 1)]
        points = tf.transpose(tf.reshape(inputs, [-1, height * width, channels]), [1, 0, 2])
        spectrum = tf.matmul(tf.constant(forward[:, inner]), tf.reshape(points, [height * width, -1]))
        outer = [row * tile + column for row in range(height) for column in range(width)]
        values = _products(spectrum, transformed_filter, tf.constant(back[outer]))
        values = tf.transpose(tf.reshape(values, [height * width, -1, filters]), [1, 0, 2])
        return tf.reshape(values, [-1, height, width, filters])
    shape = tf.shape(inputs)
    height, width = (shape[1] if height is None else height), (shape[2] if width is None else width)
    rows, columns = (height + tile - 1) // tile, (width + tile - 1) // tile
    padded_height, padded_width = tile * rows + 2, tile * columns + 2
    padding = [[0, 0], [1, padded_height - height - 1], [1, padded_width - width - 1], [0, 0]]
    points = tf.reshape(tf.pad(inputs, padding), [shape[0], padded_height * padded_width, channels])
    points = tf.reshape(tf.transpose(points, [1, 0, 2]), [padded_height * padded_width, -1])
    windows = tf.gather(points, _window_indices(rows, columns, padded_width, tile))
    spectrum = tf.matmul(tf.constant(forward), tf.reshape(windows, [window**2, -1]))
    values = _products(spectrum, transformed_filter, tf.constant(back))
    values = tf.reshape(values, [tile, tile, rows, columns, -1, filters])
    values = tf.transpose(values, [4, 2, 0, 3, 1, 5])  # image, tile's row, row in it, tile's column, column in it
    values = tf.reshape(values, [-1, tile * rows, tile * columns, filters])
    return values[:, :height, :width]


def _products(spectrum: Tensor, transformed_filter: Tensor, back: Tensor) -> Tensor:
    """Multiplies by the filter and transforms back: [points, tiles * C] to [outputs of a tile, tiles * K]."""
    num_points, channels, _ = transformed_filter.shape
    product = tf.matmul(tf.reshape(spectrum, [num_points, -1, channels]), transformed_filter, name=PRODUCT)
    return tf.matmul(back, tf.reshape(product, [num_points, -1]))


def _window_indices(rows: Any, columns: Any, padded_width: Any, tile: int) -> Tensor:
    """Returns the indices in the padded map of each point of each tile's window: int32 [points * tiles]."""
    inside = tf.range(tile + 2)[:, tf.newaxis] * padded_width + tf.range(tile + 2)
    tiles = tile * (tf.range(rows)[:, tf.newaxis] * padded_width + tf.range(columns))
    return tf.reshape(tf.reshape(inside, [-1, 1]) + tf.reshape(tiles, [1, -1]), [-1])


def _is_one_tile(size: Sequence[int | None], tile: int = LARGE_TILE) -> bool:
    return all(side is not None and side <= tile for side in size)


def _candidates(graph_def: Any) -> list[_Candidate]:
    """Finds 3 x 3 convolutions with stride 1, no dilation, "same" padding and a constant filter of many channels."""
    nodes = {node.name: node for node in graph_def.node}
    found = []
    for node in graph_def.node:
        if node.op != "Conv2D" or node.attr["padding"].s != b"SAME" or node.attr["data_format"].s not in (b"", b"NHWC"):
            continue
        if any(step != 1 for name in ("strides", "dilations") for step in node.attr[name].list.i):
            continue
        kernel = constant_behind(nodes, node.input[1])
        if kernel is None or kernel.attr["dtype"].type != tf.float32.as_datatype_enum:
            continue
        shape = [dim.size for dim in kernel.attr["value"].tensor.tensor_shape.dim]
        if shape[:2] == [3, 3] and min(shape[2:]) >= MIN_CHANNELS and math.prod(shape[2:]) >= MIN_PAIRS:
            found.append(_Candidate(node.name, node.input[0], kernel.name, tuple(shape[2:])))
    return found


def _static_shapes(
    frozen: FrozenGraph, candidates: list[_Candidate], given: Sequence[Tensor] | None = None
) -> dict[str, list[int | None]]:
    """Returns the shape of each convolution's output, for the inputs' shapes if given; None if it depends on them."""
    outputs = {candidate.name: f"{candidate.name}:0" for candidate in candidates}
    with tf.Graph().as_default() as graph:
        inputs = {
            name: tf.compat.v1.placeholder(value.dtype, value.shape)
            for name, value in zip(frozen.input_names, given or ())
        }
        tf.graph_util.import_graph_def(frozen.graph_def, input_map=inputs, name="")
    shapes = {name: graph.get_tensor_by_name(tensor).shape for name, tensor in outputs.items()}
    return {name: [None] * 4 if shape.rank is None else shape.as_list() for name, shape in shapes.items()}


def _shapes_for(frozen: FrozenGraph, candidates: list[_Candidate], example: Tensor) -> dict[str, Sequence[Any]]:
    """Returns the shape of each convolution's output for the example; the graph runs only for unknown ones."""
    given = inputs_of(example)
    shapes = _static_shapes(frozen, candidates, given)
    unknown = [name for name, shape in shapes.items() if None in shape[1:]]
    graph = frozen._replace(output_names={name: f"{name}:0" for name in unknown})

    def measure(*inputs: Tensor) -> dict[str, Tensor]:
        return {name: tf.shape(tensor) for name, tensor in outputs_of(graph, inputs).items()}

    measured = tf.function(measure, autograph=False)(*given) if unknown else {}
    known = {name: [MANY_CROPS if shape[0] is None else shape[0], *shape[1:]] for name, shape in shapes.items()}
    return {**known, **{name: shape.numpy().tolist() for name, shape in measured.items()}}


def _num_tiles(shape: Sequence[int], tile: int) -> int:
    images, height, width, _ = shape
    return images * -(-height // tile) * -(-width // tile)


def _spectrum_bytes(shape: Sequence[int], channels: tuple[int, int], tile: int) -> int:
    """Returns the float32 size of the transformed inputs or outputs, whichever is larger."""
    return 4 * _num_tiles(shape, tile) * (tile + KERNEL - 1) ** 2 * max(channels)


def _splice(graph_def: Any, candidate: _Candidate, filter_name: str, size: Sequence[int | None], tile: int) -> None:
    """Adds the operations of ``convolve`` to a graph in place of a convolution, under its name."""
    graph = tf.Graph()
    with graph.as_default(), tf.name_scope(f"{candidate.name}/{_SCOPE}"):
        inputs = tf.compat.v1.placeholder(tf.float32, [None, *size, candidate.channels[0]], name="inputs")
        kernel = tf.compat.v1.placeholder(tf.float32, [(tile + 2) ** 2, *candidate.channels], name="filter")
        outputs = convolve(inputs, kernel, tile)
    given = {inputs.op.name: candidate.source, kernel.op.name: filter_name, outputs.op.name: candidate.name}
    for node in graph.as_graph_def().node:
        if node.op == "Placeholder":
            continue
        for place, name in enumerate(node.input):
            if node_of(name) in given:
                node.input[place] = given[node_of(name)]
        if node.name == outputs.op.name:
            node.name = candidate.name
        graph_def.node.append(node)
