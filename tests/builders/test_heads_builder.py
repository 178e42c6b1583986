"""From box_predictor blocks to heads: each field changes the head, and contradictions are refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from google.protobuf import text_format

from detzoo.builders.heads import build_dense_head
from detzoo.config import pb

BATCH_NORM = "conv_hyperparams { activation: RELU_6 batch_norm { scale: true } }"


def head_model(text, num_anchors=(2, 2), num_columns=5, **kwargs):
    head = build_dense_head(text_format.Parse(text, pb.BoxPredictor()), num_anchors, num_columns, **kwargs)
    maps = {3: keras.Input((3, 4, 8)), 4: keras.Input((2, 2, 8))}
    outputs = head(maps)
    return keras.Model(list(maps.values()), [outputs.box_deltas, outputs.class_logits])


def shapes(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


def test_convolutional_predictor():
    fields = """
        num_layers_before_predictor: 1 max_depth: 6
        kernel_size: 3 class_prediction_bias_init: -2
        """
    model = head_model(f"convolutional_box_predictor {{ {fields} {BATCH_NORM} }}", num_anchors=(3, 6))
    assert shapes(model)["head_3_shared_0_conv/kernel"] == (1, 1, 8, 6)
    assert shapes(model)["class_predictor_4/kernel"] == (3, 3, 6, 30)
    bias = next(weight for weight in model.weights if weight.path == "class_predictor_4/bias")
    np.testing.assert_array_equal(bias, np.full(30, -2.0))
    assert model.get_layer("head_3_dropout").rate == pytest.approx(0.2)  # the schema's default: keep 0.8


def test_weight_shared_predictor():
    fields = """
        depth: 16 num_layers_before_predictor: 2
        class_prediction_bias_init: -4.6
        """
    model = head_model(f"weight_shared_convolutional_box_predictor {{ {fields} {BATCH_NORM} }}")
    assert shapes(model)["class_tower_1/kernel"] == (3, 3, 16, 16)
    assert shapes(model)["box_tower_0_level_4_batch_norm/gamma"] == (16,)
    assert "head_3_dropout" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("share_prediction_tower: true", "tower_0/kernel"),
        ("use_depthwise: true", "box_tower_0/pointwise_kernel"),
        ("kernel_size: 1", "box_tower_0/kernel"),
    ],
)
def test_fields_of_the_weight_shared_predictor(field, path):
    fields = f"depth: 16 num_layers_before_predictor: 1 {field} {BATCH_NORM}"
    assert path in shapes(head_model(f"weight_shared_convolutional_box_predictor {{ {fields} }}"))


@pytest.mark.parametrize(
    "text",
    [
        """
        convolutional_box_predictor {
          use_dropout: false apply_sigmoid_to_scores: true
          box_encodings_clip_range { min: -0.5 max: 0.25 }
          conv_hyperparams { initializer { random_normal_initializer { stddev: 3 } } }
        }
        """,
        """
        weight_shared_convolutional_box_predictor {
          depth: 8 score_converter: SIGMOID
          box_encodings_clip_range { min: -0.5 max: 0.25 }
          conv_hyperparams { initializer { random_normal_initializer { stddev: 3 } } }
        }
        """,
    ],
)
def test_outputs_are_clipped_and_converted_on_request(text):
    maps = [np.ones((1, *shape), np.float32) for shape in ((3, 4, 8), (2, 2, 8))]
    boxes, scores = (np.asarray(x) for x in head_model(text)(maps))
    assert (boxes.min(), boxes.max()) == (-0.5, 0.25)
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0


def test_frozen_batch_norm_arrives():
    fields = f"depth: 16 num_layers_before_predictor: 1 {BATCH_NORM}"
    model = head_model(f"weight_shared_convolutional_box_predictor {{ {fields} }}", freeze_batchnorm=True)
    assert model.get_layer("box_tower_0_level_3_batch_norm").train_statistics is False
