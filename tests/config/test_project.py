"""The config of a project: batch, steps and learning rate by hand-worked numbers, weights, readers."""

from __future__ import annotations

import pytest

from detzoo.config.load import load_pipeline
from detzoo.config.problems import Problem, Severity
from detzoo.config.project import (
    DataFacts,
    add_recomputed_statistics,
    batch_size_for,
    bytes_per_image,
    fitted,
    num_steps_for,
    rate_factor_for,
)

PATHS = {"train": "records/train-*", "val": "records/val-*"}
FACTS = DataFacts(3, 160, 12, False, PATHS)


@pytest.mark.parametrize(
    ("num_images", "base", "memory", "batch"),
    [
        (160, 128, 10**9, 16),  # ten steps per epoch: 160 / 10
        (160, 12, 10**9, 8),  # never more than in the published training; a power of two
        (102, 16, 10**9, 8),  # 102 / 10 = 10.2
        (30, 16, 10**9, 8),  # small data sets have 8
        (3, 16, 10**9, 2),  # no more than images
        (1, 16, 10**9, 1),
        (10_000, 128, 10**9, 128),
        (10_000, 128, 44_000, 16),  # half of 44 kB holds 22 images of 1 kB
        (10_000, 128, 0, 1),
    ],
)
def test_the_batch_fits_data_and_memory(num_images, base, memory, batch):
    assert batch_size_for(num_images, base, 1000, memory) == batch


@pytest.mark.parametrize(
    ("num_images", "batch", "steps"),
    [
        (160, 16, 2000),  # 32,000 images: 200 epochs
        (1000, 32, 1570),  # 50 epochs, 50,000 / 32 = 1562.5, rounded up to 10
        (10, 8, 380),  # 300 epochs, 3000 / 8 = 375
        (1, 1, 300),
        (118_000, 128, 46_100),  # 50 epochs of COCO, 5,900,000 / 128 = 46,093.75
    ],
)
def test_the_steps_follow_from_the_number_of_images(num_images, batch, steps):
    assert num_steps_for(num_images, batch) == steps


def test_the_rate_is_linear_in_the_batch_for_momentum_and_its_root_for_others():
    assert rate_factor_for(16, 64, is_momentum=True) == 0.25
    assert rate_factor_for(16, 64, is_momentum=False) == 0.5


def test_memory_of_an_image_by_its_largest_input():
    assert bytes_per_image(load_pipeline("ssd_mobilenet_v2_fpnlite_320").message.model) == 320 * 320 * 4096
    # min_dimension 600, max_dimension 1024
    assert bytes_per_image(load_pipeline("faster_rcnn_resnet101_600").message.model) == 600 * 1024 * 4096
    assert bytes_per_image(load_pipeline("shapes_spp_classifier_zf5").message.model) == 120 * 120 * 4096


def fit(name, facts=FACTS, weights="none", has_gpu=False):
    return fitted(load_pipeline(name), name, facts, weights, "zoo://archive", 10**12, has_gpu)


def test_a_published_config_becomes_one_for_few_images():
    message, comments = fit("ssd_mobilenet_v2_fpnlite_320")
    training = message.train_config
    cosine = training.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    # 0.08 for 128 images, 0.01 for 16; warm-up from a tenth of it over 5 % of the steps
    assert (training.batch_size, training.num_steps) == (16, 2000)
    assert cosine.learning_rate_base == pytest.approx(0.01)
    assert cosine.warmup_learning_rate == pytest.approx(0.001)
    assert (cosine.total_steps, cosine.warmup_steps) == (2000, 100)
    assert (training.eval_every_n_steps, training.checkpoint_every_n_steps) == (200, 200)
    assert training.early_stopping.patience_evaluations == 5
    assert [step.WhichOneof("preprocessing_step") for step in training.data_augmentation_options] == [
        "random_horizontal_flip",
        "random_crop_image",
    ]
    assert message.model.ssd.num_classes == 3
    assert message.train_input_reader.tf_record_input_reader.input_path == ["records/train-*"]
    assert message.eval_input_reader[0].tf_record_input_reader.input_path == ["records/val-*"]
    assert "PATH_TO_BE_CONFIGURED" not in str(message)
    assert comments["model.ssd.num_classes"] == "highest id of records/label_map.pbtxt"
    # Comments of the model are kept, except those of changed fields.
    kept = "model.ssd.box_predictor.weight_shared_convolutional_box_predictor.class_prediction_bias_init"
    assert comments[kept].startswith("-log((1 - p) / p)")


def test_schedules_by_steps_become_a_cosine_of_their_peak():
    training = fit("retinanet_resnet50_400")[0].train_config  # 0.001, then 0.01 from step 500, a tenth from 60,000
    cosine = training.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    assert cosine.learning_rate_base == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("weights", "pretrained", "frozen", "checkpoint", "kind"),
    [
        ("none", "", False, "", ""),
        ("imagenet", "imagenet", True, "", ""),
        ("zoo", "", True, "zoo://archive", "fine_tune"),
    ],
)
def test_initial_weights(weights, pretrained, frozen, checkpoint, kind):
    """Random weights are not frozen: statistics of ImageNet's images fit ImageNet's weights only."""
    message = fit("retinanet_resnet50_400", weights=weights)[0]
    assert message.model.ssd.feature_extractor.pretrained_weights == pretrained
    assert message.model.ssd.freeze_batchnorm is frozen
    assert message.train_config.fine_tune_checkpoint == checkpoint
    assert message.train_config.fine_tune_checkpoint_type == kind


def test_a_two_stage_detector_of_random_weights_is_not_frozen():
    assert (
        load_pipeline("faster_rcnn_resnet101_600").message.model.faster_rcnn.feature_extractor.batch_norm_trainable
        is False
    )
    assert fit("faster_rcnn_resnet101_600")[0].model.faster_rcnn.feature_extractor.batch_norm_trainable is True


def test_masks_are_read_and_measured_by_a_detector_of_masks():
    message = fit("mask_rcnn_resnet50_fpn_800", FACTS._replace(with_masks=True), "imagenet")[0]
    assert message.train_input_reader.load_instance_masks
    assert message.eval_input_reader[0].load_instance_masks
    assert message.eval_config.metrics_set == ["coco_detection_metrics", "coco_mask_metrics"]
    assert not fit("faster_rcnn_resnet50_fpn_800")[0].train_input_reader.load_instance_masks


def test_no_object_of_a_full_image_is_dropped():
    message = fit("ssd_mobilenet_v2_300", FACTS._replace(most_objects=250))[0]
    assert (message.train_config.max_number_of_boxes, message.eval_input_reader[0].max_number_of_boxes) == (250, 250)
    assert fit("ssd_mobilenet_v2_300")[0].train_config.max_number_of_boxes == 100


def test_averages_of_weights_span_a_tenth_of_the_training(tmp_path):
    base = load_pipeline("shapes_ssd_mobilenet_v1", ["train_config.optimizer.use_moving_average=true"])
    message = fitted(base, "a", FACTS, "none", "", 10**12, False)[0]
    assert message.train_config.optimizer.moving_average_decay == pytest.approx(0.995)  # 1 - 1 / 200


def test_precision_follows_the_device():
    assert not fit("efficientdet_d0")[0].train_config.use_bfloat16
    assert fit("efficientdet_d0", has_gpu=True)[0].train_config.use_bfloat16


def test_statistics_are_recomputed_only_if_the_training_is_too_short_for_them():
    message, _ = fit("ssd_mobilenet_v2_fpnlite_320")
    assert add_recomputed_statistics(message.train_config, []) == {}
    assert not message.train_config.HasField("recompute_batch_norm")
    late = Problem(Severity.WARNING, "", 0, "", "initial-statistics")
    assert list(add_recomputed_statistics(message.train_config, [late])) == ["train_config.recompute_batch_norm"]
    assert message.train_config.recompute_batch_norm.num_batches == 50


def test_the_test_records_are_named_in_a_comment():
    comments = fit("ssd_mobilenet_v2_300", FACTS._replace(paths={**PATHS, "test": "records/test-*"}))[1]
    assert comments["eval_input_reader[0].tf_record_input_reader.input_path"] == "the test records: records/test-*"
