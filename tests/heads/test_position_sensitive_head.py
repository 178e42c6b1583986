"""R-FCN's maps: channels, what is normalised and activated, parameters by hand."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.heads.box_head import position_sensitive_maps

ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones)


def maps_model(*args, shape=(4, 6, 5), **kwargs):
    inputs = keras.Input(shape)
    return keras.Model(inputs, position_sensitive_maps(inputs, *args, **kwargs)._asdict())


@pytest.mark.parametrize(("is_shared", "num_boxes"), [(False, 7), (True, 1)])
def test_channels_and_parameters(is_shared, num_boxes):
    # 7 classes, 3 x 2 bins and 10 channels between. The reduction has 5 * 10 + 10 parameters, the boxes have
    # 10 * 6 * 4 Q + 6 * 4 Q = 264 Q, and the classes 11 * 6 * 8 = 528.
    model = maps_model(7, (3, 2), 10, ONES, share_box_across_classes=is_shared)
    shapes = {name: tuple(output.shape) for name, output in model.output.items()}
    assert shapes == {"box_deltas": (None, 4, 6, 24 * num_boxes), "class_logits": (None, 4, 6, 48)}
    assert model.count_params() == 60 + 264 * num_boxes + 528


def test_only_the_reduction_is_activated():
    # One channel -3, 2, 1 in three cells; four reduced channels of max(x, 0), added by kernels of ones.
    outputs = maps_model(1, (1, 1), 4, ONES, shape=(1, 3, 1))(np.float32([[[[-3], [2], [1]]]]))
    np.testing.assert_array_equal(outputs["class_logits"][0, 0, :, 0], [0.0, 8.0, 4.0])
    negative = dataclasses.replace(ONES, kernel_initializer=lambda: keras.initializers.Constant(-1.0))
    outputs = maps_model(1, (1, 1), 4, negative, shape=(1, 3, 1))(np.float32([[[[-3], [2], [1]]]]))
    np.testing.assert_array_equal(outputs["box_deltas"][0, 0, :, 0], [-12.0, 0.0, 0.0])


def test_all_three_convolutions_are_normalised_where_the_hyperparameters_say_so():
    paths = {
        w.path for w in maps_model(2, (1, 1), 4, dataclasses.replace(ONES, batch_norm=BatchNormHyperparams())).weights
    }
    assert {f"{name}_batch_norm/beta" for name in ("reduce", "box_maps", "class_maps")} <= paths
    assert not any(path.endswith("/bias") for path in paths)
