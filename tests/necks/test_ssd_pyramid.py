"""The pyramid of SSD: which maps are normalised, which are added."""

from __future__ import annotations

import keras
import numpy as np

from detzoo.contracts import ConvHyperparams
from detzoo.necks.ssd_levels import add_extra_levels, normalize_levels

ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones, activation=None)


def test_vgg_maps_are_normalised_before_the_extras_are_added():
    # SSD 300 x 600 on VGG: conv4_3 of stride 8 is normalised, fc7 of stride 16 is not; the extras start from fc7.
    maps = {3: keras.Input((38, 75, 4)), 4: keras.Input((19, 38, 2))}
    pyramid = add_extra_levels(normalize_levels(maps, (3,)), (6, 4), ONES)
    model = keras.Model(list(maps.values()), list(pyramid.values()))
    outputs = model([np.full((1, 38, 75, 4), 5.0, np.float32), np.ones((1, 19, 38, 2), np.float32)])
    assert list(pyramid) == [3, 4, 5, 6]
    assert [tuple(x.shape[1:]) for x in outputs] == [(38, 75, 4), (19, 38, 2), (10, 19, 6), (5, 10, 4)]
    np.testing.assert_allclose(outputs[0], np.full((1, 38, 75, 4), 10.0), rtol=1e-6)  # 20 / sqrt(4)
    np.testing.assert_array_equal(outputs[1], np.ones((1, 19, 38, 2)))
    # On level 5 the reduction sums 2 channels of ones, and 9 taps of 3 reduced channels give 9 * 3 * 2 = 54.
    assert float(outputs[2][0, 4, 4, 0]) == 54.0


def test_options_arrive():
    maps = {4: keras.Input((19, 38, 2))}
    pyramid = add_extra_levels(maps, (64,), ONES, depth_multiplier=0.5, min_depth=20, use_depthwise=True)
    shapes = {weight.path: tuple(weight.shape) for weight in keras.Model(maps[4], list(pyramid.values())).weights}
    assert shapes["extra_5_reduce_conv/kernel"] == (1, 1, 2, 20)
    assert shapes["extra_5_depthwise_depthwise/kernel"] == (3, 3, 20, 1)
    assert shapes["extra_5_conv/kernel"] == (1, 1, 20, 32)
