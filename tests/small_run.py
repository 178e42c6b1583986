"""A config of the small one-stage detector on a few drawn images, and a run of it, for tests of whole tasks."""

from __future__ import annotations

import pathlib

from google.protobuf import text_format

from detzoo.config import pb
from detzoo.config.load import save_pipeline
from detzoo.datasets.conversion import convert
from detzoo.datasets.shapes import draw_annotations

PIPELINE = """
train_config {
  batch_size: 2 num_steps: 2
  optimizer { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.001 } } } }
}
train_input_reader {
  label_map_path: '%(folder)s/label_map.pbtxt'
  tf_record_input_reader { input_path: '%(folder)s/data-00000-of-00001.tfrecord' }
}
eval_config { batch_size: 2 }
eval_input_reader {
  label_map_path: '%(folder)s/label_map.pbtxt'
  tf_record_input_reader { input_path: '%(folder)s/data-00000-of-00001.tfrecord' }
}
"""


def write_config(folder: pathlib.Path, model: pb.DetectionModel) -> pathlib.Path:
    """Writes records, label map and a config of a model for their five classes, and returns its path."""
    convert(draw_annotations(4, 64, 0, 3, 0.2), str(folder / "data"), num_shards=1)
    message = text_format.Parse(PIPELINE % {"folder": folder}, pb.TrainEvalPipelineConfig())
    message.model.CopyFrom(model)
    message.model.ssd.num_classes = 5
    save_pipeline(message, folder / "my.config")
    return folder / "my.config"


def write_run(folder: pathlib.Path, config: pathlib.Path, detector) -> pathlib.Path:
    """Writes what a training of a config leaves, with the weights of a detector, and returns the model_dir."""
    from detzoo.checkpoints.layout import save_weights

    save_weights(detector, folder, step=7)
    (folder / "pipeline.config").write_text(config.read_text())
    return folder
