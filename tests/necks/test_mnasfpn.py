"""MnasFPN by hand, with kernels that average a map's channels, and its sizes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from detzoo.necks.mnasfpn import mnasfpn

SHAPES = {3: (7, 10, 1), 4: (4, 5, 1), 5: (2, 3, 1)}  # odd sizes, not square


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "padded-and-frozen"])
def model(request):
    inputs = {level: keras.Input(shape) for level, shape in SHAPES.items()}
    options = {"freeze_batchnorm": request.param, "explicit_padding": request.param}
    outputs = mnasfpn(inputs, 1, lambda width: width // 16, **options)
    model = keras.Model(list(inputs.values()), outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):
            kernel = np.zeros(layer.depthwise_kernel.shape, np.float32)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1.0  # the middle tap
            layer.depthwise_kernel.assign(kernel)
            layer.pointwise_kernel.assign(np.full(layer.pointwise_kernel.shape, 1.0 / kernel.shape[2]))
        elif isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1.0 - layer.epsilon))
    return model


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        # P6 starts as C5. In each cell a = P4 + P5, b = P3 + a, and the new maps are P3 + b, P4 + a + b, P5 + a + P6
        # and P6 + a + P6: (8, 15, 14, 14), (45, 81, 57, 57), (228, 402, 252, 252) and (1110, 1938, 1158, 1158) / 1000.
        ((0.001, 0.002, 0.004), (1.110, 1.938, 1.158, 1.158)),
        # ReLU6 cuts sums, not shortcuts: (0.8, 1.5, 1.4, 1.4), (4.5, 7.5, 5.7, 5.7), and then every node gives 6.
        ((0.1, 0.2, 0.4), (16.5, 19.5, 17.7, 17.7)),
    ],
)
def test_four_cells(model, maps, expected):
    outputs = model([np.full((2, *shape), value) for shape, value in zip(SHAPES.values(), maps, strict=True)])
    sizes = {**{level: (2, *shape) for level, shape in SHAPES.items()}, 6: (2, 1, 2, 1)}
    assert {level: x.shape for level, x in outputs.items()} == sizes
    for level, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(outputs[level], value, rtol=1e-4)


def test_every_convolution_is_normalized(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 61  # 4 cells of 5 nodes of 3, and that of P6
    assert {norm.moves_statistics for norm in norms} == {not has_padding(model)}


def has_padding(model):
    return any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in model.layers)
