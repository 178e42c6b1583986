"""Models that classify given regions are measured with random ones: latency, stages, multiply-adds, memory, process."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.benchmark import runner
from detzoo.benchmark.images import batches, random_images
from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.benchmark.random_weights import randomize
from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.given_regions import GivenRegions
from detzoo.serving.saved_detector import SavedDetector
from tests import small_two_stage
from tests.detectors.test_spp_net import message_of as spp_net_of

QUICK = BenchmarkOptions(runs=2, warmup=1, min_seconds=0.0, image_shape=(60, 90), num_proposals=20)


def export(message, folder):
    detector = build_detector(message)
    randomize(detector)
    export_detector(detector, build_model_resizer(message), folder, "image_tensor", Export(compares=False))
    return folder


@pytest.fixture(scope="module")
def spp_net(tmp_path_factory):
    message = spp_net_of("max_proposals: 2000")
    return export(message, tmp_path_factory.mktemp("spp_net"))


@pytest.fixture(scope="module")
def measured(spp_net):
    return next(runner.benchmark_batch_sizes(spp_net, QUICK))


def test_batches_bring_regions_of_each_image(spp_net):
    given = batches(SavedDetector(spp_net), random_images((60, 90), 4), 2, num_proposals=7)
    assert [type(each) for each in given] == [GivenRegions] * 2
    assert [tuple(each.images.shape) for each in given] == [(2, 60, 90, 3)] * 2
    assert [tuple(each.proposals.shape) for each in given] == [(2, 7, 4)] * 2
    assert not np.array_equal(given[0].proposals, given[1].proposals)


def test_the_convolutions_are_the_extractor_and_the_windows_the_heads(measured):
    """20 windows of 50 x 26 numbers through fc6 and fc7 of 16 and SVMs of 3 classes, and 12 numbers of boxes."""
    stages = measured["multiply_adds_by_stage"]
    assert stages["heads"] == 20 * (1300 * 16 + 16 * 16 + 16 * 3 + 1300 * 12)
    assert stages["extractor"] == measured["multiply_adds"] - stages["heads"]
    assert (stages["first_stage"], stages["second_stage"]) == (None, None)
    assert measured["stages"]["extractor_ms"] > 0
    assert measured["stages"]["first_stage_ms"] is None


def test_memory_and_a_process_of_its_own_are_measured(measured):
    assert measured["memory"]["peak_mib"] > measured["memory"]["weights_mib"] > 0
    assert measured["process"]["peak_mib"] > 0
    assert measured["latency"]["median_ms"] > 0


@pytest.mark.slow
def test_fast_rcnn_has_no_first_stage_to_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "measure_process", lambda *_, **__: None)
    measured = next(runner.benchmark_batch_sizes(export(small_two_stage.message_of("from_reader"), tmp_path), QUICK))
    assert measured["stages"]["first_stage_ms"] is None
    assert measured["multiply_adds_by_stage"]["heads"] > 0


def test_random_weights_score_classes_differently():
    detector = build_detector(spp_net_of())
    randomize(detector)
    assert detector.svm.variables[0].numpy().std() > 0
