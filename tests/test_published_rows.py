"""Each row of the papers' result tables has its config, with the paper's result and the paper's training numbers.

The tables below were copied from the papers, not from the configs:

- Lin et al., arXiv:1612.03144 (FPN), tables 1 to 6, sections 5.1 and 5.2 and appendix A
- Lin et al., arXiv:1708.02002 (RetinaNet), tables 1e and 2 and section 4.1
- Huang et al., arXiv:1611.10012 (trade-offs), tables 3 and 5 and section 3.6
- He et al., arXiv:1406.4729 (SPP), tables 2, 3 and 9 to 12
"""

from __future__ import annotations

import math
import pathlib
import re

import pytest

from detzoo.benchmark.models import PAPERS, PublishedRow, natural, read_header
from detzoo.config.load import load_pipeline

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "model_configs"
HEADERS = {
    file.stem: read_header(file.read_text(encoding="utf-8"))
    for file in sorted(FOLDER.glob("*.config"), key=lambda file: natural(file.stem))
}


def fpn(table: int, letter: str = "", name: str = "") -> PublishedRow:
    return PublishedRow("fpn", table, letter, name)


def retinanet(table: int, letter: str, name: str) -> PublishedRow:
    return PublishedRow("retinanet", table, letter, name)


def tradeoffs(name: str, table: int = 3) -> PublishedRow:
    return PublishedRow("tradeoffs", table, "", name)


def spp(table: int, letter: str, name: str) -> PublishedRow:
    return PublishedRow("spp", table, letter, name)


# Row -> configs, and the numbers of the paper.
ROWS: dict[PublishedRow, tuple[str, str]] = {
    # AR@100, AR@1000, and that of small, medium and large objects.
    fpn(1, "a"): ("rpn_resnet50_c4_800", "36.1 48.3 32.0 58.7 62.2"),
    fpn(1, "b"): ("rpn_resnet50_c5_800", "36.3 44.9 25.3 55.5 64.2"),
    fpn(1, "c"): ("rpn_resnet50_fpn_800", "44.0 56.3 44.9 63.4 66.2"),
    fpn(1, "d"): ("rpn_resnet50_fpn_bottom_up_800", "37.4 49.5 30.5 59.9 68.0"),
    fpn(1, "e"): ("rpn_resnet50_fpn_no_lateral_800", "34.5 46.1 26.5 57.4 64.7"),
    fpn(1, "f"): ("rpn_resnet50_fpn_finest_level_800", "38.4 51.3 35.1 59.7 67.6"),
    # AP, AP@.50.
    fpn(2, "a"): ("fast_rcnn_resnet50_c4_800", "31.9 54.7"),
    fpn(2, "b"): ("fast_rcnn_resnet50_c5_800", "28.8 52.9"),
    fpn(2, "c"): ("fast_rcnn_resnet50_fpn_800", "33.9 56.9"),
    fpn(2, "d"): ("fast_rcnn_resnet50_fpn_bottom_up_800", "24.9 44.9"),
    fpn(2, "e"): ("fast_rcnn_resnet50_fpn_no_lateral_800", "31.3 54.0"),
    fpn(2, "f"): ("fast_rcnn_resnet50_fpn_finest_level_800", "33.4 56.3"),
    fpn(3, "*"): ("faster_rcnn_resnet50_c4_600", "26.3 47.3"),
    fpn(3, "a"): ("faster_rcnn_resnet50_c4_800", "31.6 53.1"),
    fpn(3, "b"): ("faster_rcnn_resnet50_c5_800", "28.0 51.7"),
    fpn(3, "c"): ("faster_rcnn_resnet50_fpn_800", "33.9 56.9"),
    # On test-dev, on test-std, and AP on minival (section 5.2.3).
    fpn(4): ("fast_rcnn_resnet101_fpn_800_long faster_rcnn_resnet101_fpn_800_long", "36.2 59.1 35.8 58.5 35.6"),
    fpn(5, "", "R-50 not shared"): ("faster_rcnn_resnet50_fpn_800", "33.9 56.9"),
    # AP, AP@.50, seconds on an M40 (section 5.2.2).
    fpn(5, "", "R-50 shared"): ("faster_rcnn_resnet50_fpn_800_four_step", "34.3 57.2 0.148"),
    fpn(5, "", "R-101 not shared"): ("fast_rcnn_resnet101_fpn_800 faster_rcnn_resnet101_fpn_800", "35.0 58.0"),
    fpn(5, "", "R-101 shared"): ("faster_rcnn_resnet101_fpn_800_four_step", "35.2 58.2 0.172"),
    # Mask AR@1000, of small, medium and large objects, seconds on an M40.
    fpn(6, "", "5x5 head"): ("segmentation_proposals_resnet50_5x5", "43.4 32.5 49.2 53.7 0.15"),
    fpn(6, "", "7x7 head"): ("segmentation_proposals_resnet50_7x7", "43.5 30.0 49.6 57.8 0.19"),
    fpn(6, "", "both heads"): ("segmentation_proposals_resnet50_both", "45.7 31.9 51.5 60.8 0.24"),
    fpn(6, "", "masks of 28 x 28"): ("segmentation_proposals_resnet50_both_28", "46.7 31.7 53.1 63.2 0.25"),
    fpn(6, "", "twice the training"): ("segmentation_proposals_resnet50_both_28_long", "48.1 32.6 54.2 65.6 0.25"),
    # AP, AP@.50, milliseconds on an M40.
    retinanet(1, "e", "R-50 at 400 pixels"): ("retinanet_resnet50_400", "30.5 47.8 64"),
    retinanet(1, "e", "R-50 at 500 pixels"): ("retinanet_resnet50_500", "32.5 50.9 72"),
    retinanet(1, "e", "R-50 at 600 pixels"): ("retinanet_resnet50_600", "34.3 53.2 98"),
    retinanet(1, "e", "R-50 at 700 pixels"): ("retinanet_resnet50_700", "35.1 54.2 121"),
    retinanet(1, "e", "R-50 at 800 pixels"): ("retinanet_resnet50_800", "35.7 55.0 153"),
    retinanet(1, "e", "R-101 at 400 pixels"): ("retinanet_resnet101_400", "31.9 49.5 81"),
    retinanet(1, "e", "R-101 at 500 pixels"): ("retinanet_resnet101_500", "34.4 53.1 90"),
    retinanet(1, "e", "R-101 at 600 pixels"): ("retinanet_resnet101_600", "36.0 55.2 122"),
    retinanet(1, "e", "R-101 at 700 pixels"): ("retinanet_resnet101_700", "37.1 56.6 154"),
    retinanet(1, "e", "R-101 at 800 pixels"): ("retinanet_resnet101_800", "37.8 198"),
    retinanet(2, "", "R-101"): ("retinanet_resnet101_800_jitter", "39.1 59.1"),
    retinanet(2, "", "ResNeXt-101"): ("retinanet_resnext101_32x8d_800", "40.8 61.1"),
    # mAP on minival and on test-dev.
    tradeoffs("SSD MobileNet"): ("ssd_mobilenet_v1_300", "19.3 18.8"),
    tradeoffs("SSD Inception v2"): ("ssd_inception_v2_300", "22 21.6"),
    tradeoffs("Faster R-CNN ResNet-101"): ("faster_rcnn_resnet101_600_proposals100", "32 31.9"),
    tradeoffs("R-FCN ResNet-101"): ("rfcn_resnet101_600", "30.4 30.3"),
    tradeoffs("Faster R-CNN Inception-ResNet v2"): ("faster_rcnn_inception_resnet_v2_600_stride8", "35.7 35.6"),
    # On a held-out part of val.
    tradeoffs("Inception-ResNet v2 at stride 16", table=5): ("faster_rcnn_inception_resnet_v2_600", "35.0"),
    # Top-1 and top-5 error of ten views, percent.
    spp(2, "a", "ZF-5"): ("spp_zf5_no_spp_imagenet", "35.99 14.76"),
    spp(2, "b", "ZF-5"): ("spp_zf5_single_size_imagenet", "34.98 14.14"),
    spp(2, "c", "ZF-5"): ("spp_zf5_multi_size_imagenet", "34.60 13.64"),
    spp(2, "a", "Convnet*-5"): ("spp_convnet5_no_spp_imagenet", "34.93 13.92"),
    spp(2, "b", "Convnet*-5"): ("spp_convnet5_single_size_imagenet", "34.38 13.54"),
    spp(2, "c", "Convnet*-5"): ("spp_convnet5_multi_size_imagenet", "33.94 13.33"),
    spp(2, "a", "Overfeat-5"): ("spp_overfeat5_no_spp_imagenet", "34.13 13.52"),
    spp(2, "b", "Overfeat-5"): ("spp_overfeat5_single_size_imagenet", "32.87 12.80"),
    spp(2, "c", "Overfeat-5"): ("spp_overfeat5_multi_size_imagenet", "32.26 12.33"),
    spp(2, "a", "Overfeat-7"): ("spp_overfeat7_no_spp_imagenet", "32.01 11.97"),
    spp(2, "b", "Overfeat-7"): ("spp_overfeat7_single_size_imagenet", "30.36 11.12"),
    spp(2, "c", "Overfeat-7"): ("spp_overfeat7_multi_size_imagenet", "29.68 10.95"),
    # Top-1 error of one crop and of the full image.
    spp(3, "", "ZF-5, single-size"): ("spp_zf5_single_size_imagenet", "38.01 37.55"),
    spp(3, "", "ZF-5, multi-size"): ("spp_zf5_multi_size_imagenet", "37.57 37.07"),
    spp(3, "", "Overfeat-7, single-size"): ("spp_overfeat7_single_size_imagenet", "33.18 32.72"),
    spp(3, "", "Overfeat-7, multi-size"): ("spp_overfeat7_multi_size_imagenet", "32.57 31.25"),
    # mAP of VOC 2007's test images; seconds of an image in all, and of its convolutions.
    **{
        spp(9, "", f"{scale}-scale {name}"): (f"spp_net_zf5_{scale}scale_{name.replace(' ', '_')}", f"{ap} {times}")
        for scale, times, aps in (
            (1, "0.142 0.053", (43.0, 42.5, 52.3, 54.5, "58.0")),
            (5, "0.382 0.293", (44.9, 44.8, 53.7, 55.2, "59.2")),
        )
        for name, ap in zip(("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb"), aps, strict=True)
    },
    spp(10, "", "1-scale ftfc7"): ("spp_net_zf5_1scale_ftfc7", "54.5"),
    spp(10, "", "5-scale ftfc7"): ("spp_net_zf5_5scale_ftfc7", "55.2"),
    spp(10, "", "1-scale ftfc7 bb"): ("spp_net_zf5_1scale_ftfc7_bb", "58.0"),
    spp(10, "", "5-scale ftfc7 bb"): ("spp_net_zf5_5scale_ftfc7_bb", "59.2"),
    spp(11, "", "SPP ftfc7 (ZF5)"): ("spp_net_zf5_5scale_ftfc7", "55.2"),
    spp(11, "", "SPP bb (ZF5)"): ("spp_net_zf5_5scale_ftfc7_bb", "59.2"),
    spp(12, "", "SPP-net (1)"): ("spp_net_zf5_5scale_ftfc7_bb", "59.2"),
    spp(12, "", "SPP-net (2)"): ("spp_net_zf5_5scale_ftfc7_bb_second", "59.1"),
    spp(12, "", "combination"): ("spp_net_zf5_5scale_ftfc7_bb_second", "60.9"),
}
# Name -> images per step, all steps, rates by first step (without the warm-up), shorter side in pixels.
RPN = (16, 40_000, {0: 0.02, 30_000: 0.002}, 800)
BOX = (16, 80_000, {0: 0.02, 60_000: 0.002}, 800)
BOX_LONG = (16, 160_000, {0: 0.02, 120_000: 0.002}, 800)
MASKS = (16, 80_000, {0: 0.03, 60_000: 0.003}, 800)
FOCAL = (16, 90_000, {0: 0.01, 60_000: 0.001, 80_000: 0.0001})
FOCAL_LONG = (16, 135_000, {0: 0.01, 90_000: 0.001, 120_000: 0.0001}, 800)
TRAINING: dict[str, tuple[int, int | None, dict[int, float], int]] = {
    **{row[0]: RPN for label, row in ROWS.items() if label[:2] == ("fpn", 1)},
    **{row[0]: BOX for label, row in ROWS.items() if label[:2] == ("fpn", 2)},
    **{f"faster_rcnn_resnet50_{name}_800": BOX for name in ("c4", "c5", "fpn")},
    **{f"{kind}_resnet101_fpn_800": BOX for kind in ("fast_rcnn", "faster_rcnn")},
    **{f"{kind}_resnet101_fpn_800_long": BOX_LONG for kind in ("fast_rcnn", "faster_rcnn")},
    **{f"faster_rcnn_resnet{depth}_fpn_800_four_step": BOX for depth in (50, 101)},
    "rpn_resnet101_fpn_800": RPN,
    **{f"segmentation_proposals_resnet50_{heads}": MASKS for heads in ("5x5", "7x7", "both")},
    # He et al., arXiv:1512.03385, appendix A.
    "faster_rcnn_resnet50_c4_600": (16, 320_000, {0: 0.001, 240_000: 0.0001}, 600),
    **{f"retinanet_resnet{depth}_{side}": (*FOCAL, side) for depth in (50, 101) for side in range(400, 900, 100)},
    "retinanet_resnet101_800_jitter": FOCAL_LONG,
    "retinanet_resnext101_32x8d_800": FOCAL_LONG,
}


def _tenths(rate: float, *steps: int) -> dict[int, float]:
    return {step: rate / 10**number for number, step in enumerate((0, *steps))}


# The trade-offs paper names rates and where they fall, not the last step.
TRAINING |= {
    **{
        f"faster_rcnn_{name}": (1, None, _tenths(rate, 900_000, 1_200_000), 600)
        for name, rate in {
            "vgg16_600": 5e-4,
            "resnet101_600": 3e-4,
            "resnet101_600_stride8": 3e-4,
            "resnet101_600_proposals50": 3e-4,
            "resnet101_600_proposals100": 3e-4,
            "inception_v2_600": 2e-4,
            "inception_v3_600": 3e-4,
            "inception_resnet_v2_600": 1e-3,
            "inception_resnet_v2_600_stride8": 1e-3,
            "mobilenet_v1_600": 3e-3,
        }.items()
    },
    "rfcn_resnet101_600": (1, None, _tenths(3e-4, 1_000_000, 1_200_000), 600),
    "rfcn_inception_v2_600": (1, None, _tenths(2e-4, 1_800_000, 2_000_000), 600),
    "rfcn_inception_resnet_v2_600": (1, None, _tenths(7e-4, 1_000_000, 1_200_000), 600),
    "rfcn_mobilenet_v1_600": (1, None, _tenths(2e-3, 1_600_000, 1_800_000), 600),
    # 0.8^2, then 0.8 of it, 10,000 steps each. ssd_vgg16_300 is the SSD paper's.
    "ssd_vgg16_600": (32, None, {0: 0.64 * 3e-3, 10_000: 0.8 * 3e-3, 20_000: 3e-3}, 600),
    "ssd_resnet101_300": (32, None, {0: 0.64 * 3e-4, 10_000: 0.8 * 3e-4, 20_000: 3e-4}, 300),
    "ssd_resnet101_600": (32, None, {0: 0.64 * 3e-4, 10_000: 0.8 * 3e-4, 20_000: 3e-4}, 600),
}
# Name -> the first rate; each falls to 0.95 every 800k steps.
DECAYING = {
    "ssd_mobilenet_v1_300": 0.004,
    "ssd_inception_v2_300": 0.002,
    "ssd_inception_resnet_v2_300": 0.0005,
    "ssd_inception_resnet_v2_600": 0.0005,
}


def configs_of(row: PublishedRow) -> list[str]:
    return ROWS[row][0].split()


def identify(value: object) -> str:
    return f"{value.paper}-{value.label}-{value.name}".strip("-") if isinstance(value, PublishedRow) else str(value)


def test_each_row_has_its_configs_and_each_config_its_rows():
    found: dict[PublishedRow, set[str]] = {}
    for name, header in HEADERS.items():
        for row in header.rows:
            found.setdefault(row, set()).add(name)
    assert found == {row: set(configs_of(row)) for row in ROWS}


def test_rows_in_headers_are_of_the_form_that_is_read():
    for name in HEADERS:
        head = (FOLDER / f"{name}.config").read_text(encoding="utf-8").split("\n\n")[0]
        written = re.findall(r"^# Row: (.*)", head, re.MULTILINE)
        assert sum(line.count(";") + 1 for line in written) == len(HEADERS[name].rows), name


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_the_paper_s_numbers_are_in_the_header(row):
    for name in configs_of(row):
        numbers = re.findall(r"\d+(?:\.\d+)?", HEADERS[name].result)
        for number in ROWS[row][1].split():
            assert number in numbers, f"{name}: {HEADERS[name].result}"


def rates_of(config) -> dict[int, float]:
    """Step -> rate of a schedule in steps; a warm-up's end counts as the start."""
    optimizer = getattr(config.optimizer, config.optimizer.WhichOneof("optimizer"))
    schedule = optimizer.learning_rate.manual_step_learning_rate
    rates = {0: schedule.initial_learning_rate} | {entry.step: entry.learning_rate for entry in schedule.schedule}
    if schedule.warmup:
        assert rates.pop(0) == pytest.approx(rates[500] / 10)
        rates = {0 if step == 500 else step: rate for step, rate in rates.items()}
    return rates


def shorter_side(model) -> int:
    resizer = getattr(model, model.WhichOneof("model")).image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        return resizer.fixed_shape_resizer.height
    return resizer.keep_aspect_ratio_resizer.min_dimension


@pytest.mark.parametrize("name", TRAINING)
def test_training_is_the_paper_s(name):
    message = load_pipeline(FOLDER / f"{name}.config").message
    batch_size, num_steps, rates, side = TRAINING[name]
    assert message.train_config.batch_size == batch_size
    assert num_steps is None or message.train_config.num_steps == num_steps
    assert rates_of(message.train_config) == {step: pytest.approx(rate) for step, rate in rates.items()}
    assert message.train_config.num_steps > max(rates)
    assert shorter_side(message.model) == side


@pytest.mark.parametrize("name", DECAYING)
def test_rates_of_ssd_decay_as_in_the_trade_offs_paper(name):
    message = load_pipeline(FOLDER / f"{name}.config").message
    config = message.train_config
    rates = config.optimizer.rms_prop_optimizer.learning_rate.exponential_decay_learning_rate
    assert (config.batch_size, rates.initial_learning_rate) == (32, pytest.approx(DECAYING[name]))
    assert (round(rates.decay_steps / 1e5), rates.decay_factor) == (8, pytest.approx(0.95))
    assert shorter_side(message.model) == int(name.rsplit("_", 1)[1])


# Section 3.6.1 of the trade-offs paper: side of the crop, and of the max pooling after it (1: none).
CROPS = {
    "vgg16": (14, 2),
    "resnet101": (14, 2),
    "inception_v2": (14, 1),
    "inception_v3": (17, 1),
    "inception_resnet_v2": (17, 1),
    "mobilenet_v1": (14, 1),
}
# Section 3.6.2: bins, side of the crop of the score maps, hard examples (0: all proposals).
SCORE_MAPS = {
    "resnet101": (7, 21, 128),
    "inception_v2": (3, 12, 128),
    "inception_resnet_v2": (7, 21, 0),
    "mobilenet_v1": (3, 12, 128),
}


def suppression(model):
    return model.second_stage_post_processing.batch_non_max_suppression


@pytest.mark.parametrize("extractor", CROPS)
def test_faster_rcnn_of_the_trade_offs_paper(extractor):
    model = load_pipeline(FOLDER / f"faster_rcnn_{extractor}_600.config").message.model.faster_rcnn
    assert (model.initial_crop_size, max(1, model.maxpool_kernel_size)) == CROPS[extractor]
    assert (model.first_stage_minibatch_size, model.second_stage_batch_size) == (256, 64)
    assert (model.first_stage_max_proposals, suppression(model).iou_threshold) == (300, pytest.approx(0.6))
    assert model.feature_extractor.first_stage_features_stride == 16
    assert not model.feature_extractor.batch_norm_trainable


@pytest.mark.parametrize("extractor", SCORE_MAPS)
def test_rfcn_of_the_trade_offs_paper(extractor):
    model = load_pipeline(FOLDER / f"rfcn_{extractor}_600.config").message.model.faster_rcnn
    maps = model.second_stage_box_predictor.rfcn_box_predictor
    hard = model.hard_example_miner.num_hard_examples if model.HasField("hard_example_miner") else 0
    assert (maps.num_spatial_bins_height, maps.crop_height, hard) == SCORE_MAPS[extractor]
    assert (maps.num_spatial_bins_width, maps.crop_width) == SCORE_MAPS[extractor][:2]
    assert hard or model.second_stage_batch_size == model.first_stage_max_proposals
    assert (model.first_stage_minibatch_size, model.first_stage_max_proposals) == (256, 300)
    assert suppression(model).iou_threshold == pytest.approx(0.6)


@pytest.mark.parametrize("name", [name for name in TRAINING if name.startswith("retinanet")])
def test_retinanet_of_its_paper(name):
    ssd = load_pipeline(FOLDER / f"{name}.config").message.model.ssd
    focal = ssd.loss.classification_loss.weighted_sigmoid_focal
    assert (focal.gamma, focal.alpha) == (2.0, 0.25)
    matcher = ssd.matcher.argmax_matcher
    assert (matcher.matched_threshold, matcher.unmatched_threshold) == (pytest.approx(0.5), pytest.approx(0.4))
    assert not matcher.force_match_for_each_row
    anchors = ssd.anchor_generator.multiscale_anchor_generator
    assert anchors.scales_per_octave * len(anchors.aspect_ratios) == 9
    assert anchors.anchor_scale * 2**anchors.min_level == 32  # pixels on P3
    assert (anchors.min_level, anchors.max_level) == (3, 7)
    tower = ssd.box_predictor.weight_shared_convolutional_box_predictor
    assert (tower.num_layers_before_predictor, tower.depth, tower.kernel_size) == (4, 256, 3)
    assert tower.class_prediction_bias_init == pytest.approx(-math.log((1 - 0.01) / 0.01), abs=1e-4)
    last = ssd.post_processing.batch_non_max_suppression
    assert (last.iou_threshold, last.score_threshold) == (pytest.approx(0.5), pytest.approx(0.05))


@pytest.mark.parametrize("name", [name for name in TRAINING if name.startswith(("rpn", "fast", "retinanet"))])
def test_momentum_and_weight_decay(name):
    message = load_pipeline(FOLDER / f"{name}.config").message
    momentum = message.train_config.optimizer.momentum_optimizer
    assert momentum.momentum_optimizer_value == pytest.approx(0.9)
    weights = set(re.findall(r"l2_regularizer \{\s*weight: ([\d.e-]+)|weight_decay: ([\d.e-]+)", str(message.model)))
    is_tradeoffs = any(row.paper == "tradeoffs" for row in HEADERS[name].rows) or message.train_config.batch_size == 1
    assert {float(one or other) for one, other in weights} == ({0.0} if is_tradeoffs else {0.0001})


@pytest.mark.parametrize("name", [name for name in TRAINING if name.startswith("fast") and TRAINING[name][3] == 800])
def test_regions_of_the_pyramid_s_paper(name):
    message = load_pipeline(FOLDER / f"{name}.config").message
    model = message.model.faster_rcnn
    assert model.second_stage_batch_size == 512
    if model.proposals_from_reader:
        readers = (message.train_input_reader, message.eval_input_reader[0])
        counts = tuple(reader.max_number_of_proposals for reader in readers)
    else:
        counts = (model.first_stage_max_proposals_in_training, model.first_stage_max_proposals)
        assert model.keep_anchors_outside_image
    assert counts == (2000, 1000)


@pytest.mark.parametrize("name", sorted(row[0] for label, row in ROWS.items() if label[:2] == ("spp", 9)))
def test_spp_net_of_its_paper(name):
    message = load_pipeline(FOLDER / f"{name}.config").message
    assert list(message.model.spp_net.scale) == ([688] if "1scale" in name else [480, 576, 688, 864, 1200])
    if "_ft" in name:  # section 4.1
        assert rates_of(message.train_config) == {0: pytest.approx(1e-4), 250_000: pytest.approx(1e-5)}
        assert message.train_config.num_steps == 300_000


def test_what_the_older_baseline_lacks():
    # Section 5.2.2 of FPN: what makes table 3a better than 3*.
    model = load_pipeline(FOLDER / "faster_rcnn_resnet50_c4_600.config").message.model.faster_rcnn
    assert model.second_stage_batch_size == 64
    assert model.first_stage_max_proposals == 300
    scales = model.first_stage_anchor_generator.grid_anchor_generator.scales
    assert [scale * 256 for scale in scales] == [64, 128, 256, 512]
    assert not model.keep_anchors_outside_image


def test_scale_jitter_belongs_to_table_2():
    for name, header in HEADERS.items():
        if not header.rows or header.rows[0].paper != "retinanet":
            continue
        message = load_pipeline(FOLDER / f"{name}.config").message
        sizes = message.model.ssd.image_resizer.keep_aspect_ratio_resizer.training_min_dimensions
        assert bool(sizes) == (header.rows[0].table == 2), name
        # "Horizontal image flipping as the only form of data augmentation unless otherwise noted", section 4.1.
        steps = [step.WhichOneof("preprocessing_step") for step in message.train_config.data_augmentation_options]
        assert steps == ["random_horizontal_flip"]


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_the_paper_s_page_lists_the_row(row):
    """A line of a table whose first cell has the row's label, with a link to the config and the paper's result."""
    text = (ROOT / PAPERS[row.paper].page).read_text(encoding="utf-8")
    result, *others = ROWS[row][1].split()
    for name in configs_of(row):
        lines = [line for line in text.splitlines() if f"](../../model_configs/{name}.config)" in line]
        lines = [line for line in lines if row.label in re.split(r"[|,\s]+", line.split("|")[1])]
        assert any(result in re.findall(r"\d+(?:\.\d+)?", line) for line in lines), f"'| {row.label} |' with {name}"
    missing = set(others) - set(re.findall(r"\d+(?:\.\d+)?", text))
    assert not missing
