"""The limit on the pixels of one image: a larger one is refused from its header, before its pixels need memory.

A PNG of 20 KB can need 2 GB. An environment variable has the limit, so that it also holds for subprocesses.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

from detzoo.errors import UsageError

FLAG = "--max_image_megapixels"
VARIABLE = "DETZOO_MAX_IMAGE_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 100.0  # photos have up to 60, scanned aerial images some hundreds


def max_pixels() -> int:
    """Returns the largest allowed number of pixels per image, height times width.

    Raises:
        UsageError: The environment variable is not a positive number.
    """
    text = os.environ.get(VARIABLE) or str(DEFAULT_MEGAPIXELS)
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = math.nan
    if not 0.0 < megapixels < math.inf:
        raise UsageError(f"the environment variable {VARIABLE} is {text!r}; give a positive number, such as 100")
    return round(megapixels * 1e6)


def as_flag() -> str:
    """Returns the limit as the flag that sets it, for messages."""
    return f"{FLAG}={max_pixels() / 1e6:g}"


@contextlib.contextmanager
def limited_to(megapixels: float | None) -> Iterator[None]:
    """Sets the limit within the block, also for subprocesses; None leaves it unchanged."""
    before = os.environ.get(VARIABLE)
    if megapixels is not None:
        os.environ[VARIABLE] = str(megapixels)
    try:
        yield
    finally:
        if megapixels is not None:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before
