"""Every check finds its problem, at its line, and a good config has none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity

SSD = "model.ssd"
COSINE = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
MANUAL = "train_config.optimizer.momentum_optimizer.learning_rate.manual_step_learning_rate"
RATE = "train_config.optimizer.momentum_optimizer.learning_rate"
MULTISCALE = f"{SSD}.anchor_generator.multiscale_anchor_generator"
SSD_ANCHORS = f"{SSD}.anchor_generator.ssd_anchor_generator"
HEAD = f"{SSD}.box_predictor.weight_shared_convolutional_box_predictor"


def problems(path, *overrides, files=True):
    return check_pipeline(load_pipeline(str(path), overrides), files=files)


def found(path, *overrides, severity=Severity.ERROR):
    return {p.path: p.message for p in problems(path, *overrides) if p.severity is severity}


def test_a_good_config_has_no_problem(config_path):
    assert problems(config_path) == []


RESIZER = f"{SSD}.image_resizer"


@pytest.mark.parametrize(
    ("overrides", "off"),
    [
        # Levels 3 to 6: strides 8 to 64. 683 = 8 * 85.4, 600 = 8 * 75, 640 = 64 * 10, 608 = 32 * 19.
        (("keep_aspect_ratio_resizer.max_dimension=683", "keep_aspect_ratio_resizer.pad_to_max_dimension=true"), 4),
        (("fixed_shape_resizer.height=640", "fixed_shape_resizer.width=600"), 3),
        (("fixed_shape_resizer.height=640", "fixed_shape_resizer.width=640"), 0),
        (("fixed_shape_resizer.height=640", "fixed_shape_resizer.width=608"), 0),  # the coarsest level alone
        (("keep_aspect_ratio_resizer.max_dimension=683",), 0),  # of free size: padded to multiples of 64
        (("identity_resizer{}",), 0),
    ],
)
def test_a_fixed_size_that_strides_do_not_divide_is_a_warning(config_path, overrides, off):
    warnings = found(config_path, *(f"{RESIZER}.{text}" for text in overrides), severity=Severity.WARNING)
    strides = ", ".join(str(2**level) for level in range(7 - off, 7))
    assert [f"no multiple of the strides {strides}. " in text for text in warnings.values()] == [True] * bool(off)


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ([f"{SSD}.num_classes=0"], f"{SSD}.num_classes", "accepted: 1 to 65536 classes"),
        ([f"{SSD}.box_coder="], f"{SSD}.box_coder", "choose one of faster_rcnn_box_coder, "),
        ([f"{SSD}.matcher{{}}"], f"{SSD}.matcher", "choose one of argmax_matcher, bipartite_matcher"),
        ([f"{SSD}.loss.localization_loss{{}}"], f"{SSD}.loss.localization_loss", "choose one of weighted_l2, "),
        (
            [f"{SSD}.image_resizer.fixed_shape_resizer.width=0"],
            f"{SSD}.image_resizer.fixed_shape_resizer.width",
            "is 0; accepted: 1 to 16384 pixels",
        ),
        (
            [f"{SSD}.image_resizer.keep_aspect_ratio_resizer.min_dimension=2000"],
            f"{SSD}.image_resizer.keep_aspect_ratio_resizer.min_dimension",
            "is 2000, above max_dimension (1024)",
        ),
        (
            [f"{SSD}.image_resizer.keep_aspect_ratio_resizer.training_min_dimensions[0]=1025"],
            f"{SSD}.image_resizer.keep_aspect_ratio_resizer.training_min_dimensions[0]",
            "is 1025; accepted: 1 to max_dimension (1024)",
        ),
        (
            [f"{SSD}.feature_extractor.type=ssd_pnasnet"],
            f"{SSD}.feature_extractor.type",
            "not supported yet",
        ),
        ([f"{SSD}.feature_extractor.type=ssd_mobilenet_v2"], f"{SSD}.feature_extractor.fpn", "'ssd_mobilenet_v2_fpn'"),
        (
            [f"{SSD}.feature_extractor.output_stride=12"],
            f"{SSD}.feature_extractor.output_stride",
            "accepted for ssd_mobilenet_v2_fpn_keras: 0, 32",
        ),
        (
            [f"{SSD}.feature_extractor.type=ssd_resnet50_v1_fpn", f"{SSD}.feature_extractor.depth_multiplier=0.5"],
            f"{SSD}.feature_extractor.depth_multiplier",
            "one width only",
        ),
        (
            [f"{SSD}.feature_extractor.pretrained_weights=nowhere.weights.h5"],
            f"{SSD}.feature_extractor.pretrained_weights",
            "there is no file nowhere.weights.h5",
        ),
        (
            [
                f"{SSD}.feature_extractor.type=ssd_inception_v2_fpn",
                f"{SSD}.feature_extractor.pretrained_weights=imagenet",
            ],
            f"{SSD}.feature_extractor.pretrained_weights",
            "no published Keras weights of inception_v2",
        ),
        ([f"{SSD}.feature_extractor.fpn.min_level=6"], f"{SSD}.feature_extractor.fpn.min_level", "2 to 5"),
        (
            [f"{SSD}.feature_extractor.fpn.max_level=2"],
            f"{SSD}.feature_extractor.fpn.min_level",
            "above max_level (2)",
        ),
        (
            [f"{SSD}.feature_extractor.fpn.lateral_connections=false"],
            f"{SSD}.feature_extractor.fpn.lateral_connections",
            "not supported in ssd; accepted: true",
        ),
        (
            [f"{SSD}.feature_extractor.fpn.coarse_source=SUBSAMPLE"],
            f"{SSD}.feature_extractor.fpn.coarse_source",
            "accepted: PYRAMID, BACKBONE",
        ),
        ([f"{MULTISCALE}.max_level=7"], f"{MULTISCALE}.max_level", "the maps have levels 3 to 6"),
        ([f"{MULTISCALE}.min_level=2"], f"{MULTISCALE}.min_level", "accepted: 3"),
        ([f"{MULTISCALE}.aspect_ratios="], f"{MULTISCALE}.aspect_ratios", "at least one width / height"),
        (
            [f"{MULTISCALE}.aspect_ratios[1]=-2"],
            f"{MULTISCALE}.aspect_ratios[1]",
            "is -2; accepted: 0.001 to 1000, width / height",
        ),
        ([f"{MULTISCALE}.scales_per_octave=0"], f"{MULTISCALE}.scales_per_octave", "1 to 64 sizes"),
        ([f"{SSD}.matcher.argmax_matcher.unmatched_threshold=0.6"], f"{SSD}.matcher.argmax_matcher", ""),
        ([f"{SSD}.box_predictor.rfcn_box_predictor{{}}"], f"{SSD}.box_predictor.rfcn_box_predictor", "two-stage"),
        ([f"{HEAD}.depth=0"], f"{HEAD}.depth", "channels of the towers"),
        ([f"{HEAD}.kernel_size=1", f"{HEAD}.use_depthwise=true"], f"{HEAD}.kernel_size", "accepted with it: 3"),
        ([f"{HEAD}.box_code_size=5"], f"{HEAD}.box_code_size", "accepted: 4"),
        (
            [f"{SSD}.post_processing.batch_non_max_suppression.iou_threshold=1.5"],
            f"{SSD}.post_processing.batch_non_max_suppression.iou_threshold",
            "accepted: 0 to 1",
        ),
        ([f"{SSD}.post_processing.logit_scale=0"], f"{SSD}.post_processing.logit_scale", "0.001 to 1000"),
        (
            [f"{SSD}.loss.classification_loss.weighted_softmax{{}}", f"{SSD}.encode_background_as_zeros=true"],
            f"{SSD}.encode_background_as_zeros",
            "learns nothing from the background",
        ),
        (
            [f"{SSD}.loss.classification_loss.weighted_softmax{{}}", f"{SSD}.add_background_class=false"],
            f"{SSD}.add_background_class",
            "needs a background column",
        ),
        (
            [f"{SSD}.loss.classification_loss.bootstrapped_sigmoid{{}}"],
            f"{SSD}.loss.classification_loss.bootstrapped_sigmoid.alpha",
            "the label's share",
        ),
        (
            [f"{SSD}.loss.classification_loss.focal_star.gamma=0"],
            f"{SSD}.loss.classification_loss.focal_star.gamma",
            "above 0",
        ),
        ([f"{SSD}.loss.hard_example_miner{{}}"], f"{SSD}.loss.hard_example_miner", "keep one of them"),
        (
            [f"{SSD}.loss.random_example_sampler.positive_sample_fraction=2"],
            f"{SSD}.loss.random_example_sampler.positive_sample_fraction",
            "at most 1",
        ),
        ([f"{MULTISCALE}.normalize_coordinates=false"], f"{MULTISCALE}.normalize_coordinates", "accepted: true"),
        (["model.experimental_model{}"], "model.experimental_model", "not supported; accepted: ssd, faster_rcnn"),
        (["model{}"], "model", "no model is chosen"),
        (["train_config="], "train_config", "is missing"),
        (["train_config.batch_size=0"], "train_config.batch_size", "1 to 65536 images, over all replicas"),
        (["train_config.optimizer="], "train_config.optimizer", "choose one of rms_prop_optimizer"),
        (
            ["train_config.optimizer.adam_optimizer{}"],
            "train_config.optimizer.adam_optimizer.learning_rate",
            "choose one of constant_learning_rate",
        ),
        ([f"{COSINE}.warmup_steps=101"], f"{COSINE}.warmup_steps", "above total_steps (100)"),
        ([f"{COSINE}.hold_base_rate_steps=91"], f"{COSINE}.hold_base_rate_steps", "is 91; with warmup_steps 10"),
        ([f"{COSINE}.warmup_learning_rate=0.02"], f"{COSINE}.warmup_learning_rate", "above learning_rate_base (0.01)"),
        ([f"{COSINE}.learning_rate_base=nan"], f"{COSINE}.learning_rate_base", "is nan"),
        (
            [f"{MANUAL}.schedule[+].step=50", f"{MANUAL}.schedule[+].step=50"],
            f"{MANUAL}.schedule[1].step",
            "steps must increase",
        ),
        ([f"{MANUAL}.warmup=true"], f"{MANUAL}.schedule", "one rate for all steps is constant_learning_rate"),
        (
            [f"{RATE}.plateau_learning_rate{{}}"],
            f"{RATE}.plateau_learning_rate",
            "set train_config.eval_every_n_steps",
        ),
        (
            ["train_config.eval_every_n_steps=5", f"{RATE}.plateau_learning_rate.min_learning_rate=1"],
            f"{RATE}.plateau_learning_rate.min_learning_rate",
            "is 1, above initial_learning_rate (0.002)",
        ),
        (["train_config.early_stopping{}"], "train_config.early_stopping", "set train_config.eval_every_n_steps"),
        (
            ["train_config.data_augmentation_options[0].autoaugment_image.policy_name=v9"],
            "train_config.data_augmentation_options[0].autoaugment_image.policy_name",
            "accepted: v0, v1, v2, v3",
        ),
        (["train_config.fine_tune_checkpoint_type=detektion"], "train_config.fine_tune_checkpoint_type", "'detection'"),
        (["train_config.freeze_variables=[(]"], "train_config.freeze_variables[0]", "not a regular expression"),
        (
            ["train_config.data_augmentation_options[+]{}"],
            "train_config.data_augmentation_options[1]",
            "name an augmentation",
        ),
        (
            ["train_input_reader.input_type=TF_SEQUENCE_EXAMPLE", "train_input_reader.load_instance_masks=true"],
            "train_input_reader.load_instance_masks",
            "boxes and classes only",
        ),
        (
            ["train_input_reader.sample_from_datasets_weights=[1, 2]"],
            "train_input_reader.sample_from_datasets_weights",
            "one for each of the 1 input_path",
        ),
        (["train_input_reader="], "train_input_reader", "is missing"),
        (["eval_config.metrics_set=coco_detection_metric"], "eval_config.metrics_set[0]", "'coco_detection_metrics'"),
        (
            ["eval_config.metrics_set[0]=coco_mask_metrics"],
            "eval_config.metrics_set[0]",
            "needs masks, which only faster",
        ),
        (["eval_config.eval_instance_masks=true"], "eval_config.eval_instance_masks", "accepted: false"),
        ([f"{SSD}.mask_head_config{{}}"], f"{SSD}.mask_head_config", "masks need faster_rcnn"),
        ([f"{SSD}.loss.hard_example_miner.iou_threshold=2"], f"{SSD}.loss.hard_example_miner.iou_threshold", "0 to 1"),
        (
            [f"{SSD}.feature_extractor.conv_hyperparams.group_norm{{}}"],
            f"{SSD}.feature_extractor.conv_hyperparams.group_norm",
            "accepted: batch_norm, sync_batch_norm",
        ),
        (
            ["train_input_reader.data_service=host:5000"],
            "train_input_reader.data_service",
            "no address of a dispatcher such as grpc://host:5000",
        ),
        (
            ["train_input_reader.data_service=grpc://host:5000", "train_input_reader.proposals_path=a.npz"],
            "train_input_reader.proposals_path",
            "a tf.data service reads tf.Examples of one source without regions",
        ),
    ],
)
def test_an_error_names_field_and_remedy(config_path, overrides, path, says):
    errors = found(config_path, *overrides)
    matching = {p: m for p, m in errors.items() if p.startswith(path)}
    assert matching, errors
    assert any(says in message for message in matching.values()), matching


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ([f"{COSINE}.total_steps=90"], f"{COSINE}.total_steps", "the last 10 steps have learning rate 0"),
        ([f"{COSINE}.total_steps=200"], f"{COSINE}.total_steps", "stops before the learning rate has come down"),
        ([f"{MANUAL}.schedule[+].step=100"], f"{MANUAL}.schedule[0].step", "never reached"),
        (["train_config.num_steps=0"], "train_config.num_steps", "needs --num_train_steps"),
        ([f"{COSINE}.learning_rate_base=0.08"], COSINE, "0.08 is high for 8 images per step"),
        ([f"{SSD}.post_processing.score_converter=SOFTMAX"], f"{SSD}.post_processing.score_converter", "for SIGMOID"),
        (["eval_input_reader="], "eval_input_reader", "detzoo evaluate"),
        ([f"{SSD}.num_classes=3"], "train_input_reader.label_map_path", "the classes from 3 on"),
    ],
)
def test_a_warning_does_not_stop_anything(config_path, overrides, path, says):
    assert found(config_path, *overrides) == {}
    assert says in found(config_path, *overrides, severity=Severity.WARNING)[path]


def test_the_checks_metrics_are_the_evaluators(config_path):
    from detzoo.config.check import readers
    from detzoo.evaluate import runner

    assert readers.METRICS_SETS == runner.METRICS_SETS
    assert found(config_path, "eval_config.metrics_set=[oid_challenge_detection_metrics, open_images_metrics]") == {}
    refused = found(config_path, "eval_config.metrics_set=[oid_challenge_segmentation_metrics]")
    assert "'oid_challenge_segmentation_metrics' is not supported; accepted: " in refused["eval_config.metrics_set[0]"]


def test_the_colour_of_the_drawn_truth_is_one(config_path):
    path = "eval_config.groundtruth_box_visualization_color"
    for colour in ("red", "DarkOrange", "#00ff7f"):
        assert found(config_path, f"{path}='{colour}'") == {}
    text = "'blak' is neither the name of a colour in HTML nor #rrggbb; did you mean 'black'"
    assert found(config_path, f"{path}='blak'")[path].startswith(text)


def test_a_field_without_effect_is_a_note(config_path):
    overrides = ["train_config.replicas_to_aggregate=8", "eval_config.eval_interval_secs=3"]
    overrides.append("graph_rewriter.quantization.delay=48000")
    notes = problems(config_path, *overrides)
    assert {p.path for p in notes} == {
        "train_config.replicas_to_aggregate",
        "eval_config.eval_interval_secs",
        "graph_rewriter",
    }
    assert all(p.is_without_effect and p.message.startswith("accepted, no effect: ") for p in notes)


def test_an_unsupported_field_may_have_its_default(config_path):
    assert problems(config_path, "train_input_reader.num_keypoints=0", "eval_config.recall_upper_bound=1") == []


def test_ssd_anchors_against_the_maps(config_path):
    # MobileNet v2 gives levels 4 and 5 and four more: six maps at most, and num_layers 6 is the default of both.
    plain = [
        f"{SSD}.feature_extractor.fpn=",
        f"{SSD}.feature_extractor.type=ssd_mobilenet_v2",
        f"{SSD}.box_predictor.convolutional_box_predictor{{}}",
        f"{SSD_ANCHORS}.aspect_ratios=[1, 2, 0.5]",
    ]
    assert found(config_path, *plain) == {}
    errors = found(config_path, *plain, f"{SSD_ANCHORS}.num_layers=5")
    assert "the extractor makes 6 maps" in errors[f"{SSD_ANCHORS}.num_layers"]
    errors = found(config_path, *plain, f"{SSD}.feature_extractor.num_layers=7")
    assert "accepted for ssd_mobilenet_v2: 1 to 6" in errors[f"{SSD}.feature_extractor.num_layers"]
    errors = found(config_path, *plain, f"{SSD_ANCHORS}.scales=[0.1, 0.2]")
    assert "has 2 values; accepted: none, or one for each of the 6" in errors[f"{SSD_ANCHORS}.scales"]
    errors = found(config_path, *plain, f"{SSD_ANCHORS}.height_stride=[16, 32, 64, 128, 256, 512]")
    assert "width_stride is missing" in errors[SSD_ANCHORS]


def test_an_extractor_of_fixed_maps_takes_no_number_of_them(config_path):
    overrides = [
        f"{SSD}.feature_extractor.fpn=",
        f"{SSD}.feature_extractor.type=embedded_ssd_mobilenet_v1",
        f"{SSD}.box_predictor.convolutional_box_predictor{{}}",
        f"{SSD_ANCHORS}.aspect_ratios=[1, 2, 0.5]",
        f"{SSD_ANCHORS}.num_layers=5",
    ]
    assert problems(config_path, *overrides) == []
    notes = problems(config_path, *overrides, f"{SSD}.feature_extractor.num_layers=3")
    assert [(p.path, p.message) for p in notes if p.is_without_effect] == [
        (f"{SSD}.feature_extractor.num_layers", "accepted, no effect: embedded_ssd_mobilenet_v1 always makes 5 maps")
    ]
    assert len(notes) == 1
    errors = found(config_path, *overrides, f"{SSD_ANCHORS}.num_layers=6")
    assert "the extractor makes 5 maps" in errors[f"{SSD_ANCHORS}.num_layers"]


def test_what_mnasfpn_does_not_read(config_path):
    extractor = f"{SSD}.feature_extractor"
    unread = [
        f"{extractor}.{name}"
        for name in ("conv_hyperparams.activation", "use_depthwise", "override_base_feature_extractor_hyperparams")
    ]
    values = ("RELU_6", "true", "true")
    overrides = [f"{extractor}.type=ssd_mobilenet_v2_mnasfpn", *map("=".join, zip(unread, values, strict=True))]
    errors = found(config_path, *overrides, f"{extractor}.fpn.max_level=7")
    assert errors[f"{extractor}.fpn"].endswith(
        "has levels 3 to 7; accepted for ssd_mobilenet_v2_mnasfpn: min_level: 3 max_level: 6"
    )
    overrides += [f"{extractor}.fpn.min_level=3", f"{extractor}.fpn.max_level=6"]
    notes = {p.path for p in problems(config_path, *overrides) if p.is_without_effect}
    assert {path.removesuffix(".activation") for path in unread} <= notes


def test_a_shared_head_needs_one_number_of_anchors(config_path):
    # Ratios 1, 2, 1/2 and the interpolated scale: 4 boxes; the reduced lowest layer has 3.
    overrides = [f"{SSD_ANCHORS}.aspect_ratios=[1, 2, 0.5]", f"{SSD_ANCHORS}.num_layers=4"]
    errors = found(config_path, *overrides)
    assert (
        "3 boxes per location of the finest map and 4 on the others"
        in errors[f"{SSD_ANCHORS}.reduce_boxes_in_lowest_layer"]
    )
    assert found(config_path, *overrides, f"{SSD_ANCHORS}.reduce_boxes_in_lowest_layer=false") == {}
    assert found(config_path, *overrides, f"{SSD_ANCHORS}.interpolated_scale_aspect_ratio=0") == {}


def label_map(*items: str) -> str:
    """Returns the text of a label map with one item per line."""
    return "\n".join(items) + "\n"


def test_label_map_against_num_classes_and_the_other_reader(config_path):
    folder = config_path.parent
    (folder / "three.pbtxt").write_text(label_map("item { id: 1 name: 'cat' }", "item { id: 3 name: 'emu' }"))
    text = str(problems(config_path, f"eval_input_reader.label_map_path={folder}/three.pbtxt"))
    assert "goes up to id 3 ('emu'), but num_classes is 2; set model.ssd.num_classes: 3" in text
    (folder / "other.pbtxt").write_text(label_map("item { id: 1 name: 'dog' }", "item { id: 2 name: 'cat' }"))
    errors = found(config_path, f"eval_input_reader.label_map_path={folder}/other.pbtxt")
    assert "id 1 is 'dog', but 'cat' in the label map of train_input_reader" in str(errors)


def test_a_broken_label_map_is_shown_with_its_lines(config_path):
    broken = label_map("item { id: 0 name: 'cat' }", "item { idd: 2 name: 'dog' }")
    (config_path.parent / "label_map.pbtxt").write_text(broken)
    text = "\n".join(p.message for p in problems(config_path))
    for line, message in (
        (1, "item[0].id: id 0: ids start at 1"),
        (2, "item[1].idd: unknown field of StringIntLabelMapItem; did you mean 'id'?"),
    ):
        assert f"label_map.pbtxt:{line}: {message}" in text


def test_missing_files(config_path):
    folder = config_path.parent
    (folder / "label_map.pbtxt").rename(folder / "label_maps.pbtxt")
    (folder / "val.tfrecord").write_bytes(b"")
    errors = found(config_path, f"train_input_reader.tf_record_input_reader.input_path[0]={folder}/nowhere/train@2")
    assert "did you mean label_maps.pbtxt" in errors["train_input_reader.label_map_path"]
    path = "train_input_reader.tf_record_input_reader.input_path[0]"
    assert f"no file matches '{folder}/nowhere/train-?????-of-00002'; the folder" in errors[path]
    assert "are empty" in errors["eval_input_reader[0].tf_record_input_reader.input_path[0]"]
    assert problems(config_path, files=False) == []


def test_placeholders_are_to_be_set_where_files_count(config_path):
    overrides = [
        "train_input_reader.label_map_path=PATH_TO_BE_CONFIGURED/label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path[0]=PATH_TO_BE_CONFIGURED",
        "train_config.fine_tune_checkpoint=PATH_TO_BE_CONFIGURED",
    ]
    assert found(config_path, *overrides) == {}
    assert found(config_path, *overrides, severity=Severity.TO_SET) == {
        "train_input_reader.label_map_path": "give your label map, which names the classes of the records: "
        "--set train_input_reader.label_map_path=PATH",
        "train_input_reader.tf_record_input_reader.input_path[0]": "give your TFRecord file or a glob, such as "
        "data/train-?????-of-00010: --set 'train_input_reader.tf_record_input_reader.input_path[0]=PATH'",
        "train_config.fine_tune_checkpoint": "give a checkpoint's prefix, or nothing after = to start from scratch: "
        "--set train_config.fine_tune_checkpoint=PATH",
    }
    assert problems(config_path, *overrides, files=False) == []


def test_sharded_and_several_patterns(config_path):
    folder = config_path.parent
    path = "train_input_reader.tf_record_input_reader.input_path[0]"
    assert found(config_path, f"{path}={folder}/train@2.tfrecord, {folder}/val.tfrecord") == {}
    assert found(config_path, f"{path}=gs://bucket/train-*") == {}  # cannot be seen from here


def test_fine_tune_checkpoint(config_path):
    folder = config_path.parent
    for name in ("ckpt-3.index", "ckpt-3.data-00000-of-00001"):
        (folder / name).write_bytes(b"x")
    field = "train_config.fine_tune_checkpoint"
    assert found(config_path, f"{field}={folder}/ckpt-3") == {}
    assert found(config_path, f"{field}={folder}/ckpt-3.index") == {}
    assert found(config_path, f"{field}={folder}/ckpt-3.data-00000-of-00001") == {}
    assert found(config_path, f"{field}={folder}") == {}
    (folder / "empty").mkdir()
    assert "there is no checkpoint in" in found(config_path, f"{field}={folder}/empty")[field]
    for name in ("frozen_inference_graph.pb", "saved_model.pb", "checkpoint"):  # of TensorFlow 1
        (folder / name).mkdir()
        (folder / name / name).write_bytes(b"x")
        assert found(config_path, f"{field}={folder / name}") == {}
    assert f"prefix: '{folder}/ckpt-4'" in found(config_path, f"{field}={folder}/ckpt-4.meta")[field]
    assert "there is no checkpoint" in found(config_path, f"{field}={folder}/ckpt-4")[field]
    assert found(config_path, f"{field}={folder}/ckpt-4")[field].endswith(f"; did you mean '{folder}/ckpt-3'?")
    (folder / "zoo" / "checkpoint").mkdir(parents=True)
    (folder / "zoo" / "checkpoint" / "ckpt-0.index").write_bytes(b"x")
    for wrong in (f"{folder}/zoo", f"{folder}/zoo/ckpt-0", f"{folder}/zoo/model.ckpt"):
        assert f"did you mean '{folder}/zoo/checkpoint/ckpt-0'?" in found(config_path, f"{field}={wrong}")[field]
    assert f"the path is good up to {folder}" in found(config_path, f"{field}={folder}/lost/ckpt-0")[field]


def test_lines_of_problems(config_path):
    config_path.write_text(config_path.read_text().replace("num_classes: 2", "num_classes: 1").replace("8\n", "0\n", 1))
    lines = config_path.read_text().splitlines()
    for problem in problems(config_path):
        last = problem.path.split(".")[-1].split("[")[0]
        assert last in lines[problem.line - 1], problem
    assert [p.line for p in problems(config_path)] == sorted(p.line for p in problems(config_path))


def test_published_configs_are_good_or_refused_precisely(shared):
    paths = sorted((shared / "configs" / "published").glob("*/*.config"))
    assert len(paths) == 104
    for path in paths:
        errors = [p for p in problems(path, files=False) if p.severity is Severity.ERROR]
        for problem in errors:
            assert "not supported" in problem.message, f"{path.name}: {problem}"
            assert problem.line > 0, f"{path.name}: {problem}"
        if "v2_320x320_coco17" in path.name or path.name.startswith("ssd_resnet50_v1_fpn_640"):
            assert not errors, f"{path.name}: {errors}"


def test_checking_does_not_import_tensorflow(config_path):
    code = (
        "import sys; from detzoo.cli.main import main; "
        f"code = main(['config', 'check', {str(config_path)!r}]); "
        "sys.exit(code or ('tensorflow' in sys.modules or 'keras' in sys.modules or 'numpy' in sys.modules) * 7)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{config_path}: ok\n"
