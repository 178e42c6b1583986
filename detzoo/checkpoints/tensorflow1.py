"""Finds each variable of a detector in the TensorFlow 1 checkpoints of the Object Detection API, by its name.

A variable there is called ``scope/layer/leaf``; normalizations are ``scope/layer/BatchNorm/leaf``. The tables pair the
layers of each part with detzoo's. Frozen graphs and SavedModels of TensorFlow 1 have constants with the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from detzoo.checkpoints.object_detection_api import levels_in

AVERAGE = "/ExponentialMovingAverage"  # suffix of the moving average of a variable
STEP = "global_step"

# Leaf of a variable -> names of detzoo's variable. A depthwise layer has one kernel, a separable one has two.
LEAVES: dict[str, tuple[str, ...]] = {
    "weights": ("kernel",),
    "depthwise_weights": ("depthwise_kernel", "kernel"),
    "pointwise_weights": ("pointwise_kernel",),
    "biases": ("bias",),
    **{name: (name,) for name in ("gamma", "beta", "moving_mean", "moving_variance")},
}

_OF_BACKBONE = r"(?:FeatureExtractor/|FirstStageFeatureExtractor/|SecondStageFeatureExtractor/|)"
_AFTER_CROP = "SecondStageFeatureExtractor/"


class _Table(NamedTuple):
    """Layers of the API, as patterns, and those of detzoo: templates of the pattern's groups and of ``_places``.

    ``{level}`` is the level of the map number ``map`` of the detector, ``{stage}`` is Keras's number of a ResNet block.
    """

    layers: Mapping[str, str]
    kernel: str = "{}"  # path of the layer with the kernel
    norm: str = "{}_batch_norm"  # path of its normalization


# Inception v2: the branches of a block, and of those with stride 2 (Mixed_4a and Mixed_5a).
_INCEPTION_V2_BRANCHES = {
    "Branch_0/Conv2d_0a_1x1": "pointwise",
    "Branch_1/Conv2d_0a_1x1": "single_reduce",
    "Branch_1/Conv2d_0b_3x3": "single_1",
    "Branch_2/Conv2d_0a_1x1": "double_reduce",
    "Branch_2/Conv2d_0b_3x3": "double_1",
    "Branch_2/Conv2d_0c_3x3": "double_2",
    "Branch_3/Conv2d_0b_1x1": "pooled",
}
_INCEPTION_V2_STRIDED_BRANCHES = {
    "Branch_0/Conv2d_0a_1x1": "single_reduce",
    "Branch_0/Conv2d_1a_3x3": "single_1",
    "Branch_1/Conv2d_0a_1x1": "double_reduce",
    "Branch_1/Conv2d_0b_3x3": "double_1",
    "Branch_1/Conv2d_1a_3x3": "double_2",
}
# The convolutions of keras.applications are numbered; these are the API's names in the same order.
_STEM = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]


def _branches(blocks: Iterable[str], *branches: str) -> list[str]:
    """Returns the names of the convolutions in blocks; a branch is a text such as "0a_1x1 0b_5x5"."""
    names = [f"Branch_{k}/Conv2d_{part}" for k, branch in enumerate(branches) for part in branch.split()]
    return [f"{block}/{name}" for block in blocks for name in names]


_INCEPTION_V3 = [
    *_STEM,
    *_branches(["Mixed_5b"], "0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    # Mixed_5c has two special names.
    "Mixed_5c/Branch_0/Conv2d_0a_1x1",
    "Mixed_5c/Branch_1/Conv2d_0b_1x1",
    "Mixed_5c/Branch_1/Conv_1_0c_5x5",
    *_branches(["Mixed_5c"], "", "", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    *_branches(["Mixed_5d"], "0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    *_branches(["Mixed_6a"], "1a_1x1", "0a_1x1 0b_3x3 1a_1x1"),
    *_branches(
        [f"Mixed_6{block}" for block in "bcde"],
        "0a_1x1",
        "0a_1x1 0b_1x7 0c_7x1",
        "0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7",
        "0b_1x1",
    ),
    *_branches(["Mixed_7a"], "0a_1x1 1a_3x3", "0a_1x1 0b_1x7 0c_7x1 1a_3x3"),
    *_branches(["Mixed_7b"], "0a_1x1", "0a_1x1 0b_1x3 0b_3x1", "0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1"),
    *_branches(["Mixed_7c"], "0a_1x1", "0a_1x1 0b_1x3 0c_3x1", "0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1"),
]
_INCEPTION_RESNET_V2 = [
    *_STEM,
    *_branches(["Mixed_5b"], "1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    *_branches([f"block35_{n}" for n in range(1, 11)], "1x1", "0a_1x1 0b_3x3", "0a_1x1 0b_3x3 0c_3x3"),
    *_branches(["Mixed_6a"], "1a_3x3", "0a_1x1 0b_3x3 1a_3x3"),
    *_branches([f"block17_{n}" for n in range(1, 21)], "1x1", "0a_1x1 0b_1x7 0c_7x1"),
    *_branches(["Mixed_7a"], "0a_1x1 1a_3x3", "0a_1x1 1a_3x3", "0a_1x1 0b_3x3 1a_3x3"),
    *_branches([*(f"block8_{n}" for n in range(1, 10)), "Block8"], "1x1", "0a_1x1 0b_1x3 0c_3x1"),
]

# MobileDet: kind of block -> detzoo's, and the layers in it.
_MOBILEDET_BLOCKS = {
    "IBN": ("ibn", {"Conv": "expand", "SeparableConv2d": "depthwise", "Conv_1": "project"}),
    "IBNNoExpansion": ("ibn_no_expansion", {"SeparableConv2d": "depthwise", "Conv": "project"}),
    "FusedConv": ("fused", {"Conv": "expand", "Conv_1": "project"}),
    "TuckerConv": ("tucker", {"Conv": "compress", "Conv_1": "core", "Conv_2": "project"}),
}
_MOBILEDET_GATES = {"SqueezeExcite/Conv": "squeeze_excite_conv", "SqueezeExcite/Conv_1": "squeeze_excite_conv_1"}
_MOBILENET_V3 = "(?:MobilenetV3|MobilenetEdgeTPU)"

_BACKBONES = (
    _Table(
        {
            "MobilenetV1/Conv2d_0": "conv1",
            r"MobilenetV1/Conv2d_(?P<n>\d+)_depthwise": "conv_dw_{n}",
            r"MobilenetV1/Conv2d_(?P<n>\d+)_pointwise": "conv_pw_{n}",
            "MobilenetV2/Conv_1": "Conv_1",
        },
        norm="{}_bn",
    ),
    _Table({"MobilenetV2/Conv": "Conv1"}, norm="bn_{}"),
    _Table(
        {
            r"MobilenetV2/expanded_conv/(?P<part>depthwise|project)": "expanded_conv_{part}",
            r"MobilenetV2/expanded_conv_(?P<n>\d+)/(?P<part>expand|depthwise|project)": "block_{n}_{part}",
        },
        norm="{}_BN",
    ),
    _Table(
        {
            rf"{_MOBILENET_V3}/Conv(?P<n>(?:_1)?)": "conv{n}",
            rf"{_MOBILENET_V3}/(?P<unit>expanded_conv(?:_\d+)?)/(?P<part>expand|depthwise|project)": "{unit}_{part}",
            rf"{_MOBILENET_V3}/(?P<unit>expanded_conv(?:_\d+)?)/squeeze_excite/Conv(?P<n>(?:_1)?)": (
                "{unit}_squeeze_excite_conv{n}"
            ),
            r"MobileDet\w+/Conv": "conv",
            **{
                rf"MobileDet\w+/{theirs}(?P<n>(?:_\d+)?)/{layer}": f"{ours}{{n}}_{part}"
                for theirs, (ours, layers) in _MOBILEDET_BLOCKS.items()
                for layer, part in {**layers, **_MOBILEDET_GATES}.items()
            },
        },
        norm="{}_bn",
    ),
    _Table({"InceptionV2/Conv2d_1a_7x7": "conv_1a"}, kernel="{}_separable"),
    _Table(
        {
            r"InceptionV2/Conv2d_(?P<n>2[bc])_\dx\d": "conv_{n}",
            **{
                rf"InceptionV2/Mixed_(?P<n>\d[b-e])/{theirs}": f"mixed_{{n}}_{ours}"
                for theirs, ours in _INCEPTION_V2_BRANCHES.items()
            },
            **{
                rf"InceptionV2/Mixed_(?P<n>\da)/{theirs}": f"mixed_{{n}}_{ours}"
                for theirs, ours in _INCEPTION_V2_STRIDED_BRANCHES.items()
            },
        },
        kernel="{}_conv",
    ),
    _Table(
        {
            r"resnet_v1_\d+/conv1": "conv1",
            r"resnet_v1_\d+/block(?P<block>\d)/unit_(?P<n>\d+)/bottleneck_v1/conv(?P<part>\d)": (
                "conv{stage}_block{n}_{part}"
            ),
            r"resnet_v1_\d+/block(?P<block>\d)/unit_(?P<n>\d+)/bottleneck_v1/shortcut": "conv{stage}_block{n}_0",
        },
        kernel="{}_conv",
        norm="{}_bn",
    ),
    _Table(
        {f"InceptionV3/{name}": str(number) for number, name in enumerate(_INCEPTION_V3)}, "conv_{}", "batch_norm_{}"
    ),
    _Table(
        {
            f"InceptionResnetV2/(?:Repeat(?:_\\d)?/)?{name}": str(number)
            for number, name in enumerate(_INCEPTION_RESNET_V2)
        },
        "conv_{}",
        "batch_norm_{}",
    ),
    _Table(
        {
            r"InceptionResnetV2/Repeat(?:_\d)?/(?P<n>block\d+_\d+)/Conv2d_1x1": "{n}_conv",
            "InceptionResnetV2/Block8/Conv2d_1x1": "block8_10_conv",
            "InceptionResnetV2/Conv2d_7b_1x1": "conv_7b",
            r"vgg_16/conv(?P<block>\d)/conv\d_(?P<n>\d)": "block{block}_conv{n}",
        },
        norm="{}_bn",
    ),
)
# The layers of NASNet's and PNASNet's cells have the API's names; their normalizations are separate layers.
_CELL = r"(?P<cell>(?:reduction_)?cell_\w+)/"
_SEARCHED = _Table(
    {
        r"(?P<layer>conv0|conv0_bn)": "{layer}",
        _CELL + r"(?P<layer>\w+)": "{cell}_{layer}",
        _CELL + r"comb_iter_(?P<n>\d)/(?P<side>left|right)/(?P<layer>\w+)": "{cell}_comb_iter_{n}_{side}_{layer}",
    },
    kernel="{}",
)
_EXTRA = r"FeatureExtractor/\w+/\w+_{}_Conv2d_(?P<map>\d+)_{}"
_FPN = r"FeatureExtractor/\w+/fpn/"
_MNASFPN = "FeatureExtractor/MnasFPN/"
_SHARED = "WeightSharedConvolutionalBoxPredictor/"
_SECOND = "SecondStageBoxPredictor/"
_PARTS = (
    _Table(
        {
            _EXTRA.format(1, r"1x1_\d+"): "neck/extra_{level}_reduce",
            _EXTRA.format(2, r"\dx\d_s\d_\d+"): "neck/extra_{level}",
        },
        kernel="{}_conv",
    ),
    _Table(
        {_EXTRA.format(2, r"\dx\d_s\d_\d+_depthwise"): "neck/extra_{level}_depthwise"},
        kernel="{}_depthwise",
    ),
    _Table(
        {
            _MNASFPN + "C6_Conv1x1": "neck/mnasfpn_6",
            _MNASFPN + r"cell_(?P<cell>\d)/block_(?P<node>\d)/SepConv": "neck/mnasfpn_{cell}_{node}",
            _MNASFPN + r"cell_(?P<cell>\d)/block_(?P<node>\d)/(?P<input>input_\d)/Conv1x1": (
                "neck/mnasfpn_{cell}_{node}_{input}"
            ),
        },
        kernel="{}_conv|{}_separable",
    ),
    _Table({_FPN + r"projection_(?P<from_finest>\d+)": "neck/fpn_lateral_{level}"}),
    _Table(
        {
            _FPN + r"smoothing_(?P<from_finest>\d+)": "neck/fpn_smooth_{level}",
            _FPN + r"bottom_up_\D+(?:2d_)?(?P<added>\d+)": "neck/fpn_coarse_{level}",
        },
        kernel="{}_conv|{}_separable",
    ),
    _Table(
        {
            r"BoxPredictor_(?P<map>\d+)/BoxEncodingPredictor": "head/box_predictor_{level}",
            r"BoxPredictor_(?P<map>\d+)/ClassPredictor": "head/class_predictor_{level}",
            _SHARED + "BoxPredictor": "head/box_predictor",
            _SHARED + "ClassPredictor": "head/class_predictor",
            "Conv": "rpn/conv",
            "FirstStageBoxPredictor/BoxEncodingPredictor": "rpn/box_predictor",
            "FirstStageBoxPredictor/ClassPredictor": "rpn/objectness_predictor",
            _SECOND + "BoxEncodingPredictor": "box_head/box_predictor",
            _SECOND + "ClassPredictor": "box_head/class_predictor",
        }
    ),
    _Table(
        {
            r"BoxPredictor_(?P<map>\d+)/BoxEncodingPredictor_depthwise": "head/box_predictor_{level}",
            r"BoxPredictor_(?P<map>\d+)/ClassPredictor_depthwise": "head/class_predictor_{level}",
        },
        kernel="{}_depthwise",
    ),
    _Table(
        {
            _SHARED + r"PredictionTower/conv2d_(?P<n>\d+)": "head/tower_{n}",
            _SHARED + r"BoxPredictionTower/conv2d_(?P<n>\d+)": "head/box_tower_{n}",
            _SHARED + r"ClassPredictionTower/conv2d_(?P<n>\d+)": "head/class_tower_{n}",
        },
        norm="{}_level_{level}_batch_norm",
    ),
    _Table(
        {
            _SECOND + "reduce_depth": "box_head/reduce",
            _SECOND + "refined_locations": "box_head/box_maps",
            _SECOND + "class_predictions": "box_head/class_maps",
        },
        kernel="{}_conv",
    ),
    _Table(
        {
            r"SelfAttentionBlock/fully_connected(?:_(?P<projection>[12]))?": "box_head/attention_image_{projection}",
            r"AttentionBlock(?P<head>\d+)_AttentionLayer(?P<layer>\d+)/fully_connected(?:_(?P<projection>[12]))?": (
                "box_head/attention_head_{head}_layer_{layer}_{projection}"
            ),
            r"fully_connected(?:_(?P<attention>\d+))?": "box_head/{attention}_output",
        }
    ),
    _Table({_SECOND + r"Conv(?:_(?P<mask_layer>\d+))?": "mask_head/{mask_layer}"}, kernel="{}_conv|{}"),
)
_ROWS = [
    (re.compile(scope + theirs), prefix + ours, table)
    for scope, prefix, tables in ((_OF_BACKBONE, "backbone/", (*_BACKBONES, _SEARCHED)), ("", "", _PARTS))
    for table in tables
    for theirs, ours in table.layers.items()
]
_NUMBERS = ("map", "from_finest", "added", "block", "mask_layer", "projection", "attention")
_PROJECTIONS = ("query", "key", "value")
_NORM = re.compile(r"/BatchNorm(?:/feature_(?P<map>\d+))?$")

# Reasons why a detector needs no value of a variable.
_NOT_WEIGHTS = (
    (re.compile(r"/(Momentum|RMSProp(_1)?|Adam(_1)?|Adagrad|Adadelta(_1)?|beta\d_power)$|^beta\d_power$"), "optimizer"),
    (
        re.compile(r"_quant/|/(min|max)$"),
        "ranges of quantization-aware training; `detzoo export --quantize int8` measures its own",
    ),
    (
        re.compile(
            r"/(Logits|AuxLogits|logits|predictions|fc\d)/|(^|/)(mean_rgb$|final_layer/|aux_\d+/)"
            r"|MobilenetV3/Conv_2/|MobilenetEdgeTPU/Conv_1/"
        ),
        "a classifier's last layers",
    ),
)
_AVERAGED = "moving averages, which eval_config.use_moving_averages: true takes instead of the variables"
_NOT_AVERAGED = "replaced by their moving averages"
_BEHIND_CROP = "the first stage's copy of the layers after the crop, which no output depends on"
_BEHIND_MAPS = "layers behind the last map that is read"

_KINDS = {
    re.compile(r"(Self)?AttentionBlock.*/"): "a Context R-CNN",
    re.compile("SecondStageBoxPredictor/refined_locations/"): "an R-FCN",
    re.compile("SecondStageBoxPredictor/Conv/"): "a Mask R-CNN",
    re.compile("FirstStageBoxPredictor/"): "a Faster R-CNN",
    re.compile(r"BoxPredictor_\d+/|WeightSharedConvolutionalBoxPredictor/"): "a one-stage detector",
}
_NETWORK = re.compile(r"(?:\w*FeatureExtractor/)?((?:Mobilenet|Inception|MobileDet|resnet_v|vgg_|cell_stem)\w*)/")


class Match(NamedTuple):
    """The tensors of a checkpoint for a detector.

    Attributes:
        keys: Path of a variable of the detector -> name of the tensor.
        unused: Names of tensors without a counterpart.
        leftovers: Names of tensors that no detector needs -> reason.
    """

    keys: dict[str, str]
    unused: list[str]
    leftovers: dict[str, str]


def describe(names: Collection[str]) -> str:
    """Describes the kind of the stored model."""
    network = next(filter(None, map(_NETWORK.match, names)), None)
    kind = next((kind for mark, kind in _KINDS.items() if any(map(mark.match, names))), "a classification network")
    name = re.sub("cell_stem.*", "NASNet", network[1]) if network else ""
    return f"{kind}{f' on {name}' if name else ''}, of TensorFlow 1"


def is_detector(names: Iterable[str]) -> bool:
    """Returns True for the variables of a detector."""
    return any(mark.match(name) for name in names for mark in _KINDS)


def is_classifier(names: Iterable[str]) -> bool:
    """Returns True for the variables of a classification network that a table has."""
    return any(map(_NETWORK.match, names))


def match_detector(names: Sequence[str], paths: Iterable[str], use_averages: bool = False) -> Match:
    """Finds the variables of a detector, or of its backbone, in a checkpoint.

    Args:
        names: Names of all tensors of the checkpoint.
        paths: Paths of all variables of the detector, in the order of creation.
        use_averages: Takes the moving average of a variable, if stored.
    """
    ours, known = list(paths), set(names)
    find = _finder(names, ours)
    keys: dict[str, str] = {}
    unused: list[str] = []
    leftovers: dict[str, str] = {}
    for name in names:
        plain = name.removesuffix(AVERAGE)
        if plain != name and not use_averages:
            leftovers[name] = _AVERAGED
        elif plain == name and use_averages and name + AVERAGE in known:
            leftovers[name] = _NOT_AVERAGED
        elif name == STEP:
            continue
        elif found := find(plain):
            keys.update(dict.fromkeys(found, name))
        elif reason := _reason(plain, known, ours):
            leftovers[name] = reason
        else:
            unused.append(name)
    return Match(keys, unused, leftovers)


def only_averages(names: Collection[str]) -> list[str]:
    """Returns the names of moving averages whose variables are not stored."""
    known = set(names)
    return [name for name in names if name.endswith(AVERAGE) and name.removesuffix(AVERAGE) not in known]


def _reason(name: str, known: Collection[str], ours: Sequence[str]) -> str:
    """Returns the reason why no variable of the detector needs a tensor, "" for none."""
    for pattern, reason in _NOT_WEIGHTS:
        if pattern.search(name):
            return reason
    if name.startswith("First") and name.replace("First", "Second", 1) in known:
        return _BEHIND_CROP
    if re.search(r"/MobilenetV1/Conv2d_1[23]_", name) and not any("/conv_pw_12/" in path for path in ours):
        return _BEHIND_MAPS
    return ""


def _finder(names: Iterable[str], paths: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns a function from the name of a tensor to the paths of the detector's variables that it is the value of."""
    known, fields_of = set(paths), _fields(names, paths)

    def find(name: str) -> list[str]:
        layer, _, leaf = name.rpartition("/")
        norm = _NORM.search(layer)
        layer = layer[: norm.start()] if norm else layer
        for pattern, template, table in _ROWS:
            match = pattern.fullmatch(layer)
            if match is None or leaf not in LEAVES:
                continue
            fields = fields_of(match.groupdict() | ({"map": norm["map"]} if norm and norm["map"] else {}))
            folder, _, last = template.rpartition("/")
            found = [
                f"{part}/{end.replace('{}', last).format(**fields)}/{variable}"
                for part in _parts(folder, layer)
                for end in (table.norm if norm else table.kernel).split("|")
                for variable in LEAVES[leaf]
            ]
            return [path for path in found if path in known]
        return []

    return find


def _parts(folder: str, layer: str) -> list[str]:
    """Returns the parts of the detector that a layer belongs to; a classifier's may be before or after the crop."""
    if folder != "backbone":
        return [folder]
    if layer.startswith(_AFTER_CROP):
        return ["box_backbone"]
    return ["backbone"] if "FeatureExtractor/" in layer else ["backbone", "box_backbone"]


def _fields(names: Iterable[str], paths: Sequence[str]) -> Callable[[Mapping[str, str | None]], dict[str, object]]:
    """Returns a function that computes the fields of the templates from the groups of a pattern."""
    owners = list(dict.fromkeys(path.rpartition("/")[0] for path in paths))
    laterals = levels_in(r"neck/fpn_lateral_(\d+)", owners)
    predicted = levels_in(r"head/(?:box_predictor|.*_level)_(\d+).*", owners)
    finest, top = min(laterals + predicted, default=0), max(laterals, default=0)
    added = sorted({int(match[1]) for name in names if (match := re.search(r"/bottom_up_\D+(?:2d_)?(\d+)/", name))})
    mask_layers = [owner.removeprefix("mask_head/") for owner in owners if owner.startswith("mask_head/")]
    mask_layers = [owner.removesuffix("_conv") for owner in mask_layers if not owner.endswith("_batch_norm")]

    outputs = [owner for owner in owners if owner.startswith("box_head/attention_") and owner.endswith("_output")]
    attentions = [owner.removeprefix("box_head/").removesuffix("_output") for owner in outputs]

    def compute(groups: Mapping[str, str | None]) -> dict[str, object]:
        numbers = {name: int(value or 0) for name, value in groups.items() if name in _NUMBERS}
        fields: dict[str, object] = dict(groups)
        if "map" in numbers:
            fields["level"] = finest + numbers["map"]
        if "from_finest" in numbers:
            fields["level"] = finest + numbers["from_finest"] - 1
        if "added" in numbers:
            fields["level"] = top + 1 + added.index(numbers["added"])
        if "block" in numbers:
            fields["stage"] = numbers["block"] + 1
        if "mask_layer" in numbers:
            fields["mask_layer"] = (mask_layers + [""] * 99)[numbers["mask_layer"]]
        if "projection" in numbers:
            fields["projection"] = _PROJECTIONS[numbers["projection"]]
        if "attention" in numbers:
            fields["attention"] = (attentions + [""] * 99)[numbers["attention"]]
        return fields

    return compute
