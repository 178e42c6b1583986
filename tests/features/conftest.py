"""Backbones that several tests read; each is built once."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest


@pytest.fixture(scope="session")
def full_backbone() -> Callable[[str], keras.Model]:
    """Type string -> the backbone of a pyramid on all its maps, any image size; its weights have no values."""
    from detzoo.builders.features import build_feature_extractor
    from detzoo.config import pb
    from detzoo.features.network import symbolic

    built: dict[str, keras.Model] = {}

    def build(type_name: str) -> keras.Model:
        if type_name not in built:
            message = pb.SsdFeatureExtractor(type=type_name, fpn=pb.FeaturePyramidNetworks(min_level=2, max_level=5))
            built[type_name] = symbolic(lambda: build_feature_extractor(message).model)
        return built[type_name]

    return build
