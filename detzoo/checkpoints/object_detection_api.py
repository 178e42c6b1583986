"""Finds each variable of a detector in the object-based (TensorFlow 2) checkpoints of the Object Detection API.

``_RULES`` pairs two sequences of layers: the layers of a part of detzoo's detector, in the order of creation, and the
layers with variables of one object of the graph (a Keras model or a list). The n-th layers of both belong together, and
their variables are matched by name.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from detzoo.checkpoints.object_graph import ROOT, SLASH, ObjectGraph

MODEL = "model"  # the detector, below the root
CLASSIFIER_WALK = "feature_extractor"  # below the root of a checkpoint for fine_tune_checkpoint_type "classification"
_ONE_STAGE, _TWO_STAGE = "_feature_extractor", "_feature_extractor_for_proposal_features"
_AFTER_CROP = "_feature_extractor_for_box_classifier_features"
_MASK_RCNN_HEAD, _RFCN_HEAD = "_mask_rcnn_box_predictor", "_rfcn_box_predictor"
# A classifier's last layers and a random generator's state, which a detector stores but never uses.
_NEVER_USED = re.compile(r"(^|/)(classification_backbone|_base_model|_self_supervised_rng)/")
_BIFPN_NODE = r"neck/bifpn_(?P<row>coarse|\d+_down|\d+_up)_(?P<level>\d+)"
_DEPTHWISE_KERNEL = "depthwise_kernel"  # in Keras 3 the "kernel" of a depthwise convolution


class _Kind(enum.Enum):
    """The layers of an object that a rule pairs."""

    ALL = enum.auto()
    NORM = enum.auto()  # batch normalisations
    REST = enum.auto()  # all others


@dataclasses.dataclass(frozen=True)
class _Rule:
    """Layers of detzoo, by the pattern of their paths, and possible walks from the stored model to their twins.

    A walk is a template with fields such as ``{from_finest}``, see ``_places``.
    """

    pattern: str
    walks: tuple[str, ...]
    kind: _Kind = _Kind.ALL


def _rules() -> list[_Rule]:
    generator = "fpn_features_generator"
    one, two, heads = _ONE_STAGE, _TWO_STAGE, "_box_predictor/_prediction_heads"
    # CenterNet's.
    hourglass, stack = r"backbone/(?P<attributes>\w+(\.\w+)+)", r"(?P<head>[\w-]+)\.(?P<stack>\d+)\.\w+"
    classes = "class_predictions_with_background"
    rules = [
        _Rule(hourglass, (f"{one}/_network/{{attributes}}",)),
        _Rule(r"mask_net/project_out", ("_mask_net/project_out",)),
        _Rule(r"mask_net/resnet_.*", ("_mask_net/_net/model",)),
        _Rule(r"mask_net/(?P<attributes>\w+(\.\w+)*)", ("_mask_net/_net/{attributes}",)),
        _Rule(rf"head/{stack}", ("_prediction_head_dict/{head}/{stack}",)),
        _Rule(r"neck/center_.*", (f"{one}/_feature_extractor_model", f"{one}/_network")),
        _Rule(
            r"backbone/.*",
            (
                *(f"{one}/{name}" for name in ("_efficientnet", "classification_backbone", "_base_model")),
                f"{two}/classification_backbone",
                two,
            ),
        ),
        _Rule(r"box_backbone/.*", (_AFTER_CROP,)),
        _Rule(r"neck/extra_(?P<level>\d+)_.*", (f"{one}/feature_map_generator/convolutions/{{from_finest}}",)),
        _Rule(
            r"neck/fpn_lateral_(?P<level>\d+)", (f"{one}/_{generator}/{{lateral}}", f"{two}/{generator}/{{lateral}}")
        ),
        _Rule(
            r"neck/fpn_smooth_(?P<level>\d+)_.*",
            (f"{one}/_{generator}/conv_layers/{{from_top}}", f"{two}/{generator}/conv_layers/{{from_top}}"),
        ),
        _Rule(
            r"neck/fpn_coarse_(?P<level>\d+)_.*",
            (f"{one}/_coarse_feature_layers/{{above_top}}", f"{two}/coarse_feature_layers/{{above_top}}"),
        ),
        _Rule(rf"{_BIFPN_NODE}_lateral_.*", (f"{one}/_bifpn_stage/node_input_blocks/{{node}}/0/1",)),
        _Rule(rf"{_BIFPN_NODE}_sum", (f"{one}/_bifpn_stage/node_combine_op/{{node}}",)),
        _Rule(_BIFPN_NODE + "_(separable|batch_norm)", (f"{one}/_bifpn_stage/node_post_combine_block/{{node}}",)),
        _Rule(r"head/head_(?P<level>\d+)_shared_.*", ("_box_predictor/_shared_nets/{from_finest}",)),
        _Rule(
            r"head/box_predictor_(?P<level>\d+)(_.*)?", (f"{heads}/box_encodings/{{from_finest}}/_box_encoder_layers",)
        ),
        _Rule(
            r"head/class_predictor_(?P<level>\d+)(_.*)?",
            (f"{heads}/{classes}/{{from_finest}}/_class_predictor_layers",),
        ),
        _Rule(r"head/box_predictor", ("_box_predictor/_box_prediction_head/_box_encoder_layers",)),
        _Rule(r"head/class_predictor", (f"{heads}/{classes}/_class_predictor_layers",)),
        _Rule(r"rpn/conv", ("_first_stage_box_predictor_first_conv",), _Kind.REST),
        _Rule(r"rpn/conv_.*batch_norm", ("_first_stage_box_predictor_first_conv",), _Kind.NORM),
        _Rule(r"mask_head/.*", (f"{_MASK_RCNN_HEAD}/_third_stage_heads/mask_predictions/_mask_predictor_layers",)),
        _Rule(r"box_head/box_predictor", (f"{_MASK_RCNN_HEAD}/_box_prediction_head/_box_encoder_layers",)),
        _Rule(r"box_head/class_predictor", (f"{_MASK_RCNN_HEAD}/_class_prediction_head/_class_predictor_layers",)),
        _Rule(r"box_head/reduce_.*", (f"{_RFCN_HEAD}/_shared_conv_layers",)),
        _Rule(r"box_head/box_maps_.*", (f"{_RFCN_HEAD}/_box_encoder_layers",)),
        _Rule(r"box_head/class_maps_.*", (f"{_RFCN_HEAD}/_class_predictor_layers",)),
    ]
    for ours, theirs, head in (
        ("tower", "PredictionTower", "box_encodings"),
        ("box_tower", "BoxPredictionTower", "box_encodings"),
        ("class_tower", "ClassPredictionTower", classes),
    ):
        rules += [
            _Rule(rf"head/{ours}_\d+", (f"_box_predictor/_head_scope_conv_layers/{theirs}",)),
            _Rule(
                rf"head/{ours}_\d+_level_(?P<level>\d+)_batch_norm",
                (f"_box_predictor/_base_tower_layers_for_heads/{head}/{{from_finest}}",),
                _Kind.NORM,
            ),
        ]
    for ours, theirs in (
        ("box_predictor", "box_encodings/{from_finest}/_box_encoder_layers"),
        ("objectness_predictor", f"{classes}/{{from_finest}}/_class_predictor_layers"),
    ):
        rules.append(
            _Rule(rf"rpn/{ours}(_(?P<level>\d+))?", (f"_first_stage_box_predictor/_prediction_heads/{theirs}",))
        )
    return rules


_RULES = _rules()


@dataclasses.dataclass(frozen=True)
class Match:
    """The tensors of a checkpoint for a detector."""

    keys: dict[str, str]  # path of a variable of the detector -> key of its tensor in the file
    unused: list[str]  # keys of unmatched tensors of the stored detector
    leftovers: list[str]  # keys of a classifier's layers and of a random generator, which no detector uses


def is_detector(graph: ObjectGraph) -> bool:
    """Returns True for the graph of one of the API's detectors."""
    return any(graph.find(f"{MODEL}/{part}") is not None for part in (_ONE_STAGE, _TWO_STAGE))


def describe(graph: ObjectGraph) -> str:
    """Describes the kind of the stored detector."""
    model = graph.find(MODEL)
    parts = graph.children(model) if model is not None else {}
    if _RFCN_HEAD in parts:
        return "an R-FCN"
    if _TWO_STAGE in parts:
        head = graph.find(f"{MODEL}/{_MASK_RCNN_HEAD}/_third_stage_heads/mask_predictions")
        return "a Faster R-CNN" if head is None else "a Mask R-CNN"
    if "_center_net_params" in parts or "_prediction_head_dict" in parts:
        return "a CenterNet"
    return "a one-stage detector" if _ONE_STAGE in parts else "no detector"


def match_detector(graph: ObjectGraph, paths: Iterable[str]) -> Match:
    """Finds the variables of a detector in a detector's checkpoint.

    Args:
        graph: Graph of a detector, see ``is_detector``.
        paths: Paths of all variables of the detector, in the order of creation.
    """
    model = graph.find(MODEL)
    if model is None:
        return Match({}, [], [])
    keys: dict[str, str] = {}
    for walks, kind, layers in _sequences(list(paths)):
        node = next(filter(None, (graph.find(walk, model) for walk in walks)), None)
        stored = graph.layers(node) if node is not None else []
        keys.update(_pair(layers, [layer for layer in stored if _is_of_kind(layer, kind)]))
    taken = set(keys.values())
    rest = [key for key in graph.keys_below(model) if key not in taken]
    leftovers = [key for key in rest if _NEVER_USED.search(key)]
    return Match(keys, [key for key in rest if key not in leftovers], leftovers)


def find_classifier(graph: ObjectGraph) -> int | None:
    """Returns the node of the network in a checkpoint for ``fine_tune_checkpoint_type: "classification"``, or None."""
    for walk in (CLASSIFIER_WALK, MODEL, ""):
        node = graph.find(walk)
        if node is not None and graph.layers(node):
            return node
    return None


def match_classifier(graph: ObjectGraph, node: int, paths: Iterable[str]) -> Match:
    """Finds the variables of a backbone, and of its part after the crop, in a classification network.

    Args:
        graph: Graph of the checkpoint.
        node: Node from ``find_classifier``.
        paths: Paths of all variables of the detector, in the order of creation.
    """
    parts = [path for part in ("backbone", "box_backbone") for path in paths if path.startswith(f"{part}/")]
    keys = dict(_pair(_layers_of(parts), graph.layers(node)))
    taken = set(keys.values())
    return Match(keys, [], [key for key in graph.keys_below(node) if key not in taken])


def step_key(graph: ObjectGraph) -> str:
    """Returns the key of the number of finished training steps, "" if it is not stored."""
    node = graph.find("step", ROOT)
    return graph.key(node) if node is not None else ""


_Layer = tuple[str, list[str]]  # path of a layer, names of its variables


def _layers_of(paths: Iterable[str]) -> list[_Layer]:
    layers: dict[str, list[str]] = {}
    for path in paths:
        owner, _, name = path.rpartition("/")
        layers.setdefault(owner, []).append(name)
    return list(layers.items())


def _sequences(paths: Sequence[str]) -> list[tuple[tuple[str, ...], _Kind, list[_Layer]]]:
    """Groups the layers of a detector into sequences, each with the walks to its twin."""
    layers = _layers_of(paths)
    fill_in = _places([owner for owner, _ in layers])
    sequences: dict[tuple[tuple[str, ...], _Kind], list[_Layer]] = {}
    for layer in layers:
        for rule in _RULES:
            match = re.fullmatch(rule.pattern, layer[0])
            if match:
                walks = tuple(fill_in(walk, match.groupdict()) for walk in rule.walks)
                sequences.setdefault((walks, rule.kind), []).append(layer)
                break
    return [(walks, kind, members) for (walks, kind), members in sequences.items()]


def _places(owners: Sequence[str]) -> Callable[[str, Mapping[str, str | None]], str]:
    """Returns a function that fills the index of a pyramid level into a walk.

    The API's lists count from the finest level of a head upwards, from the coarsest level of the backbone downwards for
    top-down layers, and from there upwards for added levels.
    """
    predicted = levels_in(r"(?:head|rpn)/(?:box_predictor|objectness_predictor)_(\d+).*", owners) + levels_in(
        r"head/.*_level_(\d+)_.*", owners
    )
    pyramid = levels_in(r"neck/fpn_lateral_(\d+)", owners)
    finest, top = min(predicted, default=0), max(pyramid, default=0)
    node_of = _bifpn_nodes(owners)

    def fill_in(walk: str, groups: Mapping[str, str | None]) -> str:
        level = int(groups.get("level") or finest)
        below_top = top - 1 - level
        return walk.format(
            from_finest=level - finest,
            from_top=below_top,
            above_top=level - top - 1,
            lateral="top_layers" if level == top else f"residual_blocks/{below_top}",
            node=node_of(groups["row"] or "", level) if "row" in groups else "",
            attributes=(groups.get("attributes") or "").replace(".", "/"),
            head=(groups.get("head") or "").replace("-", SLASH),
            stack=groups.get("stack"),
        )

    return fill_in


def _bifpn_nodes(owners: Sequence[str]) -> Callable[[str, int], int]:
    """Returns a function that numbers the nodes of a bidirectional pyramid, by row and level, in the API's order.

    The levels above the backbone's come first, upwards, then the top-down and the bottom-up pass of every iteration.
    """
    down = levels_in(r"neck/bifpn_1_down_(\d+)_sum", owners)
    added = levels_in(r"neck/bifpn_coarse_(\d+)_lateral_.*", owners)
    finest, coarsest = min(down, default=0), max(down, default=0) + 1
    first_added = min(added, default=coarsest + 1)

    def node_of(row: str, level: int) -> int:
        if row == "coarse":
            return level - first_added
        iteration, _, direction = row.partition("_")
        steps = coarsest - finest
        place = coarsest - 1 - level if direction == "down" else steps + level - finest - 1
        return coarsest + 1 - first_added + 2 * steps * (int(iteration) - 1) + place

    return node_of


def levels_in(pattern: str, owners: Iterable[str]) -> list[int]:
    """Returns the level in each path of a layer that matches a pattern with one group."""
    matches = (re.fullmatch(pattern, owner) for owner in owners)
    return [int(match[1]) for match in matches if match]


def _is_of_kind(layer: Mapping[str, str], kind: _Kind) -> bool:
    return kind is _Kind.ALL or ("moving_mean" in layer) == (kind is _Kind.NORM)


def _pair(layers: Sequence[_Layer], stored: Sequence[Mapping[str, str]]) -> Iterable[tuple[str, str]]:
    """Yields (path, key) of each variable that the n-th layers of both sequences have."""
    for (owner, names), variables in zip(layers, stored, strict=False):
        for name in names:
            stored_name = name if name in variables or name != "kernel" else _DEPTHWISE_KERNEL
            if stored_name in variables:
                yield f"{owner}/{name}", variables[stored_name]
