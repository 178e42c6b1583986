"""The configs that the Object Detection API published: what is listed as ok is built, and the page that lists them.

``benchmarks/published_configs.py`` trains one step of each. The tests step only the configs whose detector is in no
file of model_configs/.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from detzoo.builders.detector import build_detector
from detzoo.builders.optimizer import build_optimizer
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import has_errors
from detzoo.config.support import CENTER_EXTRACTORS, REGION_EXTRACTORS, SSD_EXTRACTORS
from detzoo.features.network import symbolic

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "configs" / "published"
CONFIGS = {path.stem: path for path in sorted(FOLDER.glob("*/*.config"))}
KEYPOINT_LABEL_MAP = (
    FOLDER.parents[1] / "golden" / "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8" / "keypoint_label_map.pbtxt"
)
STEPPED = {
    "embedded_ssd_mobilenet_v1_coco": [],
    "ssd_mobilenet_v1_ppn_shared_box_predictor_300x300_coco14_sync": [],
    "ssd_inception_v3_pets": [],
    "faster_rcnn_resnet101_ava_v2.1": ["feature_extractor.type=faster_rcnn_mobilenet_v1"],  # losses of sigmoids
}
SIZES = {
    "fixed_shape_resizer": ("height=96", "width=128"),
    "keep_aspect_ratio_resizer": ("min_dimension=96", "max_dimension=128"),
}
FEW_PROPOSALS = ("first_stage_max_proposals=8", "first_stage_max_proposals_in_training=0", "second_stage_batch_size=8")

pytestmark = pytest.mark.shared


def one_of_each_kind():
    """The names as parameters: the first of each family of backbones and kind of detector; --all has the others."""
    seen, parameters = set(), []
    for name, path in CONFIGS.items():
        model = load_pipeline(str(path)).message.model
        kind = model.WhichOneof("model")
        block = getattr(model, kind)
        extractors = {"faster_rcnn": REGION_EXTRACTORS, "ssd": SSD_EXTRACTORS, "center_net": CENTER_EXTRACTORS}[kind]
        row = extractors[block.feature_extractor.type]
        key = (kind, row.family, row.is_fpn, getattr(block, "number_of_stages", 0))
        parameters.append(pytest.param(name, marks=pytest.mark.full_sweep if key in seen else ()))
        seen.add(key)
    return parameters


_built: dict[bytes, str] = {}  # model block with small images -> the config that it was built for


def small(name, *settings):
    """A config for images of 96 x 128 (or 96 x 96) and three classes."""
    model = load_pipeline(str(CONFIGS[name])).message.model
    kind = model.WhichOneof("model")
    resizer = getattr(model, kind).image_resizer.WhichOneof("image_resizer_oneof")
    chosen = ["num_classes=3", *(f"image_resizer.{resizer}.{size}" for size in SIZES[resizer]), *settings]
    chosen += FEW_PROPOSALS if kind == "faster_rcnn" else ()
    if name == "ssd_inception_v3_pets":  # without padding, smaller images have no cell left
        chosen.append("image_resizer.fixed_shape_resizer.height=80")
    if kind == "center_net":
        chosen.append(f"keypoint_label_map_path={KEYPOINT_LABEL_MAP}")
    return load_pipeline(str(CONFIGS[name]), [f"model.{kind}.{setting}" for setting in chosen]).message


@pytest.mark.usefixtures("shared")
def test_the_page_says_what_the_check_says():
    program = ROOT / "scripts" / "list_published_configs.py"
    done = subprocess.run([sys.executable, str(program), "--check"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "published_configs.md").read_text(encoding="utf-8")
    assert [name for name in CONFIGS if f"| {name} |" not in page] == []
    assert len(CONFIGS) == 104


@pytest.mark.usefixtures("shared")
def test_a_config_is_ok():
    for name, path in CONFIGS.items():
        assert not has_errors(check_pipeline(load_pipeline(str(path)), files=False)), name


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_config_is_built(name):
    model = small(name).model
    key = model.SerializeToString(deterministic=True)
    if key in _built:  # differs in the size of its images, its classes or its training only
        assert _built[key] in CONFIGS
        return
    _built[key] = name
    keras.utils.clear_session()
    detector = symbolic(lambda: build_detector(model))
    assert detector.num_classes == 3
    paths = [weight.path for weight in detector.weights]
    assert len(set(paths)) == len(paths) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", STEPPED)
def test_detectors_that_no_other_config_has_step(name, load_module):
    training = load_module("test_model_configs.py")
    config = small(name, *STEPPED[name])
    keras.utils.clear_session()
    losses, gradients = training.training_step(
        build_detector(config.model), build_optimizer(config.train_config.optimizer)
    )
    assert set(losses) == training.losses_of(config.model)
    values = {part: float(loss) for part, loss in losses.items()}
    assert all(np.isfinite(loss) for loss in values.values())
    assert values["localization"] > 0 or values["classification"] > 0
    assert all(gradient is not None and np.all(np.isfinite(gradient)) for gradient in gradients)
