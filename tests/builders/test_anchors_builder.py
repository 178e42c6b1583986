"""anchor_generator: every field reaches the generator; what cannot work is refused."""

import numpy as np
from google.protobuf import text_format

from detzoo.builders.anchors import build_anchor_generator
from detzoo.config import pb


def _build(text):
    return build_anchor_generator(text_format.Parse(text, pb.AnchorGenerator()))


def test_ssd_fields():
    generator = _build(
        """
        ssd_anchor_generator {
          num_layers: 2 min_scale: 0.25
          max_scale: 0.5 aspect_ratios: [1, 4]
          reduce_boxes_in_lowest_layer: false interpolated_scale_aspect_ratio: 0
          base_anchor_height: 2 base_anchor_width: 3
          height_stride: [8, 16] width_stride: [9, 17]
          height_offset: [4, 5] width_offset: [6, 7]
        }
        """
    )
    assert generator.num_anchors_per_location == (2, 2)
    np.testing.assert_allclose(generator.layer_sizes[0], [[0.25, 0.25], [0.125, 0.5]])
    np.testing.assert_allclose(generator.layer_sizes[1][0], [0.5, 0.5])
    assert generator.base_anchor_size == (2.0, 3.0)
    assert generator.strides_px == ((8, 9), (16, 17))
    assert generator.offsets_px == ((4, 6), (5, 7))


def test_ssd_defaults_reduce_the_lowest_layer():
    generator = _build("ssd_anchor_generator { aspect_ratios: [1, 2, 0.5] }")
    assert generator.num_anchors_per_location == (3, 4, 4, 4, 4, 4)
    explicit = _build("""
        ssd_anchor_generator {
          num_layers: 2 scales: [0.1, 0.3]
          aspect_ratios: 1
        }
        """)
    np.testing.assert_allclose(explicit.layer_sizes[1][0], [0.3, 0.3])


def test_multiscale_fields():
    generator = _build(
        """
        multiscale_anchor_generator {
          min_level: 4 max_level: 5
          anchor_scale: 3 aspect_ratios: [1, 2, 0.5]
          scales_per_octave: 3
        }
        """
    )
    assert generator.num_anchors_per_location == (9, 9)
    assert (generator.min_level, generator.max_level, generator.anchor_scale) == (4, 5, 3.0)


def test_grid_fields_and_order():
    generator = _build(
        """
        grid_anchor_generator {
          height: 10 width: 20
          height_stride: 4 width_stride: 5
          height_offset: 1 width_offset: 2
          scales: [1, 2] aspect_ratios: [1, 4]
        }
        """
    )
    # Aspect ratio by aspect ratio, within one all scales.
    np.testing.assert_allclose(generator.layer_sizes_px[0], [[10, 20], [20, 40], [5, 40], [10, 80]])
    assert (generator.strides_px, generator.offsets_px) == (((4, 5),), ((1, 2),))


def test_flexible_grid_fields():
    generator = _build(
        """
        flexible_grid_anchor_generator {
          anchor_grid {
            base_sizes: [8, 16] aspect_ratios: [1, 4]
            height_stride: 4 width_stride: 5
            width_offset: 2
          }
          anchor_grid {
            base_sizes: 32 aspect_ratios: 1
            height_stride: 8 width_stride: 8
          }
        }
        """
    )
    assert generator.num_anchors_per_location == (2, 1)
    np.testing.assert_allclose(generator.layer_sizes_px[0], [[8, 8], [8, 32]])
    assert (generator.strides_px, generator.offsets_px) == (((4, 5), (8, 8)), ((0, 2), (0, 0)))
