"""data_augmentation_options become augmentations, with every field arriving."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.augment import build_augmentations
from detzoo.config import pb
from detzoo.data.augment import crop, geometry
from detzoo.data.augment.apply import augment
from detzoo.data.augment.crop import CropLimits, PadLimits
from detzoo.data.sample import Sample

REFUSED = {"scale_boxes_to_pixel_coordinates", "convert_class_logits_to_softmax"}
NEEDS_FIELDS = {
    "normalize_image": "original_maxval: 255",
    "resize_image": "new_height: 20 new_width: 30",
    "random_resize_method": "target_height: 20 target_width: 30",
    "subtract_channel_mean": "means: [1, 2, 3]",
    "drop_label_probabilistically": "label: 2",
    "remap_labels": "original_labels: [1] new_label: 2",
    "random_absolute_pad_image": "max_height_padding: 5 max_width_padding: 5",
    "random_scale_crop_and_pad_to_square": "output_size: 32",
}
KINDS = sorted(set(pb.PreprocessingStep.DESCRIPTOR.fields_by_name) - REFUSED)


def build(text: str):
    return build_augmentations([text_format.Parse(text, pb.PreprocessingStep())])[0]


def arguments(augmentation) -> dict:
    """The arguments that the augmentation's function will get, defaults included."""
    keywords = {}
    while isinstance(augmentation, functools.partial):
        keywords = {**augmentation.keywords, **keywords}
        augmentation = augmentation.func
    defaults = {name: parameter.default for name, parameter in inspect.signature(augmentation).parameters.items()}
    return {name: keywords.get(name, default) for name, default in defaults.items() if name not in ("sample", "seed")}


def sample() -> Sample:
    image = np.random.default_rng(0).integers(0, 255, (24, 36, 3), np.uint8)
    one = tf.constant([False])
    masks = np.zeros((1, 24, 36), np.uint8)
    masks[0, 6:12, 9:27] = 1
    box = tf.constant([[0.25, 0.25, 0.5, 0.75]])
    return Sample(tf.constant(image), box, tf.constant([0]), tf.ones([1]), one, one, tf.zeros([1]), tf.constant(masks))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_schema_runs(kind):
    step = build(f"{kind} {{ {NEEDS_FIELDS.get(kind, '')} }}")
    changed = tf.function(lambda s: augment(s, [step], 0, tf.constant(1, tf.int64)), autograph=False)(sample())
    assert changed.image.shape[-1] == 3
    assert changed.masks.shape[1:] == changed.image.shape[:2]
    assert len(changed.classes) == len(changed.boxes_norm) == len(changed.masks)
    assert np.isfinite(changed.boxes_norm).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_carries_proposals(kind):
    step = build(f"{kind} {{ {NEEDS_FIELDS.get(kind, '')} }}")
    proposed = sample()._replace(proposals_norm=tf.constant([[0.2, 0.3, 0.5, 0.9]]), proposal_scores=tf.constant([0.5]))
    changed = tf.function(lambda s: augment(s, [step], 0, tf.constant(1, tf.int64)), autograph=False)(proposed)
    proposals = np.asarray(changed.proposals_norm)
    assert proposals.shape == (len(changed.proposal_scores), 4)
    assert ((proposals >= 0.0) & (proposals <= 1.0)).all()


def test_published_configs_build(shared):
    kinds = set()
    for path in sorted((shared / "configs" / "published").glob("*/*.config")):
        message = text_format.Parse(path.read_text(), pb.TrainEvalPipelineConfig())
        steps = message.train_config.data_augmentation_options
        assert len(build_augmentations(steps)) == len(steps)
        kinds |= {step.WhichOneof("preprocessing_step") for step in steps}
    assert {"ssd_random_crop", "random_square_crop_by_scale", "random_scale_crop_and_pad_to_square"} <= kinds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random_horizontal_flip { probability: 0.25 }", {"probability": 0.25}),
        ("random_adjust_hue {}", {"max_delta": pytest.approx(0.02)}),
        ("random_adjust_contrast { max_delta: 1.5 }", {"min_delta": pytest.approx(0.8), "max_delta": 1.5}),
        (
            "random_square_crop_by_scale { scale_min: 0.5 num_scales: 3 }",
            {"scale_min": 0.5, "scale_max": pytest.approx(1.3), "num_scales": 3, "max_border": 128},
        ),
        ("random_jitter_boxes { ratio: 0.25 jitter_mode: SHRINK }", {"ratio": 0.25, "mode": "SHRINK"}),
        (
            """
            random_pad_image {
              min_image_height: 5 min_image_width: 6
              pad_color: [1, 2, 3]
            }
            """,
            {"min_size": (5, 6), "max_size": None, "pad_color": (1.0, 2.0, 3.0)},
        ),
        (
            """
            resize_image {
              new_height: 3 new_width: 4
              method: AREA
            }
            """,
            {"new_height": 3, "method": "area"},
        ),
        ("resize_image { new_height: 3 new_width: 4 }", {"new_width": 4, "method": "bilinear"}),
        ("remap_labels { original_labels: [3, 5] new_label: 1 }", {"original_classes": [2, 4], "new_class": 0}),
        ("drop_label_probabilistically { label: 3 drop_probability: 0.5 }", {"dropped_class": 2}),
        (
            """
            random_crop_image {
              min_object_covered: 0 min_aspect_ratio: 0.75
              max_aspect_ratio: 3.0 min_area: 0.75
              max_area: 1.0 overlap_thresh: 0.0
              clip_boxes: false random_coef: 0.5
            }
            """,
            {"limits": CropLimits(0.0, (0.75, 3.0), (0.75, 1.0), 0.0, False, 0.5)},
        ),
        ("autoaugment_image { policy_name: 'v2' }", {"policy_name": "v2"}),
        ("ssd_random_crop {}", {"choices": crop.SSD_CROPS}),
        (
            """
            ssd_random_crop {
              operations {
                min_object_covered: 0.5 min_aspect_ratio: 0.5
                max_aspect_ratio: 2.0 min_area: 0.25
                max_area: 1.0 overlap_thresh: 0.5
                random_coef: 0.125
              }
            }
            """,
            {"choices": [CropLimits(0.5, (0.5, 2.0), (0.25, 1.0), 0.5, True, 0.125)]},
        ),
        (
            """
            ssd_random_crop_fixed_aspect_ratio {
              aspect_ratio: 2.0
              operations { min_area: 0.25 max_area: 1.0 }
            }
            """,
            {"aspect_ratio": 2.0, "choices": [CropLimits(0.0, (2.0, 2.0), (0.25, 1.0), 0.0)]},
        ),
        (
            """
            ssd_random_crop_pad {
              operations {
                min_aspect_ratio: 0.5 max_aspect_ratio: 2.0
                min_area: 0.25 max_area: 1
                max_padded_size_ratio: [3, 4] pad_color_g: 9
              }
            }
            """,
            {"paddings": [PadLimits((1.0, 1.0), (3.0, 4.0), (0.0, 9.0, 0.0))]},
        ),
        ("ssd_random_crop_pad {}", {"paddings": None, "choices": crop.SSD_CROPS[1:]}),
        (
            "ssd_random_crop_pad_fixed_aspect_ratio { min_padded_size_ratio: [1.5, 2] }",
            {"padding": PadLimits((1.5, 2.0), (2.0, 2.0))},
        ),
    ],
)
def test_fields_arrive(text, expected):
    received = arguments(build(text))
    assert {name: received[name] for name in expected} == expected


def test_order_is_kept():
    steps = [text_format.Parse(f"{kind} {{}}", pb.PreprocessingStep()) for kind in ("ssd_random_crop", "rgb_to_gray")]
    first, second = build_augmentations(steps)
    assert first.func is crop.ssd_random_crop
    assert arguments(second) == {}
    assert build("random_vertical_flip {}").func is geometry.random_vertical_flip
