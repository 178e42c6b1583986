"""Random weights that make an untrained detector as fast, or as slow, as a trained one.

Fresh weights are special: biases of zero vanish from an optimised graph, and with them the kernels that add bias and
activation in the pass of the convolution; and each layer shrinks the signal, so that in the end all scores are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_SPREAD = 0.05  # of biases and statistics


def randomize(detector: Any, seed: int = 0) -> None:
    """Gives a detector weights under which activations keep their size, and scores differ as trained ones do.

    Filters are drawn with variance 2 / fan-in (He et al., arXiv:1502.01852); what is added or normalised with is moved
    a little from its first value, so that nothing is exactly 0 or 1.
    """
    generator = np.random.default_rng(seed)
    for variable in detector.variables:
        shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
        if "kernel" in name and len(shape) == 4:
            fan_in = np.prod(shape[:2]) * (1 if "depthwise" in name else shape[2])
            variable.assign(generator.normal(0.0, np.sqrt(2.0 / fan_in), shape))
        elif name in ("bias", "beta", "moving_mean"):
            variable.assign(variable.numpy() + generator.normal(0.0, _SPREAD, shape))
        elif name in ("gamma", "moving_variance"):
            variable.assign(variable.numpy() * generator.uniform(1.0 - _SPREAD, 1.0 + _SPREAD, shape))
