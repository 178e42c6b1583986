"""Comments that outlive changes of a config's message."""

from __future__ import annotations

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
    message.model.ssd.num_classes = 3
    message.train_config.batch_size = 8
    message.eval_input_reader.add(label_map_path="labels.pbtxt")
    long = "word " * 30
    text = commented_text(
        message,
        {
            "model.ssd.num_classes": "three",
            "train_config.batch_size": long,
            "eval_input_reader.label_map_path": "never",  # it is the path of no field
            "eval_input_reader[0].label_map_path": "names",
        },
    )
    assert text.splitlines() == [
        "model {",
        "  ssd {",
        "    num_classes: 3  # three",
        "  }",
        "}",
        "",
        "train_config {",
        f"  # {' '.join(['word'] * 23)}",  # 4 + 23 * 5 - 1 = 118 characters; one word more has 123
        f"  # {' '.join(['word'] * 7)}",
        "  batch_size: 8",
        "}",
        "",
        "eval_input_reader {",
        '  label_map_path: "labels.pbtxt"  # names',
        "}",
    ]
    assert parse_text(text, pb.TrainEvalPipelineConfig).message == message
