"""The images of a report come from the records of the config, by their ids."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from detzoo.config import pb
from detzoo.tasks.evaluation_report import pixels_of_reader
from tests.cli.conftest import example


def test_images_are_found_by_id_or_by_position_and_unusable_ones_are_missing(tmp_path):
    without_id, broken, other = (tf.train.Example.FromString(example(number)) for number in (1, 2, 3))
    del without_id.features.feature["image/source_id"]
    broken.features.feature["image/encoded"].bytes_list.value[0] = b"nothing"
    path = str(tmp_path / "data.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in (example(0), *(each.SerializeToString() for each in (without_id, broken, other)), b"no example"):
            writer.write(record)
    reader = pb.InputReader()
    reader.tf_record_input_reader.input_path.append(path)
    reader.shuffle = True
    in_order = list(pixels_of_reader(reader)([str(number) for number in range(5)]))
    assert len(in_order) == 1, "the record without an id is named by its position in the order of reading"
    found = pixels_of_reader(reader)(["100", "102", "103", "nothing", *in_order])
    assert {name: image.shape for name, image in found.items()} == {
        "100": (40, 60, 3),
        "103": (40, 63, 3),
        in_order[0]: (40, 61, 3),
    }
    assert all(image.dtype == np.uint8 for image in found.values())
