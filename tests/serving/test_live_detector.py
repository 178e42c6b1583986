"""A detector in memory finds what its export finds, for images of several shapes, with masks and without."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.errors import UsageError
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.live_detector import LiveDetector
from detzoo.serving.saved_detector import SavedDetector

SHAPES = [(50, 90), (32, 48), (50, 90), (70, 40)]


def images():
    return [np.random.default_rng(row).integers(0, 256, (*shape, 3), np.uint8) for row, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("kind", ["ToyDetector", "ToyMaskDetector"])
def test_it_detects_as_its_export(toy, tmp_path, kind):
    detector, resizer = toy.toy_detector(kind=getattr(toy, kind)), toy.ToyResizer()
    export_detector(detector, resizer, tmp_path, "image_tensor", Export())
    live, saved = LiveDetector(detector, resizer), SavedDetector(tmp_path)
    assert live.has_masks == saved.has_masks == (kind == "ToyMaskDetector")
    for together in (live.detect_all(images()), saved.detect_all(images())):
        for image, found in zip(images(), together, strict=True):
            alone = saved(image)
            np.testing.assert_allclose(found.boxes_norm, alone.boxes_norm, atol=1e-5)
            np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
            np.testing.assert_array_equal(found.class_ids, alone.class_ids)
            assert (found.masks is None) == (alone.masks is None)


def test_images_of_free_size_run_together_only_if_they_are_equal(load_module):
    small = load_module("small_one_stage.py")
    free = "ssd { image_resizer { keep_aspect_ratio_resizer { min_dimension: 32 max_dimension: 64 } } }"
    live = LiveDetector(*small.detector_and_resizer(small.FPN_LITE, free))
    batches, detect = [], live._detect
    live._detect = lambda *inputs: batches.append(inputs[0].shape.as_list()) or detect(*inputs)
    together = live.detect_all(images())
    # The shorter side becomes 32: 50 x 90 times 32/50 is 32 x 57.6, 70 x 40 times 32/40 is 56 x 32.
    assert sorted(batches) == [[1, 32, 48, 3], [1, 56, 32, 3], [2, 32, 58, 3]]
    for image, found in zip(images(), together, strict=True):
        np.testing.assert_allclose(found.boxes_norm, live(image).boxes_norm, atol=1e-5)


def test_a_detector_of_given_regions_needs_them(toy):
    live = LiveDetector(toy.toy_detector(kind=toy.ToyRegionDetector), toy.ToyResizer())
    with pytest.raises(UsageError, match="so it needs the proposals of each image"):
        live(images()[0])
