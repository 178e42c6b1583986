"""Ranges of the schema: every number has one, and every config's numbers are held against them."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import sys

import pytest
from google.protobuf import text_format

from detzoo.config import pb
from detzoo.config.check.limits import check_limits, limit_of
from detzoo.config.check.pipeline import check_file, check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Findings, Severity
from detzoo.errors import ConfigError
from detzoo.sweep.plan.sweep_plan import load_plan

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Blocks that no detector of this version reads.
UNREAD = (
    *("CenterNet.Dense", "CenterNet.T", "Calibration", "Context", "Quantization", "SquareBoxCoder", "Keypoint"),
    "StringIntLabelMap",
)
SSD, OPTIMIZER, STEP = "model.ssd", "train_config.optimizer", "train_config.data_augmentation_options[+]"


def messages(descriptors):
    for descriptor in descriptors:
        yield descriptor
        yield from messages(descriptor.nested_types)


def fields():
    for file in pb.FILES:
        for message in messages(pb.POOL.FindFileByName(file).message_types_by_name.values()):
            yield from message.fields


def limits_of(text, message_class=pb.TrainEvalPipelineConfig):
    """Path -> message of what a text's numbers are refused for."""
    findings = Findings(lambda path: 0)
    check_limits(text_format.Parse(text, message_class()), findings)
    return {problem.path: problem.message for problem in findings.problems}


def refused(path, *overrides):
    return {p.path: p.message for p in check_file(str(path), overrides) if p.severity is Severity.ERROR}


def test_every_number_that_is_read_has_a_range():
    without = []
    for field in fields():
        owner = field.containing_type.full_name.removeprefix(f"{pb.PACKAGE}.")
        is_listed = pb.option_of(field, "no_effect") or pb.option_of(field, "unsupported")
        is_read = not is_listed and not owner.startswith(UNREAD) and "Entry" not in owner
        if is_read and field.cpp_type <= field.CPPTYPE_FLOAT and not pb.option_of(field, "range"):
            without.append(f"{owner}.{field.name}")
    # Of blocks that are refused as a whole.
    assert [name for name in without if name.split(".")[0] in ("TrainConfig", "FasterRcnn", "SppNet")] == []
    assert len(without) <= 20, without


def test_every_range_is_an_interval():
    ranges = [(field.full_name, limit_of(field)) for field in fields() if pb.option_of(field, "range")]
    assert len(ranges) > 300
    assert [name for name, limit in ranges if not limit.low <= limit.high < math.inf] == []


def test_what_is_written_means_what_mathematics_means():
    moving = pb.Optimizer.DESCRIPTOR.fields_by_name["moving_average_decay"]  # [0, 1)
    assert [limit_of(moving).holds(x) for x in (-0.1, 0, 0.5, 1, math.nan)] == [False, True, True, False, False]
    alpha = pb.BootstrappedSigmoidClassificationLoss.DESCRIPTOR.fields_by_name["alpha"]  # (0, 1]
    assert [limit_of(alpha).holds(x) for x in (0, 1e-30, 1, 1.1, math.inf)] == [False, True, True, False, False]
    assert limit_of(alpha).accepted() == "above 0, at most 1, the label's share of the target"


def test_an_end_of_a_range_is_inside_in_single_precision():
    # 1e-12 as a float is 9.99999996e-13, below 1e-12 as a double.
    assert limits_of("train_config { optimizer { adam_optimizer { epsilon: 1e-12 } } }") == {}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39", "-1", "1e30"])
def test_a_number_without_meaning_is_refused_by_name_line_and_range(config_path, value):
    text = config_path.read_text().replace("gamma: 2.0", f"gamma: {value}")
    config_path.write_text(text)
    line = next(number for number, content in enumerate(text.splitlines(), start=1) if "gamma" in content)
    [problem] = [p for p in check_file(str(config_path)) if p.severity is Severity.ERROR]
    shown = {"1e39": "inf", "1e30": "1e+30"}.get(value, value)
    assert problem.path == f"{SSD}.loss.classification_loss.weighted_sigmoid_focal.gamma"
    assert (problem.line, problem.message) == (line, f"is {shown}; accepted: 0 to 100")


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("model.ssd.num_classes=2147483647", "model.ssd.num_classes", "1 to 65536 classes"),
        (f"{OPTIMIZER}.weight_decay=inf", f"{OPTIMIZER}.weight_decay", "is inf; accepted: 0 to 1000; 0 is off"),
        ("train_config.max_number_of_boxes=2147483647", "train_config.max_number_of_boxes", "1 to 100000 boxes"),
        ("train_config.batch_size=4294967295", "train_config.batch_size", "1 to 65536 images, over all replicas"),
        ("train_config.startup_delay_steps=nan", "train_config.startup_delay_steps", "accepted: 0 or more, finite"),
        (
            "train_config.data_augmentation_options[+].random_adjust_contrast.min_delta=1.5",
            "train_config.data_augmentation_options[1].random_adjust_contrast.min_delta",
            "is 1.5, above max_delta (1.25)",
        ),
        (
            "train_config.data_augmentation_options[+].random_crop_pad_image.pad_color=[1, 2]",
            "train_config.data_augmentation_options[1].random_crop_pad_image.pad_color",
            "has 2 values; accepted: none, or 3",
        ),
        (
            f"{STEP}.normalize_image{{}}",
            f"{STEP[:-3]}[1].normalize_image.original_maxval",
            "must be above original_minval (0)",
        ),
        (
            f"{STEP}.subtract_channel_mean{{}}",
            f"{STEP[:-3]}[1].subtract_channel_mean.means",
            "is missing; give 3 values",
        ),
        (
            f"{STEP}.random_pad_image.min_image_height=99",
            f"{STEP[:-3]}[1].random_pad_image.min_image_height",
            "goes with min_image_width, which is missing",
        ),
        (
            f"{SSD}.matcher.argmax_matcher.matched_threshold=-1",
            f"{SSD}.matcher.argmax_matcher.matched_threshold",
            "overlaps are never negative",
        ),
    ],
)
def test_overrides_pass_the_same_ranges(config_path, override, path, says):
    assert says in refused(config_path, override)[path]


def test_negative_squared_distances_have_negative_thresholds(config_path):
    overrides = [
        f"{SSD}.similarity_calculator.neg_sq_dist_similarity{{}}",
        f"{SSD}.matcher.argmax_matcher.matched_threshold=-0.1",
        f"{SSD}.matcher.argmax_matcher.unmatched_threshold=-0.5",
    ]
    assert refused(config_path, *overrides) == {}


def test_what_follows_from_a_refused_number_is_not_reported(config_path):
    # With one class, the label map would have too many.
    assert list(refused(config_path, "model.ssd.num_classes=-5")) == ["model.ssd.num_classes"]


def test_the_config_itself_keeps_its_numbers(config_path):
    pipeline = load_pipeline(str(config_path), ["model.ssd.num_classes=-5"])
    assert check_pipeline(pipeline)
    assert pipeline.message.model.ssd.num_classes == -5


def test_sweep_files_have_ranges(tmp_path):
    path = tmp_path / "grid.sweep"
    config = ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config"
    path.write_text(f"""base {{ config: "{config}" }}
measure {{
  runs: 0
  time_out_seconds: nan
}}
""")
    with pytest.raises(ConfigError, match=r"(?s):3: error: measure.runs: is 0.*:4: error: .*seconds: is nan; accepted"):
        load_plan(str(path))


class TestTensorsThatNoMachineHolds:
    """96 x 128 pixels, levels 3 to 6 with 3 x 2 anchors: 12 x 16 x 6 = 1152 anchors on the finest map."""

    RESIZER = f"{SSD}.image_resizer.fixed_shape_resizer"

    def test_predictions(self, config_path):
        # 2048 x 2048 cells x 6 anchors = 25165824 anchors of 4 + 2 numbers of 4 bytes take 4.8 GB for 8 images. With
        # 1000 classes they take 809 GB.
        size = [f"{self.RESIZER}.height=16384", f"{self.RESIZER}.width=16384"]
        assert "asks for" not in str(refused(config_path, *size))
        text = refused(config_path, *size, "model.ssd.num_classes=2000")["model.ssd"]
        assert text == (
            "asks for 2004 numbers for each of 25165824 anchors of 8 images, 1,614 GB; accepted: 1,000 GB at most"
        )

    def test_images(self, config_path):
        # 65536 x 4096 x 4096 x 3 x 4 bytes.
        size = [f"{self.RESIZER}.height=4096", f"{self.RESIZER}.width=4096", "train_config.batch_size=65536"]
        assert "13,194 GB" in refused(config_path, *size)["train_config.batch_size"]

    def test_similarities(self, config_path):
        size = [f"{self.RESIZER}.height=16384", f"{self.RESIZER}.width=16384"]
        text = refused(config_path, *size, "train_config.max_number_of_boxes=100000")[
            "train_config.max_number_of_boxes"
        ]
        assert "similarities of 25165824 anchors and 100000 boxes, 10,066 GB" in text

    def test_crops_of_a_second_stage(self, region_path):
        model = "model.faster_rcnn"
        overrides = [f"{model}.second_stage_batch_size=65536", "train_config.batch_size=60000"]
        # 60000 x 65536 x 14 x 14 x 4 bytes.
        assert "3,083 GB" in refused(region_path, *overrides)[f"{model}.second_stage_batch_size"]


@pytest.fixture(scope="module")
def extreme_numbers():
    """The program benchmarks/extreme_numbers.py, which tries all configs."""
    spec = importlib.util.spec_from_file_location("extreme_numbers", ROOT / "benchmarks" / "extreme_numbers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_extreme_number_passes_that_has_no_meaning(extreme_numbers):
    told = []
    config = load_pipeline(str(ROOT / "model_configs" / "shapes_faster_rcnn_mobilenet_v1.config")).message
    counts = extreme_numbers.measure([(config, "")], None, told.append)
    assert (told, counts["not finite"]) == ([], 0)
    assert counts["tried"] > 2 * counts["passed"] > 500


@pytest.mark.parametrize(
    "kind", ["random_crop_pad_image", "random_adjust_contrast", "random_jpeg_quality", "random_square_crop_by_scale"]
)
def test_an_augmentation_that_passes_is_built_and_runs(extreme_numbers, kind):
    told = []
    config = load_pipeline(str(ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config")).message
    getattr(config.train_config.data_augmentation_options[0], kind).SetInParent()
    start = "train_config.data_augmentation_options"
    counts = extreme_numbers.measure([(config, start)], extreme_numbers.run_augmentations, told.append)
    assert told == []
    assert counts["passed"] >= 4


def test_an_optimizer_that_passes_is_built_and_steps(extreme_numbers):
    told = []
    config = load_pipeline(str(ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config")).message
    counts = extreme_numbers.measure([(config, OPTIMIZER)], extreme_numbers.run_optimizer, told.append)
    assert told == []
    assert counts["passed"] >= 20


@pytest.mark.parametrize("part", ["loss", "matcher", "post_processing"])
def test_a_part_of_a_detector_that_passes_is_built(extreme_numbers, part):
    told = []
    config = load_pipeline(str(ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config")).message
    counts = extreme_numbers.measure([(config, f"{SSD}.{part}")], extreme_numbers.build_parts, told.append)
    assert told == []
    assert counts["passed"] >= 3
