"""A short training whose backbone keeps its momentum of 0.9997: nothing as it stands, good with its statistics."""

from __future__ import annotations

import json
import logging
import pathlib

import pytest

from detzoo.cli.main import main
from detzoo.config.load import load_pipeline, save_pipeline
from detzoo.tasks.batch_norm import prepare_statistics

QUICKSTART = pathlib.Path(__file__).parents[2] / "model_configs" / "shapes_ssd_mobilenet_v1.config"
STEPS = 160
RATE = "train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate"
# The quickstart without its override: a decay of 0.97 in the hyperparameters, which does not reach the backbone.
CHANGES = [
    "model.ssd.feature_extractor.override_base_feature_extractor_hyperparams=false",
    "model.ssd.feature_extractor.depth_multiplier=0.25",
    "model.ssd.image_resizer.fixed_shape_resizer.height=96",
    "model.ssd.image_resizer.fixed_shape_resizer.width=96",
    "train_config.batch_size=8",
    f"train_config.num_steps={STEPS}",
    f"train_config.eval_every_n_steps={STEPS}",
    f"{RATE}.total_steps={STEPS}",
    f"{RATE}.warmup_steps=20",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with ``pipeline.config``, and in ``model`` a training on the eight drawn images it is measured on."""
    folder = tmp_path_factory.mktemp("run")
    drawn = ["--num_images=8", "--image_size=96", "--seed=1", "--num_shards=1"]
    assert main(["dataset", "shapes", f"--output_path={folder / 'train'}", *drawn]) == 0
    message = load_pipeline(str(QUICKSTART), CHANGES).message
    for reader in (message.train_input_reader, message.eval_input_reader[0]):
        reader.label_map_path = str(folder / "label_map.pbtxt")
        reader.tf_record_input_reader.input_path[:] = [str(folder / "train-00000-of-00001.tfrecord")]
    save_pipeline(message, folder / "pipeline.config")
    return folder


def train(run, *flags):
    paths = [f"--pipeline_config_path={run / 'pipeline.config'}", f"--model_dir={run / 'model'}"]
    return main(["train", *paths, "--strategy=one_device", *flags])


def evaluate(run, output, *flags, checkpoint="model", config="pipeline.config"):
    """metrics.json."""
    flags = [f"--pipeline_config_path={run / config}", f"--output_dir={run / output}", *flags]
    if checkpoint:
        flags.append(f"--checkpoint_dir={run / checkpoint}")
    assert main(["evaluate", *flags]) == 0
    return json.loads((run / output / "metrics.json").read_text())


@pytest.mark.train
@pytest.mark.slow
def test_a_training_that_evaluates_to_nothing_and_well_with_recomputed_statistics(run, capsys):
    assert train(run) == 0
    shown = capsys.readouterr().err
    # 0.9997 ** 160 = 0.953; log(0.01) / log(0.9997) = 15348.3.
    assert "conv_hyperparams.batch_norm.decay: is 0.97, but does not reach the backbone" in shown  # at the start
    assert "After num_steps 160 its moving statistics, with which detections are made, are still 95%" in shown
    assert f"after {STEPS} steps the moving statistics of batch normalization are still 95% their initial" in shown
    assert "1% is left after 15349 steps" in shown  # at the evaluation

    plain = evaluate(run, "plain")
    assert plain["mAP@.50IOU"] < 0.1
    assert "recompute_batch_norm" not in plain
    assert "are still 95% their initial values" in capsys.readouterr().err

    precise = evaluate(run, "precise", "--recompute_batch_norm=10")
    assert precise["mAP@.50IOU"] > 0.7
    # 27 layers in the backbone, 2 in the pyramid, 2 in the towers on each of 3 levels.
    assert precise["recompute_batch_norm"] == {"num_batches": 10, "num_images": 80, "num_layers": 35}
    shown = capsys.readouterr().err
    assert "initial values" not in shown
    assert "recomputed 35 batch normalizations from 10 training batches (80 images)" in shown

    exported = run / "exported"
    flags = [f"--pipeline_config_path={run / 'pipeline.config'}", f"--trained_checkpoint_dir={run / 'model'}"]
    assert main(["export", *flags, f"--output_directory={exported}", "--recompute_batch_norm=10"]) == 0
    record = json.loads((exported / "export.json").read_text())
    assert record["recompute_batch_norm"] == precise["recompute_batch_norm"]
    served = evaluate(run, "served", f"--saved_model={exported / 'saved_model'}", checkpoint="")
    assert served["mAP@.50IOU"] == pytest.approx(precise["mAP@.50IOU"], abs=0.02)
    capsys.readouterr()
    again = evaluate(run, "again", checkpoint="exported/checkpoint", config="exported/pipeline.config")
    assert again["mAP@.50IOU"] == pytest.approx(precise["mAP@.50IOU"], abs=1e-3)
    assert "initial values" not in capsys.readouterr().err

    # Trained on for a step, with the statistics computed before the evaluation and in the checkpoint.
    more = f"--num_train_steps={STEPS + 1}"
    assert train(run, more, "--set=train_config.recompute_batch_norm.num_batches=10") == 0
    shown = capsys.readouterr().err
    assert shown.count("recomputing batch normalization from 10 training batches") == 1
    assert "initial values" not in shown
    assert json.loads((run / "model" / "run.json").read_text())["sessions"][-1]["recompute_batch_norm_batches"] == 10
    assert evaluate(run, "trained", config="model/pipeline.config")["mAP@.50IOU"] > 0.7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recompute_batch_norm=0"], "recompute_batch_norm"),
        (["--recompute_batch_norm=5", "--set=model.ssd.freeze_batchnorm=true"], "has no batch normalization whose"),
        (
            ["--recompute_batch_norm=5", "--set=train_input_reader.tf_record_input_reader.input_path[0]=gone"],
            "train_input_reader.tf_record_input_reader.input_path[0]: no file matches 'gone'",
        ),
    ],
)
def test_refused_before_anything_is_built(run, capsys, flags, message):
    config = f"--pipeline_config_path={run / 'pipeline.config'}"
    checkpoint = f"{run / 'nothing'}"
    assert main(["evaluate", config, f"--checkpoint_dir={checkpoint}", f"--output_dir={run / 'no'}", *flags]) == 2
    assert message in capsys.readouterr().err
    arguments = [f"--trained_checkpoint_dir={checkpoint}", f"--output_directory={run / 'no'}"]
    assert main(["export", config, *arguments, *flags]) == 2
    assert message in capsys.readouterr().err


def test_an_exported_model_has_no_statistics_to_recompute(run, capsys):
    flags = [f"--pipeline_config_path={run / 'pipeline.config'}", f"--output_dir={run / 'no'}", "--saved_model=x"]
    assert main(["evaluate", *flags, "--recompute_batch_norm=5"]) == 2
    assert "--recompute_batch_norm needs a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "warned"), [(0, False), (100, True)])
def test_a_checkpoint_of_unknown_step_is_not_said_to_be_untrained(caplog, step, warned):
    message = load_pipeline(str(QUICKSTART), CHANGES).message
    with caplog.at_level(logging.WARNING):
        assert prepare_statistics(None, message, None, step) == {}
    assert ("after 100 steps the moving statistics" in caplog.text) == bool(caplog.records) == warned
