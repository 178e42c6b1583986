"""The small configs of the embedded data set: what the classifier learns, the detector takes over."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.builders.detector import build_detector
from detzoo.checkpoints.layout import variables_by_path
from detzoo.config.load import load_pipeline
from detzoo.recipes.spp.plan import STEPS, make_plan

FOLDER = pathlib.Path(__file__).parents[3] / "model_configs"
NAMES = ("shapes_spp_classifier_zf5_single_size", "shapes_spp_net_zf5")


@pytest.fixture(scope="module")
def pipelines():
    """The two configs."""
    return [load_pipeline(str(FOLDER / f"{name}.config")).message for name in NAMES]


def test_the_detector_starts_from_the_classifier(pipelines):
    classifier, detector = (
        {
            path: tuple(variable.shape)
            for path, variable in variables_by_path(build_detector(each.model).variables).items()
        }
        for each in pipelines
    )
    assert pipelines[1].train_config.fine_tune_checkpoint == f"runs/{NAMES[0]}"
    carried = {path for path in detector if path.split("/")[0] in ("backbone", "box_backbone")}
    assert len(carried) == 14  # kernels and biases of five convolutions, fc6 and fc7
    assert all(classifier[path] == detector[path] for path in carried)


def test_the_chain_is_whole(pipelines):
    assert make_plan(pipelines[1], "").steps == STEPS
    suppression = pipelines[1].model.spp_net.post_processing.batch_non_max_suppression
    assert suppression.iou_threshold == pytest.approx(0.3)
