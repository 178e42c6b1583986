"""How fast this machine multiplies matrices just now: latencies of different machines and hours become comparable."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

MATRIX_SIZE = 3072

Result = TypeVar("Result")


def beside_yardstick(work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and the mean of ``measure_gflops`` before and after it.

    Machines change their speed within seconds, so one of the two alone says too little about the time between.
    """
    before = measure_gflops()
    result = work()
    return result, (before + measure_gflops()) / 2


def measure_gflops(repeats: int = 3, size: int = MATRIX_SIZE) -> float:
    """Median speed of a float32 matrix product through TensorFlow, in 10**9 floating-point operations a second.

    A multiply-add counts as two operations. Product and clock include the time until the result is there.
    """
    generator = np.random.default_rng(0)
    matrix = tf.constant(generator.standard_normal((size, size), dtype=np.float32))

    def product(a: Any) -> Any:
        return tf.linalg.matmul(a, a)  # outside of a function, where no graph optimizer can lower its precision

    product(matrix)[0, 0].numpy()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(matrix)[0, 0].numpy()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / float(np.median(seconds)) / 1e9
