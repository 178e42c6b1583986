"""The toy of the chain's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def spp_toy(load_module):
    """The module spp_toy.py."""
    return load_module("recipes/spp/spp_toy.py")


@pytest.fixture(scope="module")
def detector(spp_toy):
    """A small SPP-net, not trained, whose SVMs read pooled features."""
    from detzoo.detectors.spp_net import Features

    return spp_toy.make_detector(features=Features.POOL5)


@pytest.fixture(scope="module")
def network(detector):
    """It, as the chain sees it."""
    from detzoo.recipes.spp.network import DetectorFeatures

    return DetectorFeatures(detector)


@pytest.fixture
def make_images(spp_toy, network):
    """A function: folder of the cache -> the toy's training images."""
    from detzoo.recipes.spp.images import TrainingImages
    from detzoo.recipes.spp.map_cache import MapCache

    def make(folder, max_bytes=1e9):
        cache = MapCache(folder, network.fingerprint(), max_bytes)
        return TrainingImages(spp_toy.read, network, cache, 2, spp_toy.NUM_IMAGES)

    return make


class StopAfter:
    """A StopRequest whose signal comes when it has been asked so many times."""

    def __init__(self, times):
        self._left = times
        self.signal = None

    @property
    def requested(self):
        """Returns whether to stop."""
        self._left -= 1
        return self._left < 0


@pytest.fixture
def stop_after():
    """The class."""
    return StopAfter
