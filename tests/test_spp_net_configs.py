"""The detectors of the SPP paper in model_configs/: their scales, training numbers and sizes, worked from the paper.

He et al., arXiv:1406.4729, sections 4.1 and 4.4. ``tests/test_published_rows.py`` compares the headers with its tables.
"""

from __future__ import annotations

import math
import pathlib

import pytest

from detzoo.builders.detector import build_detector
from detzoo.config import pb
from detzoo.config.load import load_pipeline
from detzoo.features.network import symbolic

FOLDER = pathlib.Path(__file__).parents[1] / "model_configs"
NAMES = sorted(path.stem for path in FOLDER.glob("spp_net_zf5_*.config"))
SCALES = {"1scale": [688], "5scale": [480, 576, 688, 864, 1200]}
FEATURES = {"pool5": pb.SppNet.POOL5, "fc6": pb.SppNet.FC6, "ftfc6": pb.SppNet.FC6, "ftfc7": pb.SppNet.FC7}
ZF_5 = 96 * 148 + 256 * 2401 + 384 * 2305 + 384 * 3457 + 256 * 3457  # filters x (size^2 x inputs + 1) of table 1
POOLED = 256 * (36 + 9 + 4 + 1)
FULLY_CONNECTED = (POOLED + 1) * 4096 + (4096 + 1) * 4096
NUM_CLASSES = 20


def test_there_is_a_config_for_each_cell_of_table_9_and_one_for_the_second_model():
    assert len(NAMES) == 2 * 5 + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_the_paper_s(name):
    config = load_pipeline(FOLDER / f"{name}.config").message
    model, (scale, features) = config.model.spp_net, name.split("_")[3:5]
    assert list(model.scale) == SCALES[scale]
    assert (model.window_size, model.max_proposals) == (224, 2000)
    assert list(model.network.pyramid_bins) == [6, 3, 2, 1]
    assert (model.network.type, model.network.fc_depth) == ("zf_5", 4096)
    assert model.features == FEATURES[features]
    assert model.HasField("fine_tuning") == features.startswith("ft")
    assert model.HasField("box_regression") == ("_bb" in name)
    assert (round(model.svm.negative_iou, 6), round(model.svm.duplicate_iou, 6)) == (0.3, 0.7)
    assert model.svm.mining_rounds == 1
    assert model.post_processing.batch_non_max_suppression.iou_threshold == pytest.approx(0.3)
    assert list(config.eval_config.metrics_set) == ["pascal_voc_2007_detection_metrics"]
    assert config.train_config.fine_tune_checkpoint_type == "classification"


@pytest.mark.parametrize("name", [name for name in NAMES if "_ft" in name])
def test_fine_tuning_is_the_paper_s(name):
    config = load_pipeline(FOLDER / f"{name}.config").message
    tuning, training = config.model.spp_net.fine_tuning, config.train_config
    assert (tuning.positive_fraction, tuning.positive_iou) == (0.25, 0.5)
    assert tuning.negative_iou == pytest.approx(0.1)
    rates = training.optimizer.momentum_optimizer.learning_rate.manual_step_learning_rate
    assert training.num_steps == 300_000
    assert rates.initial_learning_rate == pytest.approx(1e-4)
    assert [(entry.step, round(entry.learning_rate, 9)) for entry in rates.schedule] == [(250_000, 1e-5)]


def parameters_of(name):
    """Returns the parameters of convolutions, fc6 to fc8, one SVM and four regressions per class, all with biases."""
    features = name.split("_")[4]
    numbers = ZF_5
    numbers += 0 if features == "pool5" else FULLY_CONNECTED
    numbers += (4096 + 1) * (NUM_CLASSES + 1) if features.startswith("ft") else 0
    numbers += ((POOLED if features == "pool5" else 4096) + 1) * NUM_CLASSES
    return numbers + ((POOLED + 1) * 4 * NUM_CLASSES if "_bb" in name else 0)


@pytest.mark.parametrize("name", [name for name in NAMES if "1scale" in name])
def test_it_is_built_with_the_parts_of_its_row(name):
    model = load_pipeline(FOLDER / f"{name}.config").message.model
    detector = symbolic(lambda: build_detector(model))
    shapes = {weight.path: weight.shape for weight in detector.weights if "seed_generator" not in weight.path}
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters_of(name)


def test_five_scales_have_the_weights_of_one():
    models = [load_pipeline(FOLDER / f"spp_net_zf5_{scale}_ftfc7.config").message.model for scale in SCALES]
    one, five = ({w.path: w.shape for w in symbolic(lambda m=m: build_detector(m)).weights} for m in models)
    assert one == five
