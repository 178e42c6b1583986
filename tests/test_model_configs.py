"""Every file of model_configs/: its header, parsed and checked, built, and stepped once on small images.

Building and stepping all of them takes six minutes of one core, most of it for the deepest networks, and is the full
sweep that ``--all`` asks for. By default ``STEPPED`` are stepped, one of each kind of detector, and ``COUNTED`` are
built and counted; every backbone is tested in ``tests/features/test_backbones.py``. ``BUILT_ONLY`` lists the configs
that no run steps, because other configs step their backbone and their head.
"""

from __future__ import annotations

import math
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.detector import build_detector
from detzoo.builders.optimizer import build_optimizer
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.config.stages import has_second_stage, predicts_masks
from detzoo.config.support import REGION_EXTRACTORS, lookup_ssd_extractor
from detzoo.contracts import Groundtruth, Proposals
from detzoo.detectors.segmentation_proposals import SegmentationProposals
from detzoo.detectors.two_stage import TwoStageDetector
from detzoo.features.efficientnet import efficientnet
from detzoo.features.network import symbolic
from detzoo.tasks.count_models import stand_in_keypoints

FOLDER = pathlib.Path(__file__).parents[1] / "model_configs"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.config"))
HEIGHT, WIDTH = 64, 96  # pixels
SMALL_IMAGES = {
    "fixed_shape_resizer": [f"fixed_shape_resizer.height={HEIGHT}", f"fixed_shape_resizer.width={WIDTH}"],
    "keep_aspect_ratio_resizer": [
        f"keep_aspect_ratio_resizer.min_dimension={HEIGHT}",
        f"keep_aspect_ratio_resizer.max_dimension={WIDTH}",
    ],
}
FEW_REGIONS = ["first_stage_max_proposals=8", "first_stage_max_proposals_in_training=0", "second_stage_batch_size=8"]
GIVEN_REGIONS = [[[0.1, 0.2, 0.8, 0.7], [0.4, 0.4, 0.6, 0.65], [0.0, 0.0, 0.3, 0.3]]]  # for detectors of no first stage
# Frozen statistics of backbones of which Keras has no weights: as the headers say, these configs need a file of them.
NEEDS_WEIGHTS = {
    "faster_rcnn_inception_v2_600.config": "model.faster_rcnn.feature_extractor.batch_norm_trainable",
    "faster_rcnn_resnext101_32x8d_fpn_800.config": "model.faster_rcnn.feature_extractor.batch_norm_trainable",
    "retinanet_resnext101_32x8d_800.config": "model.ssd.freeze_batchnorm",
    "rfcn_inception_v2_600.config": "model.faster_rcnn.feature_extractor.batch_norm_trainable",
}
# Config -> those that step its backbone and its head.
# Config -> its only path to set besides those of records; the label map of the records names its keypoints.
TO_SET = {"centernet_resnet50_v1_fpn_512_keypoints.config": "model.center_net.keypoint_label_map_path"}
BUILT_ONLY = {
    f"{name}.config": {f"{other}.config" for other in others}
    for name, *others in (
        ("faster_rcnn_inception_resnet_v2_600_stride8", "faster_rcnn_inception_resnet_v2_600"),
        (
            "mask_rcnn_inception_resnet_v2_1024",
            "faster_rcnn_inception_resnet_v2_600",
            "mask_rcnn_resnet50_c4_800",
        ),
        ("rfcn_inception_resnet_v2_600", "faster_rcnn_inception_resnet_v2_600", "rfcn_mobilenet_v1_600"),
        ("faster_rcnn_resnet101_600_stride8", "faster_rcnn_resnet101_600"),
        ("faster_rcnn_resnet101_fpn_800", "faster_rcnn_resnet101_600", "faster_rcnn_resnet50_fpn_800"),
        ("faster_rcnn_resnet101_v1_640", "faster_rcnn_resnet101_600", "faster_rcnn_resnet50_v1_640"),
        ("faster_rcnn_resnet152_fpn_800", "retinanet_resnet152_800", "faster_rcnn_resnet50_fpn_800"),
        ("faster_rcnn_resnet152_v1_640", "retinanet_resnet152_800", "faster_rcnn_resnet50_v1_640"),
        ("fast_rcnn_resnet101_fpn_800", "faster_rcnn_resnet101_600", "fast_rcnn_resnet50_fpn_800"),
        ("faster_rcnn_resnet50_c4_600", "faster_rcnn_resnet50_c4_800"),
        ("faster_rcnn_resnet50_fpn_800_four_step", "faster_rcnn_resnet50_fpn_800"),
        ("rpn_resnet101_fpn_800", "faster_rcnn_resnet101_600", "rpn_resnet50_fpn_800"),
        ("retinanet_resnet101_400", "ssd_resnet101_300", "retinanet_resnet50_400"),
        ("ssd_resnet101_v1_fpn_640", "ssd_resnet101_300", "ssd_resnet50_v1_fpn_640"),
        ("ssd_resnet152_v1_fpn_640", "retinanet_resnet152_800", "ssd_resnet50_v1_fpn_640"),
        *((f"efficientdet_d{size}", "efficientdet_d0") for size in range(1, 8)),
        ("deepmac_hourglass104_512", "centernet_hourglass104_512"),  # tests/detectors step its masks
        ("centernet_resnet50_v1_fpn_512_keypoints", "centernet_resnet50_v1_fpn_512"),  # and its keypoints
        *(
            (f"segmentation_proposals_resnet50_{heads}", "segmentation_proposals_resnet50_both")
            for heads in ("5x5", "7x7", "both_28")
        ),
    )
}
# Backbone and what follows the crop of it are the whole classification network without its classifier, so these are
# table 2 of the trade-offs paper. Its 3,191,072 of MobileNet v1 are the 3,185,088 of the convolutions and 5,984 of the
# 4 * 10,944 numbers of batch normalisation, which are all counted here.
EXTRACTOR_PARAMETERS = {
    # fc6 and fc7 follow VGG's crop: (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096.
    "faster_rcnn_vgg16_600.config": 14_714_688 + 119_545_856,
    "faster_rcnn_mobilenet_v1_600.config": 3_228_864,
    # Inception v2: the first layer as in tests/features/test_parameters.py, and a gamma of each of the 9,952 channels.
    "faster_rcnn_inception_v2_600.config": 10_173_112 + 2 * 64 + 9_952,
    "faster_rcnn_inception_v3_600.config": 21_802_784,
    "faster_rcnn_inception_resnet_v2_600.config": 54_336_736,
    "faster_rcnn_resnet101_600.config": 42_605_504,
    "rfcn_inception_v2_600.config": 10_173_112 + 2 * 64 + 9_952,
    "rfcn_mobilenet_v1_600.config": 3_228_864,
    "rfcn_inception_resnet_v2_600.config": 54_336_736,
    "rfcn_resnet101_600.config": 42_605_504,
}
# torchvision publishes 41,755,286 for its Faster R-CNN of ResNet-50 and a pyramid with 90 classes. That number lacks
# the four numbers of each of the 26,560 normalized channels. It has one number of objectness for each of three
# anchors, while detzoo has two. And it includes background boxes.
_PYRAMID = 41_755_286 + 4 * 26_560 + 3 * (256 + 1) - 4 * (1024 + 1)
PARAMETERS = {
    "faster_rcnn_resnet50_fpn_800.config": _PYRAMID,
    # Mask R-CNN's head: four convolutions of 256, one more after enlarging, and a mask of each class.
    "mask_rcnn_resnet50_fpn_800.config": _PYRAMID + 5 * (9 * 256 + 1) * 256 + (9 * 256 + 1) * 90,
}
# Trainable parameters of EfficientDet, arXiv:1911.09070, table 2, in millions. D1 to D7 have fewer here, because what
# follows block 7a of the backbone is never read; the test adds it. D7 is D6 with larger images.
EFFICIENTDET_MILLIONS = {
    "efficientdet_d0.config": 3.9,
    "efficientdet_d1.config": 6.6,
    "efficientdet_d2.config": 8.1,
    "efficientdet_d3.config": 12.0,
    "efficientdet_d4.config": 20.7,
    "efficientdet_d5.config": 33.7,
    "efficientdet_d6.config": 51.9,
    "efficientdet_d7.config": 51.9,
}
UNREAD_BLOCK = re.compile(r"block7[b-z]_.*")
# Names that Keras makes up where a layer has none: they depend on what was built before in the process.
AUTOMATIC_NAME = re.compile(r"/(conv2d|depthwise_conv2d|separable_conv2d|grouped_conv2d|batch_normalization)(_\d+)?/")

# Classifiers and SPP-nets are made of other parts: tests/test_spp_configs.py and tests/detectors build and step them.
BUILT_HERE = [name for name in CONFIGS if not name.startswith(("spp_", "shapes_spp_"))]

# One config of each kind of detector (see ``kind_of``), the cheapest to build.
STEPPED = {
    "efficientdet_d0.config",
    "fast_rcnn_resnet50_c4_800.config",
    "fast_rcnn_resnet50_fpn_800.config",
    "faster_rcnn_mobilenet_v1_600.config",
    "faster_rcnn_resnet50_fpn_800.config",
    "mask_rcnn_resnet50_c4_800.config",
    "mask_rcnn_resnet50_fpn_800.config",
    "retinanet_resnet50_400.config",
    "rfcn_mobilenet_v1_600.config",
    "rpn_resnet50_c4_800.config",
    "rpn_resnet50_fpn_800.config",
    "segmentation_proposals_resnet50_both.config",
    "shapes_centernet_mobilenet_v2.config",
    "ssd_mobilenet_v2_300.config",
}
# Built by default for their number of parameters; without values if they are not stepped.
COUNTED = {*EXTRACTOR_PARAMETERS, *PARAMETERS}

_stepped: dict[bytes, str] = {}  # model block with small images -> the config that it was stepped for


def kind_of(model):
    """Returns the parts of a detector that a step runs through, except for the backbone."""
    family = model.WhichOneof("model")
    block = getattr(model, family)
    if family == "ssd":
        extractor = lookup_ssd_extractor(block.feature_extractor.type)
        return family, extractor.is_fpn, extractor.is_bifpn
    if family in ("segmentation_proposals", "center_net"):
        return (family,)
    is_fpn = REGION_EXTRACTORS[block.feature_extractor.type].is_fpn
    stages = (block.proposals_from_reader, has_second_stage(block), predicts_masks(block))
    return family, is_fpn, *stages, block.second_stage_box_predictor.HasField("rfcn_box_predictor")


def in_the_full_sweep(names, always):
    """Returns the names as parameters; those that are not in ``always`` need ``--all``."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.full_sweep) for name in names]


def small(name):
    """The config as it is, but for images of 64 x 96, few regions, and no download."""
    path = FOLDER / name
    model = load_pipeline(path).message.model
    block = f"model.{model.WhichOneof('model')}"
    kind = getattr(model, model.WhichOneof("model")).image_resizer.WhichOneof("image_resizer_oneof")
    overrides = [f"{block}.image_resizer.{override}" for override in SMALL_IMAGES[kind]]
    overrides.append(f"{block}.feature_extractor.pretrained_weights=")
    if model.HasField("faster_rcnn"):
        overrides += [f"{block}.{override}" for override in FEW_REGIONS]
        if model.faster_rcnn.fc_depth and name not in PARAMETERS:
            overrides.append(f"{block}.fc_depth=64")
    message = load_pipeline(path, overrides).message
    resizer = getattr(message.model, model.WhichOneof("model")).image_resizer
    if kind == "keep_aspect_ratio_resizer":
        resizer.keep_aspect_ratio_resizer.ClearField("training_min_dimensions")  # larger than the small images
    return message


def groundtruth(num_images, num_classes, shape):
    """One large and one small object in the first image, with masks; none in the second."""
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[0, :2] = [[0.1, 0.2, 0.9, 0.7], [0.4, 0.4, 0.6, 0.6]]
    everything = Groundtruth(
        boxes_norm=tf.constant(boxes),
        classes=tf.constant([[0, num_classes - 1, -1], [-1, -1, -1]]),
        weights=tf.constant([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        is_crowd=tf.zeros([2, 3], tf.bool),
        is_difficult=tf.zeros([2, 3], tf.bool),
        area_px=tf.zeros([2, 3]),
        masks=tf.ones([2, 3, *shape], tf.uint8),
    )
    return Groundtruth(*(field[:num_images] for field in everything))


def training_step(detector, optimizer):
    """Losses and gradients of one step on two images of noise (two stages and masks: on one), applied."""
    num_images, options = 2, {}
    shape = tuple(side or small_side for side, small_side in zip(detector.input_shape_px, (HEIGHT, WIDTH), strict=True))
    truth = groundtruth(2, detector.num_classes, shape)
    if isinstance(detector, (TwoStageDetector, SegmentationProposals)):
        num_images, truth = 1, groundtruth(1, detector.num_classes, shape)
        options["groundtruth"] = truth
        if getattr(detector, "wants_proposals", False):
            options["proposals"] = Proposals(tf.constant(GIVEN_REGIONS), tf.zeros([1, 3]), tf.constant([3]))
    images = np.random.default_rng(1).uniform(0, 255, (num_images, *shape, 3)).astype(np.float32)
    weights = detector.trainable_weights
    with tf.GradientTape() as tape:
        predictions = detector.forward(detector.preprocess(tf.constant(images)), training=True, **options)
        terms = detector.loss_terms(predictions, truth)
        losses = {name: term.total / tf.maximum(term.normalizer, 1.0) for name, term in terms.items()}
        losses["regularization"] = sum(detector.losses)
        value = sum(losses.values())
    gradients = tape.gradient(value, weights)
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return losses, gradients


def parts_of(model):
    """Returns the first parts of the paths of a detector's variables."""
    if model.HasField("ssd"):
        pools = model.ssd.feature_extractor.type.endswith("_ppn")  # without weights
        return {"backbone", "head"} | (set() if pools else {"neck"})
    if model.HasField("center_net"):
        neck = set() if model.center_net.feature_extractor.type.startswith("hourglass") else {"neck"}
        masks = {"mask_net"} if model.center_net.HasField("deepmac_mask_estimation") else set()
        return {"backbone", "head"} | neck | masks
    if model.HasField("segmentation_proposals"):
        return {"backbone", "neck", "head", "mask_head"}
    block = model.faster_rcnn
    extractor = REGION_EXTRACTORS[block.feature_extractor.type]
    parts = {"backbone"} | ({"neck"} if extractor.is_fpn else set())
    parts |= set() if block.proposals_from_reader else {"rpn"}
    # Position-sensitive maps, too, are made after the rest of the backbone.
    parts |= {"box_backbone", "box_head"} if has_second_stage(block) else set()
    return parts | ({"mask_head"} if predicts_masks(block) else set())


def losses_of(model):
    """Names of a detector's losses."""
    if model.HasField("ssd"):
        return {"localization", "classification", "regularization"}
    if model.HasField("segmentation_proposals"):
        return {"score", "mask", "regularization"}
    if model.HasField("center_net"):
        return {"object_center", "box/scale", "box/offset", "regularization"}
    block = model.faster_rcnn
    names = {"regularization"} | (set() if block.proposals_from_reader else {"rpn_localization", "rpn_objectness"})
    names |= {"localization", "classification"} if has_second_stage(block) else set()
    return names | ({"mask"} if predicts_masks(block) else set())


def count(detector, parts=None):
    """Parameters, the moving statistics included, of those variables whose path starts with one of ``parts``."""
    chosen = [weight for weight in detector.weights if parts is None or weight.path.split("/")[0] in parts]
    return sum(math.prod(weight.shape) for weight in chosen)


def trainable_millions(detector, ssd):
    """Trainable parameters of an EfficientDet and of the blocks of its backbone that no map comes after."""
    layers = efficientnet(lookup_ssd_extractor(ssd.feature_extractor.type).variant).graph.layers
    unread = [weight for layer in layers if UNREAD_BLOCK.fullmatch(layer.name) for weight in layer.trainable_weights]
    return round(sum(math.prod(weight.shape) for weight in [*detector.trainable_weights, *unread]) / 1e6, 1)


def test_there_are_configs():
    assert len(CONFIGS) >= 20


def test_headers_say_paper_command_hardware_and_result():
    missing = []
    for name in CONFIGS:
        header = (FOLDER / name).read_text().split("\n\n")[0]
        verb = "train_four_step" if name.endswith("_four_step.config") else "train"
        train = f"# Train: detzoo {verb} --pipeline_config_path model_configs/{name}"
        missing += [(name, line) for line in ("# Paper: ", train, "# Hardware: ") if line not in header]
        missing += [] if re.search(r"^# Result: \S", header, re.MULTILINE) else [(name, "# Result: ")]
    assert missing == []


def test_configs_have_no_problems_but_missing_files():
    found = {}
    for name in CONFIGS:
        problems = check_pipeline(load_pipeline(FOLDER / name), files=False)
        serious = [
            problem
            for problem in problems
            if problem.severity is not Severity.NOTE and problem.path != TO_SET.get(name)
        ]
        assert all("no weights are named" in problem.message for problem in serious), (name, serious)
        if serious:
            found[name] = [problem.path for problem in serious]
    assert found == {name: [path] for name, path in NEEDS_WEIGHTS.items()}


def test_every_kind_of_detector_is_stepped_by_default():
    kinds = {name: kind_of(load_pipeline(FOLDER / name).message.model) for name in BUILT_HERE}
    assert set(BUILT_HERE) >= STEPPED
    assert {kinds[name] for name in STEPPED} == set(kinds.values())
    assert not STEPPED & set(BUILT_ONLY)


@pytest.mark.usefixtures("quick_initializers")
@pytest.mark.parametrize("name", in_the_full_sweep(BUILT_HERE, STEPPED | COUNTED))
def test_config_builds_and_trains_a_step(name, request):
    config = small(name)
    is_stepped = name not in BUILT_ONLY and (name in STEPPED or request.config.getoption("--all"))
    key = config.model.SerializeToString(deterministic=True)
    if key in _stepped:  # differs in the size of its images, or in the number of its proposals only
        assert _stepped[key] in CONFIGS
        return
    _stepped[key] = name
    keras.utils.clear_session()
    # Without values what is not stepped; EfficientDets that are never stepped are large.
    is_symbolic = not is_stepped and (name in EFFICIENTDET_MILLIONS or not request.config.getoption("--all"))
    with stand_in_keypoints(config.model):
        detector = symbolic(lambda: build_detector(config.model)) if is_symbolic else build_detector(config.model)
    paths = [weight.path for weight in detector.weights]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} == parts_of(config.model)
    assert not [path for path in paths if AUTOMATIC_NAME.search(path)]
    assert count(detector, ("backbone", "box_backbone")) == EXTRACTOR_PARAMETERS.get(
        name, count(detector, ("backbone", "box_backbone"))
    )
    assert count(detector) == PARAMETERS.get(name, count(detector))
    if name in EFFICIENTDET_MILLIONS:
        assert trainable_millions(detector, config.model.ssd) == EFFICIENTDET_MILLIONS[name]
    if not is_stepped:
        return
    losses, gradients = training_step(detector, build_optimizer(config.train_config.optimizer))
    assert set(losses) == losses_of(config.model)
    # The Object Detection API regularizes neither the backbone of two stages nor, in some configs, their heads.
    may_be_zero = set() if config.model.HasField("ssd") else {"regularization"}
    assert all(np.isfinite(loss) and (loss > 0 or name in may_be_zero) for name, loss in losses.items())
    assert all(gradient is not None and np.all(np.isfinite(gradient)) for gradient in gradients)
    assert all(np.all(np.isfinite(weight)) for weight in detector.trainable_weights)


def test_what_is_only_built_is_stepped_in_another_config():
    assert set(BUILT_ONLY) | set().union(*BUILT_ONLY.values()) <= set(CONFIGS)
    assert not set(BUILT_ONLY) & set().union(*BUILT_ONLY.values())


@pytest.mark.parametrize(
    ("name", "thousands"),
    # Table 1 of the pyramid's paper. An image of COCO is 640 x 480 most often, thus 800 x 1067 pixels.
    [
        ("rpn_resnet50_c4_800.config", 47),
        ("rpn_resnet50_c5_800.config", 12),
        ("rpn_resnet50_fpn_800.config", 200),
        ("rpn_resnet50_fpn_bottom_up_800.config", 200),
        ("rpn_resnet50_fpn_no_lateral_800.config", 200),
        ("rpn_resnet50_fpn_finest_level_800.config", 750),
    ],
)
def test_proposal_networks_have_as_many_anchors_as_in_the_paper(name, thousands):
    model = load_pipeline(FOLDER / name).message.model.faster_rcnn
    extractor = model.feature_extractor
    if not extractor.HasField("fpn"):
        strides = [extractor.first_stage_features_stride]
    elif extractor.fpn.finest_level_only:
        strides = [2**extractor.fpn.min_level]
    else:
        strides = [2**level for level in range(extractor.fpn.min_level, extractor.fpn.max_level + 1)]
    shape = (800, 1000)  # what the paper's numbers fit: 750k / 15 anchors are the cells of 4 x 4 pixels
    sizes = [(math.ceil(shape[0] / stride), math.ceil(shape[1] / stride)) for stride in strides]
    anchors = build_anchor_generator(model.first_stage_anchor_generator)(sizes, shape)
    assert round(len(anchors) / 1000) == thousands
    heights, widths = ((anchors[:, side + 2] - anchors[:, side]) * shape[side] for side in (0, 1))
    areas, ratios = np.sqrt(heights * widths), widths / heights
    np.testing.assert_allclose(np.unique(np.round(areas)), [32, 64, 128, 256, 512])
    np.testing.assert_allclose(np.unique(np.round(ratios, 2)), [0.5, 1, 2])
