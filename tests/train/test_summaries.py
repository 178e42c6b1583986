"""Events at the start of a run: hyperparameters, the config, and the first training images."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

from detzoo.config.load import load_pipeline, to_text
from detzoo.data.issue_counter import IssueCounter
from detzoo.train.summaries import Summaries


@pytest.fixture
def config(load_module, tmp_path):
    """The path of a config of the small one-stage detector, with four records."""
    return load_module("small_run.py").write_config(tmp_path, load_module("small_one_stage.py").message())


def start(folder, config, step, *overrides, writable=True):
    """Writes the events of a start, and returns the config and the folder."""
    pipeline = load_pipeline(str(config), overrides).message
    summaries = Summaries(folder, writable)
    summaries.start(pipeline, step, IssueCounter())
    summaries.close()
    assert summaries.num_failures == 0
    return pipeline


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_a_run_starts_with_hyperparameters_config_and_augmented_images(config, tmp_path):
    options = ["train_config.batch_size=3", "train_config.data_augmentation_options[0].random_horizontal_flip{}"]
    pipeline = start(tmp_path / "run", config, 0, *options)
    [session] = read(tmp_path / "run").Tensors(SESSION_START_INFO_TAG)
    content = read(tmp_path / "run").SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    hyperparameters = parse_session_start_info_plugin_data(content).hparams
    assert session.step == 0
    assert hyperparameters["model"].string_value == "ssd"
    assert hyperparameters["train_config.batch_size"].number_value == 3
    assert hyperparameters["model.ssd.num_classes"].number_value == 5
    train = read(tmp_path / "run" / "train")
    [text] = tf.make_ndarray(train.Tensors("pipeline_config")[0].tensor_proto).ravel().tolist() or [b""]
    assert [line[4:] for line in text.decode().splitlines()] == to_text(pipeline).splitlines()
    assert text.startswith(b"    ")  # a block of code in Markdown
    width, height, *encoded = tf.make_ndarray(train.Tensors("train_input_images")[0].tensor_proto)
    assert len(encoded) == 3
    pictures = [tf.io.decode_jpeg(each).numpy() for each in encoded]
    # The input of 64 x 96 is enlarged five times, to at least 480 pixels.
    assert {picture.shape for picture in pictures} == {(int(height), int(width), 3)} == {(320, 480, 3)}
    assert all(np.ptp(picture) > 100 for picture in pictures)


def test_a_resumed_run_writes_no_images_and_another_worker_nothing(config, tmp_path):
    start(tmp_path / "resumed", config, 7)
    assert [each.step for each in read(tmp_path / "resumed" / "train").Tensors("pipeline_config")] == [7]
    assert "train_input_images" not in read(tmp_path / "resumed" / "train").Tags()["tensors"]
    start(tmp_path / "worker", config, 0, writable=False)
    assert not (tmp_path / "worker").exists()
