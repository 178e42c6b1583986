"""A classifier's reader -> batches: crops, sizes by epoch, resumption, folders."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from detzoo.builders.inputs import build_dataset
from detzoo.builders.resize import build_model_resizer
from detzoo.config import pb
from detzoo.errors import ConfigError

NUM_IMAGES = 7


def model(train_size=(), test_view="TEN_CROPS"):
    sizes = "".join(f"train_size: {size} " for size in train_size)
    return text_format.Parse(
        "spp_classifier { num_classes: 2 network { type: 'zf_5' pyramid_bins: 1 } shorter_side: 48 crop_size: 40 "
        f"{sizes} test_view: {test_view} }}",
        pb.DetectionModel(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven images of 50 x 60 pixels in two classes, grey of 10 times their number."""
    path = tmp_path_factory.mktemp("images")
    for number in range(NUM_IMAGES):
        name = path / ("odd" if number % 2 else "even") / f"{number}.png"
        name.parent.mkdir(exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(np.full((50, 60, 3), 10 * number, np.uint8)).save(stream, "PNG")
        name.write_bytes(stream.getvalue())
    return path


def batches(folder, chosen, training=True, start=0, count=None, batch_size=2):
    reader = pb.InputReader(image_folder_reader=pb.ImageFolderReader(path=str(folder)))
    config = pb.TrainConfig()
    config.data_augmentation_options.add().random_horizontal_flip.SetInParent()
    resizer = build_model_resizer(chosen)
    dataset = build_dataset(
        reader, resizer, config, training=training, batch_size=batch_size, seed=1, start_record=start
    )
    return list(dataset if count is None else dataset.take(count))


def greys(found):
    """The grey of each image, divided by ten: its number."""
    return [round(float(image[0, 0, 0]) / 10) for batch in found for image in batch.images]


def test_training_crops_have_the_class_of_their_folder(folder):
    found = batches(folder, model(), count=7)  # two epochs
    assert {tuple(batch.images.shape) for batch in found} == {(2, 40, 40, 3)}
    numbers = greys(found)
    assert sorted(numbers[:NUM_IMAGES]) == sorted(numbers[NUM_IMAGES:]) == list(range(NUM_IMAGES))
    assert numbers[:NUM_IMAGES] != numbers[NUM_IMAGES:]  # another order
    classes = [int(row[0]) for batch in found for row in batch.groundtruth.classes]
    assert classes == [number % 2 for number in numbers]  # even: 0, odd: 1, in the order of the names
    np.testing.assert_array_equal(found[0].groundtruth.boxes_norm, [[[0, 0, 1, 1]]] * 2)


def test_sizes_alternate_by_epoch_and_a_resumed_run_goes_on(folder):
    found = batches(folder, model((40, 32)), count=8)
    # Seven records per epoch, two per batch: the first records of the batches are 0, 2, 4, 6 | 8, 10, 12 | 14.
    sizes = [batch.images.shape[1] for batch in found]
    assert sizes == [40, 40, 40, 40, 32, 32, 32, 40]
    assert [batch.true_shapes[0, 0] for batch in found] == sizes
    resumed = batches(folder, model((40, 32)), start=8, count=4)
    for first, second in zip(found[4:], resumed, strict=True):
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.record_index, second.record_index)


def test_images_to_evaluate_are_whole_and_come_once(folder):
    found = batches(folder, model((40, 32)), training=False, batch_size=3)
    assert [batch.images.shape[0] for batch in found] == [3, 3, 1]
    assert {tuple(batch.images.shape[1:]) for batch in found} == {(48, 58, 3)}  # 60 * 48 / 50 = 57.6
    assert sorted(greys(found)) == list(range(NUM_IMAGES))


def test_map_views_of_larger_scales_read_larger_images(folder):
    chosen = model(test_view="MAP_VIEWS")
    chosen.spp_classifier.map_scale.extend([40, 96])
    found = batches(folder, chosen, training=False, batch_size=7)
    assert tuple(found[0].images.shape) == (7, 96, 115, 3)
    assert tuple(batches(folder, chosen, count=1)[0].images.shape) == (2, 40, 40, 3)


def test_a_damaged_file_is_left_out(folder, tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((folder / "even" / "2.png").read_bytes())
    (tmp_path / "b" / "3.png").write_bytes(b"no image")
    found = batches(tmp_path, model(), training=False)
    assert sum(len(batch.images) for batch in found) == 2


def test_workers_share_the_images(folder):
    def read(worker):
        context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=worker, num_replicas_in_sync=2)
        reader = pb.InputReader(image_folder_reader=pb.ImageFolderReader(path=str(folder)))
        dataset = build_dataset(
            reader,
            build_model_resizer(model((40, 32))),
            pb.TrainConfig(),
            training=True,
            batch_size=2,
            seed=1,
            input_context=context,
        )
        return [int(batch.record_index[0]) for batch in dataset.take(5)]

    assert read(0) == [0, 2, 4, 6, 8]
    assert read(1) == [1, 3, 5, 7, 9]


def test_a_reader_of_neither_kind():
    options = {"training": False, "batch_size": 1, "seed": 0}
    with pytest.raises(ConfigError, match="input_reader: names no records"):
        build_dataset(pb.InputReader(), build_model_resizer(model()), None, **options)
    unnamed = pb.InputReader(tf_record_input_reader=pb.TFRecordInputReader(input_path=["x"]))
    with pytest.raises(ConfigError, match="label_map_path is missing"):
        build_dataset(unnamed, build_model_resizer(model()), None, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": 60}, r"crop_size: is 60, above shorter_side \(48\)"),
        ({"crop_size": 0}, "crop_size: is 0; accepted: 1 to 16384"),
    ],
)
def test_crops_must_fit(change, message):
    chosen = model()
    for name, value in change.items():
        setattr(chosen.spp_classifier, name, value)
    with pytest.raises(ConfigError, match=message):
        build_model_resizer(chosen)
