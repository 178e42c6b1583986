"""A classifier under the detectors' trainer: two replicas compute what one does, in multi-size training, too."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from detzoo.config import pb
from detzoo.train.session import build_trainer

CONFIG = """
model { spp_classifier {
  num_classes: 2
  network {
    type: 'zf_5' pyramid_bins: [2, 1]
    fc_depth: 6 depth_multiplier: 0.05
    dropout: 0
  }
  shorter_side: 56 crop_size: 52
  train_size: [52, 48]
} }
train_config {
  batch_size: 4 num_steps: 10
  optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } }
    use_moving_average: false }
}
train_input_reader { image_folder_reader { path: "FOLDER" } }
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Eight images, two batches of four an epoch."""
    path = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(8):
        name = path / "ab"[number % 2] / f"{number}.png"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (56, 60, 3), np.uint8)).save(name)
    return text_format.Parse(CONFIG.replace("FOLDER", str(path)), pb.TrainEvalPipelineConfig())


def test_two_replicas_compute_what_one_does(pipeline, one_device, two_replicas):
    one, two = (build_trainer(pipeline, strategy) for strategy in (one_device, two_replicas))
    for _ in range(3):  # two steps at 52 pixels, one at 48
        first, second = one.run_steps(1), two.run_steps(1)
        assert set(first.losses) == {"classification", "regularization", "total"}
        for name, value in first.losses.items():
            np.testing.assert_allclose(second.losses[name], value, rtol=1e-5, err_msg=name)
    for path, variable in one.model_variables.items():
        np.testing.assert_allclose(two.model_variables[path].numpy(), variable.numpy(), rtol=1e-4, atol=1e-6)
    assert int(one.next_record) == int(two.next_record) == 12
