"""Draws boxes, masks, names and scores on an image, legible at any size: for ``detect`` and ``dataset inspect``.

Line width and font grow with the picture, and small images are enlarged first, because no font is legible on 100
pixels. A class name has the same colour in every picture and every run. Objects that all have one name can have
separate colours.
"""

from __future__ import annotations

import colorsys
import functools
import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detzoo.datasets.fonts import LabelFonts

MIN_LONGER_SIDE_PX = 480  # smaller images are enlarged by a whole factor to at least this
MIN_FONT_PX = 12  # letters are hard to read below this
MAX_NAME_LETTERS = 120  # of a class name in a picture
FONT_PER_SIDE = 0.024  # of the geometric mean of height and width
FONT_PER_BOX = 0.2  # of the longer side of the median box, at most: names are about as wide as their boxes
LINE_PER_SIDE = 0.0045
MASK_OPACITY = 0.45
MIN_KEYPOINT_SCORE = 0.2  # above 0.1, the score of a keypoint that was only guessed

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture
Colour = tuple[int, int, int]  # red, green, blue in 0..255

_GOLDEN_RATIO = 0.618034  # of the circle of hues: however many colours, neighbours differ


def draw_detections(
    image: np.ndarray,
    boxes_norm: np.ndarray,
    labels: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    masks: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    colours: Sequence[Colour] | None = None,
    texts: Sequence[str] | None = None,
    fonts: LabelFonts | None = None,
    keypoints: np.ndarray | None = None,
    keypoint_edges: Sequence[tuple[int, int]] = (),
) -> Image.Image:
    """Draws objects on a copy of an image.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes_norm: [N, 4] of (ymin, xmin, ymax, xmax) in fractions of the image, clipped to it; boxes that are not
            finite are skipped.
        labels: N class names.
        scores: N scores (0..1), shown as per cent behind the name and drawn with the best on top; or None.
        masks: N of [H, W], drawn at values above one half; or None.
        colours: N of RGB, 0..255; None takes the colours of the class names.
        texts: N texts to write instead of names and scores; an empty one writes nothing.
        fonts: Fonts of the names; None for DejaVu Sans.
        keypoints: [N, T, 3] of (y, x) in fractions of the image and a score; those of at least
            ``MIN_KEYPOINT_SCORE`` are drawn as dots; or None.
        keypoint_edges: Pairs of numbers of keypoints, 0 to T - 1, that lines connect if both are drawn.

    Returns:
        An RGB picture of the size of the image, or a whole multiple of it.

    Raises:
        ValueError: Shapes do not fit each other.
    """
    image, boxes = np.asarray(image), np.asarray(boxes_norm, np.float64).reshape(-1, 4)
    _check_shapes(image, boxes, labels, scores, masks)
    colours = [class_colour(label) for label in labels] if colours is None else colours
    order = np.arange(len(boxes)) if scores is None else np.argsort(-np.asarray(scores, np.float64), kind="stable")
    order = np.array([index for index in order if np.isfinite(boxes[index]).all()], np.int64)
    if masks is not None:
        image = _blend_masks(image, masks, colours, order[::-1])
    factor = max(1, -(-MIN_LONGER_SIDE_PX // max(image.shape[:2])))
    picture = Image.fromarray(np.ascontiguousarray(image))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    side = (picture.width * picture.height) ** 0.5
    rectangles = {index: _rectangle(boxes[index], picture.size) for index in order}
    # Letters of the picture's size would hide the small objects of a large image.
    box_sides = [max(right - left, bottom - top) for left, top, right, bottom in rectangles.values()]
    side = min(side, FONT_PER_BOX / FONT_PER_SIDE * float(np.median(box_sides))) if box_sides else side
    line_px = max(1, round(LINE_PER_SIDE * side))
    for index in order[::-1]:
        _draw_box(draw, rectangles[index], colours[index], line_px)
        if keypoints is not None:
            _draw_keypoints(draw, keypoints[index], keypoint_edges, colours[index], line_px, picture.size)
    font_px, fonts = max(MIN_FONT_PX, round(FONT_PER_SIDE * side)), fonts or _default_fonts()
    taken: list[Rectangle] = []
    for index in order:
        text = _label(labels[index], None if scores is None else scores[index]) if texts is None else texts[index]
        if not text:
            continue
        font = fonts.of(text, font_px)
        taken.append(_draw_label(draw, rectangles[index], text, colours[index], font, picture.size, taken))
    return picture


_default_fonts = functools.cache(LabelFonts)


def _label(name: str, score: float | None) -> str:
    return printable_name(name) + ("" if score is None else f" {100 * float(score):.0f}%")


def printable_name(name: str) -> str:
    """Returns a class name on one line that any font engine accepts, without control letters and surrogates."""
    head = name[: 2 * MAX_NAME_LETTERS]
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) == "Cs" else each for each in head)
    shown = " ".join("".join(" " if unicodedata.category(each) == "Cc" else each for each in shown).split()) or "?"
    return shown if len(shown) <= MAX_NAME_LETTERS else shown[: MAX_NAME_LETTERS - 3] + "..."


@functools.lru_cache(maxsize=4096)
def class_colour(name: str) -> Colour:
    """Returns a vivid RGB colour (0..255) that depends on the name only; different names mostly differ in hue."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    hue = int.from_bytes(digest[:4], "little") / 2**32
    saturation, value = ((0.95, 1.0), (0.6, 1.0), (0.95, 0.75))[digest[4] % 3]
    return _rgb(hue, saturation, value)


def object_colours(count: int) -> list[Colour]:
    """Returns vivid colours for objects that all have one name; neighbours in the list differ in hue."""
    return [_rgb((0.6 + number * _GOLDEN_RATIO) % 1.0, 0.85, 1.0) for number in range(count)]


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _check_shapes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    scores: Sequence[float] | np.ndarray | None,
    masks: np.ndarray | Sequence[np.ndarray] | None,
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image is {image.dtype} {list(image.shape)}; uint8 [H, W, 3] is needed")
    if masks is not None and len(masks) and np.shape(masks[0]) != image.shape[:2]:
        found = [len(masks), *np.shape(masks[0])]
        raise ValueError(f"masks are {found}; [N, {image.shape[0]}, {image.shape[1]}] is needed")
    fields = {"boxes_norm": boxes, "labels": labels, "scores": scores, "masks": masks}
    lengths = {name: len(field) for name, field in fields.items() if field is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError("different numbers of objects: " + ", ".join(f"{key} {n}" for key, n in lengths.items()))


def _blend_masks(
    image: np.ndarray, masks: np.ndarray | Sequence[np.ndarray], colours: Sequence[Colour], order: np.ndarray
) -> np.ndarray:
    blended = image.astype(np.float32)
    for index in order:
        inside = masks[index] > 0.5
        blended[inside] += MASK_OPACITY * (np.array(colours[index], np.float32) - blended[inside])
    return np.clip(blended, 0.0, 255.0).round().astype(np.uint8)


def _rectangle(box_norm: np.ndarray, size: tuple[int, int]) -> Rectangle:
    """Converts fractions to pixels, ordered and inside the picture of size (width, height)."""
    ymin, xmin, ymax, xmax = np.clip(box_norm, 0.0, 1.0)
    left, right = sorted((xmin * (size[0] - 1), xmax * (size[0] - 1)))
    top, bottom = sorted((ymin * (size[1] - 1), ymax * (size[1] - 1)))
    return left, top, right, bottom


def _draw_box(draw: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, line_px: int) -> None:
    """Draws an outline with a thin dark rim, so that it shows on a background of the same colour."""
    draw.rectangle(box, outline=(0, 0, 0), width=line_px + 2)
    left, top, right, bottom = box
    if right - left > 2 and bottom - top > 2:
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=colour, width=line_px)


def _draw_keypoints(
    draw: ImageDraw.ImageDraw,
    keypoints: np.ndarray,
    edges: Sequence[tuple[int, int]],
    colour: Colour,
    line_px: int,
    size: tuple[int, int],
) -> None:
    shown = {
        number: (x * (size[0] - 1), y * (size[1] - 1))
        for number, (y, x, score) in enumerate(keypoints)
        if score >= MIN_KEYPOINT_SCORE and np.isfinite([y, x]).all()
    }
    for start, end in edges:
        if start in shown and end in shown:
            draw.line((*shown[start], *shown[end]), fill=colour, width=line_px)
    for x, y in shown.values():
        _draw_dot(draw, x, y, colour, 2 * line_px)


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float, colour: Colour, radius_px: int) -> None:
    """Draws a disc with a light rim and a thin dark one, so that it shows on any background and on its box."""
    for fill, radius in (((0, 0, 0), radius_px + 2), ((255, 255, 255), radius_px + 1), (colour, radius_px)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    box: Rectangle,
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    taken: Sequence[Rectangle],
) -> Rectangle:
    """Writes a label on a background of the class's colour at a free place of its box; returns the place."""
    text = _shortened(draw, text, font, size[0])
    _, top, _, bottom = draw.textbbox((0, 0), "Ag", font=font)
    pad = max(1, round((bottom - top) / 6))
    height = bottom - top + 2 * pad
    width = draw.textlength(text, font=font) + 2 * pad
    place = _free_place(box, width, height, size, taken)
    draw.rectangle(place, fill=colour)
    red, green, blue = colour
    dark_text = 0.299 * red + 0.587 * green + 0.114 * blue > 130  # perceived brightness, ITU-R BT.601
    draw.text((place[0] + pad, place[1] + pad - top), text, fill=(0, 0, 0) if dark_text else (255, 255, 255), font=font)
    return place


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """Cuts a text that is wider than the picture, and appends three dots."""
    shown = text
    while len(shown) > 1 and draw.textlength(shown, font=font) > 0.95 * width_px:
        text = text[:-1]
        shown = text + "..."
    return shown


def _free_place(
    box: Rectangle, width: float, height: float, size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Returns the first place in the picture that covers no other label, otherwise the one that covers least.

    Tried are: above the box, inside at the top, below, inside at the bottom, and above at the right.
    """
    left, top, right, bottom = box
    starts = [(left, top - height), (left, top), (left, bottom), (left, bottom - height), (right - width, top - height)]
    best, least = None, float("inf")
    for x, y in starts:
        if (y < 0 or y + height > size[1]) and best is not None:
            continue
        x, y = min(max(x, 0.0), max(size[0] - width, 0.0)), min(max(y, 0.0), max(size[1] - height, 0.0))
        place = (x, y, x + width, y + height)
        covered = sum(_overlap(place, other) for other in taken)
        if covered == 0:
            return place
        if covered < least:
            best, least = place, covered
    return best if best is not None else (0.0, 0.0, width, height)


def _overlap(first: Rectangle, second: Rectangle) -> float:
    """Returns the common area of two rectangles in square pixels."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
