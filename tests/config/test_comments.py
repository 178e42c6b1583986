"""Comments that outlive changes of a config's message."""

from __future__ import annotations

import pytest

from detzoo.config import pb
from detzoo.config.comments import commented_text, comments_of
from detzoo.config.load import load_pipeline
from detzoo.config.text import parse_text

TEXT = """\
# A heading, which belongs to no field.
model {
  ssd {
    num_classes: 90  # of COCO
    image_resizer { fixed_shape_resizer { height: 300 width: 200 } }  # height first
    feature_extractor { type: 'a # b' }  # the backbone
  }
}
train_config {
  data_augmentation_options { random_horizontal_flip {} }  # left and right
  data_augmentation_options { random_vertical_flip {} }  # up and down
}
"""


def test_comments_of_a_text_by_the_path_of_their_field(tmp_path):
    file = tmp_path / "a.config"
    file.write_text(TEXT)
    assert comments_of(load_pipeline(str(file))) == {
        "model.ssd.num_classes": "of COCO",
        "model.ssd.image_resizer": "height first",
        "model.ssd.feature_extractor": "the backbone",
        "train_config.data_augmentation_options": "left and right",
        "train_config.data_augmentation_options[1]": "up and down",
    }


def test_commented_text_reads_back_as_the_same_message():
    message = pb.TrainEvalPipelineConfig()
    ssd = message.model.ssd
    ssd.num_classes = 3
    ssd.anchor_generator.multiscale_anchor_generator.aspect_ratios.extend([1.0, 0.5])
    ssd.similarity_calculator.iou_similarity.SetInParent()
    ssd.image_resizer.fixed_shape_resizer.height = 96
    message.train_config.batch_size = 8
    for kind in ("random_horizontal_flip", "random_vertical_flip"):
        getattr(message.train_config.data_augmentation_options.add(), kind).SetInParent()
    message.eval_config.metrics_set.extend(["a", "b"])
    message.eval_input_reader.add(label_map_path="é.pbtxt")
    comments = {
        "model.ssd.num_classes": "three",
        "model.ssd.image_resizer.fixed_shape_resizer": "small",  # so that the block around it is not on one line
        "train_config.batch_size": "word " * 30,
        "train_config.data_augmentation_options": "random",
        "train_config.data_augmentation_options[1]": "up and down",
        "eval_input_reader.label_map_path": "never",  # it is the path of no field
        "eval_input_reader[0].label_map_path": "names",
    }
    text = commented_text(message, comments)
    assert text.splitlines() == [
        "model {",
        "  ssd {",
        "    num_classes: 3  # three",
        "    image_resizer {",
        "      fixed_shape_resizer { height: 96 }  # small",
        "    }",
        "    similarity_calculator { iou_similarity {} }",
        "    anchor_generator { multiscale_anchor_generator { aspect_ratios: [1.0, 0.5] } }",
        "  }",
        "}",
        "",
        "train_config {",
        f"  # {' '.join(['word'] * 23)}",  # 4 + 23 * 5 - 1 = 118 characters; one word more has 123
        f"  # {' '.join(['word'] * 7)}",
        "  batch_size: 8",
        "  data_augmentation_options { random_horizontal_flip {} }  # random",
        "  data_augmentation_options { random_vertical_flip {} }  # up and down",
        "}",
        "",
        "eval_config {",
        '  metrics_set: "a" metrics_set: "b"',
        "}",
        "",
        "eval_input_reader {",
        '  label_map_path: "é.pbtxt"  # names',
        "}",
    ]
    assert parse_text(text, pb.TrainEvalPipelineConfig).message == message


@pytest.mark.parametrize("name", ["ssd_mobilenet_v1_300", "mask_rcnn_resnet50_fpn_800", "shapes_spp_net_zf5"])
def test_configs_that_come_with_detzoo_keep_their_meaning(name):
    loaded = load_pipeline(name)
    text = commented_text(loaded.message, comments_of(loaded))
    assert parse_text(text, pb.TrainEvalPipelineConfig).message == loaded.message
