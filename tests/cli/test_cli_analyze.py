"""``detzoo analyze focal``: its files, its table, and what it refuses."""

import csv
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.builders.detector import build_detector
from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline, save_pipeline

CURVES = ("figure_1_focal_loss", "figure_5_loss_variants", "figure_6_derivatives")
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "model_configs"


def columns_of(file):
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    return dict(zip(rows[0], np.array(rows[1:], np.float64).T, strict=True))


@pytest.fixture(scope="module")
def shapes_run(tmp_path_factory):
    """Words of the command line for an untrained SSD of 64 x 64 pixels, and four images of the embedded data set."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--num_images", "4", "--image_size", "64", "--num_shards", "1"]
    assert main(["dataset", "shapes", "--output_path", str(folder / "shapes"), *words]) == 0
    changes = {
        "model.ssd.image_resizer.fixed_shape_resizer.height": 64,
        "model.ssd.image_resizer.fixed_shape_resizer.width": 64,
        "model.ssd.feature_extractor.depth_multiplier": 0.25,
        "model.ssd.box_predictor.weight_shared_convolutional_box_predictor.depth": 16,
        "eval_config.batch_size": 2,
        "eval_input_reader[0].label_map_path": folder / "label_map.pbtxt",
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": folder / "shapes-00000-of-00001.tfrecord",
    }
    changed = [f"{path}={value}" for path, value in changes.items()]
    message = load_pipeline(str(CONFIGS / "shapes_ssd_mobilenet_v1.config"), changed).message
    save_pipeline(message, folder / "pipeline.config")
    variables = variables_by_path(build_detector(message.model).variables)
    make_checkpoint(tf.Variable(5, dtype=tf.int64), model=variables).write(str(folder / "ckpt-5"))
    return ["--pipeline_config_path", str(folder / "pipeline.config"), "--checkpoint_dir", str(folder / "ckpt-5")]


def test_curves_need_no_detector(tmp_path, capsys):
    assert main(["analyze", "focal", "--output_dir", str(tmp_path / "out"), "--focal_star", "3:0.5"]) == 0
    written = [pathlib.Path(line) for line in capsys.readouterr().out.split()]
    out = tmp_path / "out"
    assert written == [out / f"{name}.{kind}" for name in CURVES for kind in ("png", "csv")]
    assert Image.open(written[0]).size == (1110, 690)  # 7.4 x 4.6 inches at 150
    assert sorted(path.stem for path in out.glob("*.svg")) == list(CURVES)
    derivatives = columns_of(out / "figure_6_derivatives.csv")
    assert list(derivatives) == ["x_t", "CE", "FL gamma=2", "FL* gamma=3 beta=0.5"]
    star = 1.0 / (1.0 + np.exp(-(3.0 * derivatives["x_t"] + 0.5)))
    np.testing.assert_allclose(derivatives["FL* gamma=3 beta=0.5"], star - 1.0, atol=1e-5)
    losses = columns_of(out / "figure_1_focal_loss.csv")
    np.testing.assert_allclose(losses["gamma=0"], -np.log(losses["p_t"]), atol=1e-5)


def test_distribution_of_a_checkpoint(shapes_run, tmp_path, capsys):
    words = ["--output_dir", str(tmp_path), "--gammas", "0,2", "--num_images", "3"]
    assert main(["analyze", "focal", *words, *shapes_run]) == 0
    captured = capsys.readouterr()
    [counts] = re.findall(r"(\d+) positive examples of \1 and (\d+) negative ones of \2, in 3 images", captured.err)
    # 8 x 8, 4 x 4 and 2 x 2 cells with 6 anchors each and 5 classes, in 3 images; none is ignored.
    assert sum(map(int, counts)) == 84 * 6 * 5 * 3
    assert int(counts[0]) >= 3  # all images have objects, and each matches some anchors
    columns = columns_of(tmp_path / "figure_4_cumulative_loss.csv")
    assert list(columns)[1:] == [f"{kind} gamma={gamma}" for kind in ("positives", "negatives") for gamma in (0, 2)]
    for name, column in columns.items():
        assert (column[0], column[-1]) == (0.0, 1.0), name
        assert np.all(np.diff(column) >= 0), name
    # With gamma 2 a larger share of the loss comes from fewer examples.
    assert np.all(columns["negatives gamma=2"] <= columns["negatives gamma=0"] + 1e-9)
    assert "share of the loss from the hardest" in captured.out
    assert str(tmp_path / "figure_4_cumulative_loss.png") in captured.out


def test_the_sample_is_bounded(shapes_run, tmp_path, capsys):
    words = ["--output_dir", str(tmp_path), "--num_positives", "2", "--num_negatives", "100", "--num_images", "1"]
    assert main(["analyze", "focal", *words, *shapes_run]) == 0
    assert re.search(
        r"2 positive examples of \d+ and 100 negative ones of 25\d\d, in 1 images", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint_dir", "x"], "give both --pipeline_config_path and --checkpoint_dir"),
        (["--set", "a=1"], "--set changes a config"),
        (["--gammas", "1,-2"], "accepted: numbers of 0 or more"),
        (["--focal_star", "2"], "accepted: GAMMA:BETA"),
    ],
)
def test_wrong_flags(words, message, tmp_path, capsys):
    assert main(["analyze", "focal", "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_missing_is_told_first(shapes_run, tmp_path, capsys):
    words = ["--output_dir", str(tmp_path / "out"), *shapes_run[:2], "--checkpoint_dir", str(tmp_path / "nowhere")]
    assert main(["analyze", "focal", *words]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_softmax_has_no_focal_loss(shapes_run, tmp_path, capsys):
    loss = "model.ssd.loss.classification_loss.weighted_softmax{}"
    changes = ["--set", loss, "--set", "model.ssd.encode_background_as_zeros=false"]
    assert main(["analyze", "focal", "--output_dir", str(tmp_path / "out"), *shapes_run, *changes]) == 2
    assert "weighted_softmax makes one decision for all classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_detector_of_two_stages_has_no_distribution(shapes_run, tmp_path, capsys):
    path = str(CONFIGS / "shapes_faster_rcnn_mobilenet_v1.config")
    reader = load_pipeline(shapes_run[1]).message.eval_input_reader[0]
    changes = [
        f"eval_input_reader[0].label_map_path={reader.label_map_path}",
        f"eval_input_reader[0].tf_record_input_reader.input_path[0]={reader.tf_record_input_reader.input_path[0]}",
    ]
    words = ["--pipeline_config_path", path, "--checkpoint_dir", "x", *(f"--set={change}" for change in changes)]
    assert main(["analyze", "focal", "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert "model.ssd (SSD, RetinaNet, EfficientDet); this one has model.faster_rcnn" in capsys.readouterr().err
