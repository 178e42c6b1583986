"""Reading, writing, showing and comparing configs."""

from __future__ import annotations

import re

import pytest

from detzoo.config import pb
from detzoo.config.diff import diff_configs
from detzoo.config.load import load_pipeline, read_pipeline, save_pipeline
from detzoo.config.show import show_config
from detzoo.errors import ConfigError, UsageError
from tests.problem_text import problem_text


def test_save_then_load_gives_the_same_message(config_path, tmp_path):
    loaded = load_pipeline(str(config_path), ["train_config.fine_tune_checkpoint=a \"b\" 'c' \u00e9"])
    save_pipeline(loaded.message, tmp_path / "saved.config")
    assert load_pipeline(str(tmp_path / "saved.config")).message == loaded.message


def test_line_of(config_path):
    loaded = load_pipeline(str(config_path))
    lines = config_path.read_text().splitlines()
    line = loaded.line_of("model.ssd.feature_extractor.type")
    assert "ssd_mobilenet_v2_fpn_keras" in lines[line - 1]
    assert loaded.line_of("model.ssd.feature_extractor.depth_multiplier") == loaded.line_of(
        "model.ssd.feature_extractor"
    )
    assert loaded.line_of("eval_input_reader[0].label_map_path") > loaded.line_of("eval_input_reader")
    assert loaded.line_of("graph_rewriter") == 0
    assert "train_config.batch_size" in loaded.lines
    assert "train_config.batch_size" not in load_pipeline(str(config_path), ["train_config.batch_size=1"]).lines


def test_all_problems_of_text_and_overrides_are_in_one_error(tmp_path):
    path = tmp_path / "pipeline.config"
    path.write_text("train_config {\n batch_siz: 3\n num_steps: x }\n")
    with pytest.raises(ConfigError) as caught:
        load_pipeline(str(path), ["train_config.sed=3"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(problem_text(path, 2, "train_config.batch_siz", "unknown field of TrainConfig"))
    assert lines[1].startswith(problem_text(path, 3, "train_config.num_steps", "expected an integer"))
    assert "--set train_config.sed=3" in lines[2]
    loaded, problems = read_pipeline(str(path))
    assert len(problems) == 2
    assert loaded.message.HasField("train_config")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "pipeline.config").write_text("")
    (tmp_path / "picture.config").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UsageError, match=re.escape("did you mean pipeline.config")):
        load_pipeline(str(tmp_path / "pipelin.config"))
    (tmp_path / "folder" / "other.config").mkdir(parents=True)
    (tmp_path / "folder" / "my.config").write_text("")
    with pytest.raises(UsageError, match=r"is a folder, not a pipeline config; it contains my.config, other.config"):
        load_pipeline(str(tmp_path / "folder"))
    with pytest.raises(UsageError, match="is not a text file"):
        load_pipeline(str(tmp_path / "picture.config"))
    with pytest.raises(UsageError, match=re.escape(f"(the path is good up to {tmp_path})")):
        load_pipeline(str(tmp_path / "a" / "b" / "x.config"))
    with pytest.raises(UsageError, match="path of the pipeline config is empty"):
        load_pipeline("")


def test_show_with_defaults_means_the_same(config_path, tmp_path):
    message = load_pipeline(str(config_path)).message
    text = show_config(message, defaults=True)
    assert "max_number_of_boxes: 100" in text
    (tmp_path / "full.config").write_text(text)
    assert diff_configs(message, load_pipeline(str(tmp_path / "full.config")).message) == []
    assert not message.train_config.HasField("max_number_of_boxes")  # the message itself stays as it was


def test_show_a_part(config_path):
    message = load_pipeline(str(config_path)).message
    assert show_config(message, path="train_config.batch_size") == "batch_size: 8\n"
    assert show_config(message, path="model.ssd.feature_extractor.fpn") == "min_level: 3\nmax_level: 6\n"
    assert show_config(message, path="eval_config.metrics_set[0]") == "coco_detection_metrics\n"
    with pytest.raises(UsageError, match="has no field 'batchsize'; did you mean 'batch_size'"):
        show_config(message, path="train_config.batchsize")
    with pytest.raises(UsageError, match="has 1 items"):
        show_config(message, path="eval_input_reader[2]")
    with pytest.raises(UsageError, match="the config has no graph_rewriter"):
        show_config(message, path="graph_rewriter")


def test_diff(config_path):
    first = load_pipeline(str(config_path)).message
    second = load_pipeline(
        str(config_path),
        [
            "train_config.batch_size=16",
            "train_config.max_number_of_boxes=100",  # the default: no difference
            "train_config.optimizer.adam_optimizer{}",
            "train_config.data_augmentation_options[+].random_vertical_flip{}",
            "model.ssd.post_processing.score_converter=SOFTMAX",
            "eval_config.metrics_set[+]=coco_mask_metrics",
        ],
    ).message
    lines = [str(difference) for difference in diff_configs(first, second)]
    assert "train_config.batch_size: 8 -> 16" in lines
    assert "model.ssd.post_processing.score_converter: SIGMOID -> SOFTMAX" in lines
    assert "train_config.optimizer.adam_optimizer: (absent) -> {  }" in lines
    assert "train_config.data_augmentation_options[1]: (absent) -> { random_vertical_flip { } }" in lines
    assert (
        "eval_config.metrics_set: ['coco_detection_metrics'] -> ['coco_detection_metrics', 'coco_mask_metrics']"
        in lines
    )
    assert len(lines) == 6  # and the momentum optimizer that is gone
    assert diff_configs(first, first) == []


def test_the_schema_has_detzoos_own_fields_from_number_1000():
    extractor = pb.SsdFeatureExtractor.DESCRIPTOR.fields_by_name
    assert [extractor[name].number for name in ("output_stride", "pretrained_weights", "freeze_backbone")] == [
        1000,
        1001,
        1002,
    ]
    assert pb.TrainConfig().best_checkpoint_metric == "mAP"
    assert pb.TrainConfig().checkpoint_every_n_steps == 1000
    assert pb.FeaturePyramidNetworks().top_down_normalization
    assert pb.FocalStarClassificationLoss().gamma == 2
    with pytest.raises(AttributeError, match="has no message or enum named 'Sssd'"):
        _ = pb.Sssd
