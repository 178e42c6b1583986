"""Folds the normalization of stored layers into kernels, where the detector has no variables for it.

The Object Detection API's Inception v2 normalizes its first layer, which has a bias here, and in two-stage detectors it
has a gamma in every normalization, which has none here. Inference is equal. Fine-tuning may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from detzoo.checkpoints.tensorflow1 import Match

EPSILON = 0.001  # of Inception v2's normalizations
_GAMMA, _REASON = "/BatchNorm/gamma", "normalization that is folded into kernels and biases"


def fold(
    match: Match, paths: Collection[str], read: Callable[[str], np.ndarray]
) -> tuple[Match, Callable[[str], np.ndarray]]:
    """Returns the match with the folded variables, and a function that returns the value of a path.

    Args:
        match: Variables of the detector found in a checkpoint of TensorFlow 1.
        paths: Paths of all variables of the detector.
        read: Function that returns a tensor of the checkpoint by its name.
    """
    path_of = {name: path for path, name in match.keys.items()}
    keys, leftovers = dict(match.keys), dict(match.leftovers)
    computed: dict[str, Callable[[], np.ndarray]] = {}

    def fold_gamma(layer: str, kernel: str, mean: str) -> None:
        """Scales a kernel and the mean of its outputs."""
        computed[kernel] = lambda: read(keys[kernel]) * read(layer + _GAMMA)
        computed[mean] = lambda: read(keys[mean]) * read(layer + _GAMMA)

    def fold_all(layer: str, kernel: str, bias: str) -> None:
        """Scales a kernel by gamma / deviation, and makes a bias of the rest."""
        norm = {leaf: f"{layer}/BatchNorm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}

        def scale() -> np.ndarray:
            return read(norm["gamma"]) / np.sqrt(read(norm["moving_variance"]) + EPSILON)

        keys[bias] = norm["beta"]
        computed[kernel] = lambda: read(keys[kernel]) * scale()
        computed[bias] = lambda: read(norm["beta"]) - read(norm["moving_mean"]) * scale()

    for name in match.unused:
        layer = name.removesuffix(_GAMMA)
        kernel = path_of.get(f"{layer}/pointwise_weights") or path_of.get(f"{layer}/weights", "")
        if layer == name or not kernel:
            continue
        mean, bias = path_of.get(f"{layer}/BatchNorm/moving_mean"), f"{kernel.rpartition('/')[0]}/bias"
        if mean is not None:
            fold_gamma(layer, kernel, mean)
            leftovers[name] = _REASON
        elif bias in paths and bias not in keys:
            fold_all(layer, kernel, bias)
            leftovers |= {other: _REASON for other in match.unused if other.startswith(f"{layer}/BatchNorm/")}
            del leftovers[keys[bias]]
    rest = [name for name in match.unused if name not in leftovers and name not in keys.values()]
    folded = Match(keys, rest, leftovers)
    return folded, lambda path: computed[path]() if path in computed else read(keys[path])
