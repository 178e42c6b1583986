"""What a ``segmentation_proposals`` block asks for, said once for its checks and its builder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Side of a head's convolution -> size of its objects against that of its level: 7 is about 5 times sqrt(2), half an
# octave (arXiv:1612.03144, appendix A).
HEAD_FACTORS = {5: 1.0, 7: math.sqrt(2.0)}


def heads_of(model: Any) -> tuple[int, ...]:
    """Sides of the convolutions of a ``pb.SegmentationProposals``' heads, ascending; both where it names none."""
    return tuple(sorted(set(model.head_kernel_size))) or tuple(HEAD_FACTORS)


def problem_of_numbers(model: Any) -> Iterator[tuple[str, str]]:
    """Field and what is wrong with it, of the numbers of a ``pb.SegmentationProposals``."""
    unknown = [size for size in model.head_kernel_size if size not in HEAD_FACTORS]
    if unknown:
        accepted = ", ".join(map(str, HEAD_FACTORS))
        yield "head_kernel_size", f"has {unknown[0]}; accepted: {accepted}, or both"
    elif len(set(model.head_kernel_size)) != len(model.head_kernel_size):
        yield "head_kernel_size", f"names {model.head_kernel_size[0]} twice; accepted: each once"
    if int(model.examples_per_image * model.positive_fraction) < 1:
        text = f"is {model.positive_fraction:g}, less than one of examples_per_image ({model.examples_per_image})"
        yield "positive_fraction", f"{text}: no mask would be trained"
