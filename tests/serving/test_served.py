"""The serving interface: the original API's names and types, any image size, every input type, any batch."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.errors import UsageError
from detzoo.serving.served import ServingModule

SHAPES = {
    "detection_boxes": (5, 4),
    "detection_scores": (5,),
    "detection_classes": (5,),
    "num_detections": (),
    "detection_multiclass_scores": (5, 4),
    "detection_anchor_indices": (5,),
    "raw_detection_boxes": (24, 4),
    "raw_detection_scores": (24, 4),
}


@pytest.fixture(scope="module")
def serving(toy):
    return ServingModule(toy.toy_detector(), toy.ToyResizer())


def image(height=40, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def assert_same(outputs, others):
    assert set(outputs) == set(others)
    for name, value in outputs.items():
        np.testing.assert_allclose(value, others[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("height", "width", "batch"), [(40, 70, 1), (33, 21, 1), (64, 64, 3)])
def test_outputs_have_the_names_shapes_and_type_of_the_original(serving, height, width, batch):
    outputs = serving(np.stack([image(height, width)] * batch))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        name: (batch, *shape) for name, shape in SHAPES.items()
    }
    assert {value.dtype for value in outputs.values()} == {tf.float32}
    assert serving.concrete_function().structured_input_signature[0][0].name == "input_tensor"


def test_masks_of_a_detector_that_has_them(toy, serving):
    masked = ServingModule(toy.toy_detector(kind=toy.ToyMaskDetector), toy.ToyResizer())
    outputs = masked(np.stack([image(), image(seed=1)]))
    assert set(outputs) == {*SHAPES, "detection_masks"}
    np.testing.assert_array_equal(outputs["detection_masks"][1, 4], [[1, 0.5, 0]] * 3)
    assert outputs["detection_masks"].shape == (2, 5, 3, 3)
    np.testing.assert_array_equal(outputs["detection_boxes"][0], serving(image()[np.newaxis])["detection_boxes"][0])


def test_a_first_stage_alone_serves_its_proposals(toy, serving):
    proposer = ServingModule(toy.toy_detector(kind=toy.ToyProposer), toy.ToyResizer())
    outputs, expected = proposer(image()[np.newaxis]), serving(image()[np.newaxis])
    np.testing.assert_array_equal(outputs["detection_boxes"], expected["detection_boxes"])
    np.testing.assert_array_equal(outputs["detection_classes"], np.ones([1, 5]))
    nodes = {node.name for node in proposer.concrete_function().graph.as_graph_def().node}
    assert {"stage_proposal_boxes", "stage_proposal_scores", "stage_num_proposals"} <= nodes
    assert not {"stage_box_deltas", "stage_class_logits"} & nodes


def test_classes_start_at_one(serving):
    outputs = serving(image()[np.newaxis])
    best = np.argmax(outputs["raw_detection_scores"][0, :, 1:], -1)
    rows = outputs["detection_anchor_indices"][0].numpy().astype(int)
    np.testing.assert_array_equal(outputs["detection_classes"][0], best[rows] + 1.0)


def test_a_batch_is_its_images_one_by_one(serving):
    images = np.stack([image(seed=1), image(seed=2)])
    together = serving(images)
    for row in range(2):
        alone = serving(images[row : row + 1])
        assert_same({name: value[row] for name, value in together.items()}, {n: v[0] for n, v in alone.items()})


def test_every_input_type_sees_the_same_image(toy, serving):
    pixels = image()
    expected = serving(pixels[np.newaxis])
    detector, resizer = serving.detector, toy.ToyResizer()
    floats = ServingModule(detector, resizer, "float_image_tensor")(pixels[np.newaxis].astype(np.float32))
    assert_same(floats, expected)
    encoded = ServingModule(detector, resizer, "encoded_image_string_tensor")(tf.constant([png(pixels)]))
    assert_same(encoded, expected)
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(pixels)]))}
    example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    assert_same(ServingModule(detector, resizer, "tf_example")(tf.constant([example])), expected)


def test_encoded_images_of_different_sizes_share_a_batch(toy, serving):
    pixels = [image(40, 70, 1), image(25, 30, 2)]
    encoded = ServingModule(serving.detector, toy.ToyResizer(), "encoded_image_string_tensor")
    outputs = encoded(tf.constant([png(one) for one in pixels]))
    for row, one in enumerate(pixels):
        alone = serving(one[np.newaxis])
        assert_same({name: value[row] for name, value in outputs.items()}, {n: v[0] for n, v in alone.items()})


def test_a_resizer_whose_size_follows_the_image(toy):
    class Keep:
        static_shape = (None, None)

        def __call__(self, pixels):
            return tf.cast(pixels, tf.float32), tf.shape(pixels)[:2]

    detector = toy.toy_detector()
    outputs = ServingModule(detector, Keep())(image(32, 48)[np.newaxis])
    assert outputs["detection_boxes"].shape == (1, 5, 4)


def test_an_unknown_input_type_is_refused(toy):
    with pytest.raises(UsageError, match="--input_type is 'jpeg'; accepted: image_tensor"):
        ServingModule(toy.toy_detector(), toy.ToyResizer(), "jpeg")
