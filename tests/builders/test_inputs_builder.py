"""An input reader's message becomes a dataset: each field has its effect, and what is not supported is named."""

from __future__ import annotations

import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from detzoo.builders.inputs import build_dataset
from detzoo.config import pb
from detzoo.config.label_map import LabelMap
from detzoo.data.issue_counter import IssueCounter
from detzoo.data.proposals import write_proposals
from detzoo.errors import ConfigError, DataError

RESIZER = text_format.Parse("fixed_shape_resizer { height: 8 width: 12 }", pb.ImageResizer())


def record(number: int, num_boxes: int, name: str, source_id: str = "") -> bytes:
    buffer = io.BytesIO()
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12] = number
    Image.fromarray(pixels).save(buffer, "PNG")
    mask = io.BytesIO()
    Image.fromarray(np.ones((16, 24), np.uint8)).save(mask, "PNG")
    message = tf.train.Example()
    features = message.features.feature
    features["image/encoded"].bytes_list.value.append(buffer.getvalue())
    features["image/source_id"].bytes_list.value.append(source_id.encode())
    for side, value in zip(("ymin", "xmin", "ymax", "xmax"), (0.0, 0.0, 1.0, 0.5)):
        features[f"image/object/bbox/{side}"].float_list.value.extend([value] * num_boxes)
    features["image/object/class/text"].bytes_list.value.extend([name.encode()] * num_boxes)
    features["image/object/class/label"].int64_list.value.extend([2] * num_boxes)
    features["image/object/mask"].bytes_list.value.extend([mask.getvalue()] * num_boxes)
    return message.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Eight records in two shards, six boxes each, of class "dog"; and a label map."""
    path = tmp_path_factory.mktemp("records")
    for shard in range(2):
        with tf.io.TFRecordWriter(str(path / f"train-0000{shard}-of-00002")) as writer:
            for number in range(4 * shard, 4 * shard + 4):
                writer.write(record(number + 1, 6, "dog"))
    LabelMap({1: "cat", 2: "n02", 3: "dog"}, {2: "dog", 3: "hound"}).save(path / "label_map.pbtxt")
    return path


def read(folder: pathlib.Path, fields: str = "", train_config: str | None = None, files: str = "train-*", **options):
    paths = ", ".join(f"'{folder}/{pattern}'" for pattern in files.split())
    text = f"tf_record_input_reader {{ input_path: [{paths}] }} {fields}"
    reader = text_format.Parse(text, pb.InputReader())
    config = None if train_config is None else text_format.Parse(train_config, pb.TrainConfig())
    values = {"training": False, "batch_size": 4, "seed": 1, **options}
    return build_dataset(reader, RESIZER, config, **values)


def numbers(dataset: tf.data.Dataset) -> list[int]:
    return [int(value) for batch in dataset for value in np.asarray(batch.images).max(axis=(1, 2, 3))]


def test_evaluation_is_one_epoch_of_every_record(folder):
    assert sorted(numbers(read(folder, batch_size=3))) == list(range(1, 9))
    in_order = numbers(read(folder, "shuffle: false num_readers: 1", batch_size=3))
    assert in_order == list(range(1, 9))


def test_training_is_endless_and_full(folder):
    dataset = read(folder, training=True, train_config="", batch_size=3)
    assert dataset.element_spec.images.shape == (3, 8, 12, 3)
    drawn = numbers(dataset.take(8))
    assert sorted(drawn[:8]) == sorted(drawn[8:16]) == list(range(1, 9))
    assert len(numbers(read(folder, "num_epochs: 2 drop_remainder: false", training=True, batch_size=3))) == 16


def test_the_seed_decides_the_order(folder):
    dataset = read(folder)
    first, again = numbers(dataset), numbers(dataset)
    assert first == again
    assert first != numbers(read(folder, seed=2))


def test_start_record_continues(folder):
    whole = numbers(read(folder, training=True, train_config="").take(5))
    assert numbers(read(folder, training=True, train_config="", start_record=12).take(2)) == whole[12:]


def test_augmentations_belong_to_training_only(folder):
    config = "data_augmentation_options { random_horizontal_flip { probability: 1 } }"
    trained = next(iter(read(folder, training=True, train_config=config)))
    np.testing.assert_allclose(trained.groundtruth.boxes_norm[0, 0], [0.0, 0.5, 1.0, 1.0])
    assert not np.asarray(trained.images)[:, :, :5].any()
    evaluated = next(iter(read(folder, training=False, train_config=config)))
    np.testing.assert_allclose(evaluated.groundtruth.boxes_norm[0, 0], [0.0, 0.0, 1.0, 0.5])


def test_sizes_are_drawn_in_training_only(folder):
    sizes = """
        keep_aspect_ratio_resizer {
          min_dimension: 8 max_dimension: 12
          training_min_dimensions: 4
        }
        """
    resizer = text_format.Parse(sizes, pb.ImageResizer())
    reader = text_format.Parse(f"tf_record_input_reader {{ input_path: '{folder}/train-*' }}", pb.InputReader())

    def shorter_sides(training):
        batch = next(iter(build_dataset(reader, resizer, None, training=training, batch_size=8, seed=1)))
        return np.min(batch.true_shapes, axis=1)

    np.testing.assert_array_equal(shorter_sides(training=True), [4] * 8)
    np.testing.assert_array_equal(shorter_sides(training=False), [8] * 8)


def test_max_number_of_boxes(folder):
    issue = IssueCounter()
    batch = next(iter(read(folder, "max_number_of_boxes: 4", issue=issue)))
    assert batch.groundtruth.classes.shape == (4, 4)
    assert issue.counts()["too_many_boxes"] >= 8
    batch = next(iter(read(folder, "max_number_of_boxes: 4", training=True, train_config="max_number_of_boxes: 7")))
    np.testing.assert_array_equal(batch.groundtruth.classes[0], [1] * 6 + [-1])


def test_label_map_names_win_over_labels_and_display_names(folder):
    batch = next(iter(read(folder, f"label_map_path: '{folder}/label_map.pbtxt'")))
    assert int(batch.groundtruth.classes[0, 0]) == 2  # "dog" is the name of id 3, and the display name of id 2
    assert int(next(iter(read(folder))).groundtruth.classes[0, 0]) == 1  # without a map: the label itself


def test_labels_are_merged_in_training_only(folder):
    # Six times the same box of "dog", which is id 3 here.
    fields, config = f"label_map_path: '{folder}/label_map.pbtxt'", "merge_multiple_label_boxes: true"
    truth = next(iter(read(folder, fields, config, training=True))).groundtruth
    assert truth.label_sets[0, 0].numpy().tolist() == [False, False, True]
    assert truth.classes[0, :2].numpy().tolist() == [2, -1]
    assert next(iter(read(folder, fields, config, training=False))).groundtruth.label_sets == ()
    assert next(iter(read(folder, fields, "", training=True))).groundtruth.label_sets == ()
    with pytest.raises(ConfigError, match="merge_multiple_label_boxes needs the label map"):
        read(folder, "", config, training=True)


def test_masks_are_read_on_demand(folder):
    assert next(iter(read(folder))).groundtruth.masks.shape == (4, 100, 0, 0)
    masks = next(iter(read(folder, "load_instance_masks: true mask_type: PNG_MASKS"))).groundtruth.masks
    assert masks.shape == (4, 100, 8, 12)
    assert np.asarray(masks).sum() == 4 * 6 * 8 * 12


def test_masks_that_are_not_there_or_of_the_other_kind_are_told_at_once(folder, tmp_path):
    with pytest.raises(DataError, match=r"8 of the first 8 records .* of the other kind; set mask_type: PNG_MASKS"):
        read(folder, "load_instance_masks: true mask_type: NUMERICAL_MASKS")
    with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
        for number, num_boxes in enumerate((1, 1, 0, 1), start=1):
            message = tf.train.Example.FromString(record(number, num_boxes, "dog"))
            del message.features.feature["image/object/mask"]
            writer.write(message.SerializeToString())
    assert numbers(read(tmp_path))  # without masks they are what is needed
    with pytest.raises(DataError, match=r"load_instance_masks is true, but 3 of the first 3 records with objects have"):
        read(tmp_path, "load_instance_masks: true mask_type: PNG_MASKS")


def test_sampling_and_weighted_sources(folder):
    assert len(numbers(read(folder, "sample_1_of_n_examples: 3"))) == 3
    weighted = read(folder, "sample_from_datasets_weights: [0, 1]", files="train-00000* train-00001*", training=True)
    assert set(numbers(weighted.take(4))) == {5, 6, 7, 8}


def test_pipelines_share_one_order(folder):
    # Two workers, one replica each: a global batch of 4 is 2 images on either.
    context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=2)
    whole = numbers(read(folder, training=True).take(4))
    dataset = read(folder, training=True, input_context=context)
    assert dataset.element_spec.images.shape[0] == 2
    assert numbers(dataset.take(4)) == whole[1::2]


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("", {}, ConfigError, r"input_reader: names no records; add tf_record_input_reader"),
        ("tf_record_input_reader { input_path: '/nowhere/x-*' }", {}, DataError, "/nowhere/x-.*does not exist"),
        ("num_keypoints: 1 input_type: TF_SEQUENCE_EXAMPLE", {}, ConfigError, "num_keypoints: is set, but images of"),
        (
            "tf_record_input_reader {} num_additional_channels: 1",
            {},
            ConfigError,
            "num_additional_channels: images have 3 channels",
        ),
        ("tf_record_input_reader { input_path: 'x' }", {"batch_size": 0}, ConfigError, "batch_size 0 must be above 0"),
        ("tf_record_input_reader {}", {}, ConfigError, "input_path: is missing; give a TFRecord file"),
    ],
)
def test_what_cannot_be_read_is_an_error(text, options, error, message):
    reader = text_format.Parse(text, pb.InputReader())
    with pytest.raises(error, match=message):
        build_dataset(reader, RESIZER, None, **{"training": False, "batch_size": 2, "seed": 0, **options})


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> pathlib.Path:
    """Records "n1" to "n4"; proposals of all but "n3", image n has n of them with the scores 0.1 to 0.n."""
    path = tmp_path_factory.mktemp("named")
    with tf.io.TFRecordWriter(str(path / "train-0")) as writer:
        for number in range(1, 5):
            writer.write(record(number, 1, "dog", f"n{number}"))
    boxes = np.array([[0.0, 0.25, 0.5, 1.0], [0.0, 0.0, 1.0, 0.5], [0.5, 0.0, 1.0, 1.0], [0, 0, 1, 1]], np.float32)
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    names = ["n4", "n2", "n1", "other"]
    write_proposals(
        path / "proposals.npz", names, [boxes, boxes[:2], boxes[:1], boxes], [scores, scores[:2], [0.1], scores]
    )
    return path


def proposals_of(dataset: tf.data.Dataset) -> dict[str, tuple[np.ndarray, ...]]:
    """Image id -> boxes, scores and their number."""
    return {
        name.decode(): tuple(np.asarray(part)[row] for part in batch.proposals)
        for batch in dataset
        for row, name in enumerate(batch.image_ids.numpy())
    }


def test_proposals_come_with_their_images(named):
    issue = IssueCounter()
    fields = f"proposals_path: '{named}/proposals.npz' max_number_of_proposals: 3"
    dataset = read(named, fields, batch_size=4, issue=issue)
    assert dataset.element_spec.proposals.boxes_norm.shape.as_list() == [None, 3, 4]
    found = proposals_of(dataset)
    assert {name: count for name, (_, _, count) in found.items()} == {"n1": 1, "n2": 2, "n3": 0, "n4": 3}
    boxes, scores, _ = found["n4"]
    np.testing.assert_allclose(scores, [0.4, 0.3, 0.2])  # the best three of four
    np.testing.assert_allclose(boxes, [[0, 0, 1, 1], [0.5, 0, 1, 1], [0, 0, 1, 0.5]])
    np.testing.assert_allclose(found["n2"][0], [[0, 0, 1, 0.5], [0, 0.25, 0.5, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(found["n3"][1], [0, 0, 0])
    assert issue.counts() == {"missing_proposals": 1}
    assert read(named).element_spec.proposals == ()


def test_proposals_are_fractions_of_the_padded_input(named, tmp_path):
    # The original is 16 x 24; columns 6 to 18 of it are a quarter to three quarters. Resized to 8 x 12, padded to 12.
    entries = [{"image_id": f"n{n}", "bbox": [6, 0, 12, 20], "score": 0.5} for n in range(1, 5)]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    resizer = text_format.Parse(
        """
        keep_aspect_ratio_resizer {
          min_dimension: 12 max_dimension: 12
          pad_to_max_dimension: true
        }
        """,
        pb.ImageResizer(),
    )
    reader = text_format.Parse(
        f"tf_record_input_reader {{ input_path: '{named}/train-0' }} proposals_path: '{tmp_path}/list.json'",
        pb.InputReader(),
    )
    batch = next(iter(build_dataset(reader, resizer, None, training=False, batch_size=4, seed=0)))
    np.testing.assert_array_equal(batch.true_shapes[0], [8, 12])
    # 20 rows from the top are cut at 16, the image's height, which is two thirds of the padded one.
    np.testing.assert_allclose(batch.proposals.boxes_norm[:, 0], [[0, 0.25, 2 / 3, 0.75]] * 4, rtol=1e-6)
    np.testing.assert_array_equal(batch.proposals.num_valid, [1] * 4)


def test_proposals_are_augmented_with_their_image_and_the_same_after_a_restart(named):
    fields = f"proposals_path: '{named}/proposals.npz' max_number_of_proposals: 2"
    flip = "data_augmentation_options { random_horizontal_flip { probability: 0.5 } }"
    whole = list(read(named, fields, training=True, train_config=flip, batch_size=2).take(20))
    rest = list(read(named, fields, training=True, train_config=flip, batch_size=2, start_record=12).take(14))
    for late, expected in zip(rest, whole[6:]):
        tf.nest.map_structure(np.testing.assert_array_equal, tuple(late), tuple(expected))
    seen = set()
    for batch in whole:
        for row, name in enumerate(batch.image_ids.numpy()):
            if name == b"n1":
                # The object covers the left half, the proposal three quarters on the right: they flip together.
                is_flipped = float(batch.groundtruth.boxes_norm[row, 0, 1]) == 0.5
                expected = [0, 0, 0.5, 0.75] if is_flipped else [0, 0.25, 0.5, 1]
                np.testing.assert_allclose(batch.proposals.boxes_norm[row, 0], expected)
                seen.add(is_flipped)
    assert seen == {False, True}


def test_proposals_of_other_images_are_refused(named, folder, tmp_path):
    write_proposals(tmp_path / "other.npz", ["n1", "x"], [np.float32([[0, 0, 1, 1]])] * 2, [[0.5]] * 2)
    message = r"image ids do not match, 3 of the first 4 records .* image/source_id 'n2', the file has 'n1'"
    with pytest.raises(DataError, match=message):
        read(named, f"proposals_path: '{tmp_path}/other.npz'")
    with pytest.raises(DataError, match="the records have no image/source_id"):
        read(folder, f"proposals_path: '{tmp_path}/other.npz'")
    with pytest.raises(DataError, match=r"none\.npz cannot be read: No such file"):
        read(named, f"proposals_path: '{tmp_path}/none.npz'")
    with pytest.raises(ConfigError, match="max_number_of_proposals: is 0; accepted: 1 to"):
        read(named, f"proposals_path: '{tmp_path}/other.npz' max_number_of_proposals: 0")


def test_ids_of_weighted_sources_are_compared_too(named):
    fields = f"proposals_path: '{named}/proposals.npz' sample_from_datasets_weights: [1, 1]"
    text = f"tf_record_input_reader {{ input_path: ['{named}/train-0', '{named}/train-0'] }} {fields}"
    reader = text_format.Parse(text, pb.InputReader())
    dataset = build_dataset(reader, RESIZER, None, training=True, batch_size=4, seed=0)
    assert set(proposals_of(dataset.take(5))) == {"n1", "n2", "n3", "n4"}


def test_batch_size_must_divide_over_replicas(folder):
    context = tf.distribute.InputContext(num_input_pipelines=1, input_pipeline_id=0, num_replicas_in_sync=3)
    with pytest.raises(ConfigError, match="batch_size 4 must be above 0 and a multiple of 3"):
        read(folder, input_context=context)


def test_raccoon_records_as_they_are(shared):
    path = shared / "data" / "raccoon" / "test.record"
    reader = text_format.Parse(f"tf_record_input_reader {{ input_path: '{path}' }}", pb.InputReader())
    issue = IssueCounter()
    dataset = build_dataset(reader, RESIZER, None, training=False, batch_size=8, seed=0, issue=issue)
    batches = list(dataset)
    assert sum(len(batch.images) for batch in batches) == 40
    assert sum(int((np.asarray(batch.groundtruth.classes) == 0).sum()) for batch in batches) > 40
    assert "unreadable" not in issue.counts()
