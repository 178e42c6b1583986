"""The embedded data set: geometric shapes on textured backgrounds, with boxes and masks, drawn from a seed.

The whole workflow runs on it without a download, and small detectors learn it within minutes. Objects have many sizes,
overlap, and reach over the border of the image. Labels are those of the visible part: the box is tight around it, and
no object hides more than half of another. Only the outline decides the class; colours and textures are random.

Image ``index`` of a seed depends on (seed, index, image_size, max_objects, min_object_side, scales) only, so a longer
data set begins with a shorter one. With one object per image it is a data set for a classifier.

With the scales "sparse" and "dense", images are rectangles of many sizes, and their objects cover five octaves. These
sets show what a feature pyramid is for.
"""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.errors import UsageError
from detzoo.progress import track

IMAGE_SIZE = 160
MIN_IMAGE_SIZE_PX = 32
MAX_OBJECTS = 6
MIN_OBJECT_SIDE = 0.12  # of the image's side
MAX_OBJECT_SIDE = 0.6
MIN_VISIBLE = 0.5  # of the object's own area; what would hide more of another object is not placed
MIN_SIDE_PX = 6  # a visible part thinner than this is not an object
TRUNCATED_SHARE = 0.15  # of the objects may reach over the border
SUPERSAMPLING = 4
MIN_CONTRAST = 80.0  # Euclidean distance in RGB between an object and the mean of its background
JPEG_QUALITY = 90
NARROW, SPARSE, DENSE = "narrow", "sparse", "dense"
SCALES = (NARROW, SPARSE, DENSE)
WIDE_IMAGE_SIDES_PX = (256, 640)
WIDE_OBJECT_SIDES_PX = (12.0, 400.0)  # five octaves
WIDE_NUM_OBJECTS = {SPARSE: (1, 6), DENSE: (12, 40)}
LARGEST_SHARE = 0.75  # of the image's shorter side, for the side of a wide set's largest object
_PLACEMENT_ATTEMPTS = 4
_FIRST_PLACEMENT_ATTEMPTS = 100  # no image stays empty, also where most shapes are too small to be seen

Window = tuple[slice, slice]  # rows and columns of an image
Outline = Callable[[float], list[list[tuple[float, float]]]]


def draw_annotations(
    num_images: int,
    image_size: int = IMAGE_SIZE,
    seed: int = 0,
    max_objects: int = MAX_OBJECTS,
    min_object_side: float = MIN_OBJECT_SIDE,
    scales: str = NARROW,
) -> Annotations:
    """Draws a data set.

    Args:
        num_images: Number of images.
        image_size: Side of the square images, in pixels.
        seed: Each seed gives another data set.
        max_objects: Largest number of objects per image; the smallest is 1.
        min_object_side: Side of the smallest object, as a fraction of the image's side.
        scales: One of ``SCALES``. The other two than "narrow" have their own sizes and numbers of objects.

    Returns:
        Images with their encoded bytes (``content``, JPEG), objects with boxes in pixels and masks; class ids from 1
        in the order of ``CLASS_NAMES``.

    Raises:
        UsageError: A number is out of range.
    """
    lowest = {"num_images": (num_images, 1), "image_size": (image_size, MIN_IMAGE_SIZE_PX), "seed": (seed, 0)}
    for flag, (value, least) in lowest.items():
        if value < least:
            raise UsageError(f"--{flag} is {value}; it must be at least {least}")
    if not 1 <= max_objects <= MAX_OBJECTS:
        raise UsageError(f"--max_objects is {max_objects}; it must be 1 to {MAX_OBJECTS}")
    if not MIN_OBJECT_SIDE <= min_object_side <= MAX_OBJECT_SIDE:
        raise UsageError(f"--min_object_side is {min_object_side:g}; it must be {MIN_OBJECT_SIDE} to {MAX_OBJECT_SIDE}")
    if scales not in SCALES:
        raise UsageError(f"--scales is {scales!r}; it must be one of {', '.join(SCALES)}")
    if scales != NARROW and (max_objects, min_object_side, image_size) != (MAX_OBJECTS, MIN_OBJECT_SIDE, IMAGE_SIZE):
        raise UsageError(
            f"--scales={scales} has its own sizes; leave --image_size, --max_objects, --min_object_side out"
        )
    indices = track(range(num_images), num_images, "drawing")
    images = [draw_image(index, image_size, seed, max_objects, min_object_side, scales) for index in indices]
    return Annotations(images, numbered(list(CLASS_NAMES)))


def draw_image(
    index: int,
    image_size: int,
    seed: int,
    max_objects: int = MAX_OBJECTS,
    min_object_side: float = MIN_OBJECT_SIDE,
    scales: str = NARROW,
) -> AnnotatedImage:
    """Draws image number ``index`` of a data set, with 1 to ``max_objects`` objects, or as many as ``scales`` has."""
    if scales == NARROW:
        random = np.random.default_rng([seed, index, image_size])
        shape, unit = (image_size, image_size), float(image_size)
        sides, (fewest, most) = (min_object_side, MAX_OBJECT_SIDE), (1, max_objects)
    else:
        random = np.random.default_rng([seed, index, SCALES.index(scales)])
        height, width = (int(side) for side in random.integers(*WIDE_IMAGE_SIDES_PX, 2, endpoint=True))
        shape, unit, (fewest, most) = (height, width), 1.0, WIDE_NUM_OBJECTS[scales]
        sides = (WIDE_OBJECT_SIDES_PX[0], min(WIDE_OBJECT_SIDES_PX[1], LARGEST_SHARE * min(shape)))
    canvas = background(random, shape)
    owner = np.full(shape, -1, np.int32)  # which object is seen at a pixel
    full_areas: list[int] = []
    kinds: list[int] = []
    for _ in range(int(random.integers(fewest, most + 1))):
        for _attempt in range(_PLACEMENT_ATTEMPTS if kinds else _FIRST_PLACEMENT_ATTEMPTS):
            kind = int(random.integers(len(CLASS_NAMES)))
            alpha, window, area = object_alpha(random, kind, shape, sides, unit)
            if not _can_be_placed(owner, alpha, window, area, full_areas):
                continue
            _paint(canvas[window], alpha, random)
            owner[window][alpha >= 0.5] = len(kinds)
            kinds.append(kind)
            full_areas.append(area)
            break
    buffer = io.BytesIO()
    Image.fromarray(canvas.astype(np.uint8)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    filename = f"shapes_{seed}_{index:06d}.jpg"
    objects = tuple(
        _annotated(owner == number, CLASS_NAMES[kind], full_areas[number], f"{filename}, object {number}")
        for number, kind in enumerate(kinds)
    )
    return AnnotatedImage(
        path=pathlib.Path(filename),
        filename=filename,
        source_id=filename.removesuffix(".jpg"),
        objects=objects,
        declared_size=shape,
        content=buffer.getvalue(),
    )


def background(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draws smooth coloured noise of several scales, and sometimes stripes; float32 [*shape, 3], 0..255."""
    height, width = shape
    canvas = np.full((height, width, 3), random.uniform(60.0, 195.0, 3), np.float32)
    for cells, strength in ((3, 35.0), (8, 16.0), (24, 9.0)):
        noise = random.normal(0.0, strength, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            canvas[..., channel] += np.asarray(layer)
    if random.random() < 0.4:
        angle, period = random.uniform(0.0, math.pi), random.uniform(0.03, 0.15) * max(shape)
        rows, columns = np.mgrid[:height, :width]
        phase = (rows * math.sin(angle) + columns * math.cos(angle)) * (2.0 * math.pi / period)
        canvas += (np.sin(phase) * random.uniform(4.0, 14.0))[..., None].astype(np.float32)
    return np.clip(canvas, 0.0, 255.0)


def object_alpha(
    random: np.random.Generator, kind: int, shape: tuple[int, int], sides: tuple[float, float], unit: float = 1.0
) -> tuple[np.ndarray, Window, int]:
    """Draws one shape at a random place of an image.

    ``sides`` are the smallest and the largest side, in units of ``unit`` pixels.

    Returns:
        The coverage of each pixel of a window, float32 in 0..1, the window, and the whole area in pixels, also outside
        the image. The window is the image if sides are fractions of it, else the shape's box.
    """
    side = unit * math.exp(random.uniform(math.log(sides[0]), math.log(sides[1])))
    stretch = math.exp(random.uniform(-0.25, 0.25))
    extents = (side * stretch, side / stretch)
    overhang = 0.4 if random.random() < TRUNCATED_SHARE else 0.0
    center = [
        random.uniform((0.5 - overhang) * extent, length - (0.5 - overhang) * extent)
        for extent, length in zip(extents, shape, strict=True)
    ]
    # Turned by less than a third of a right angle: a square stays a square and does not become a diamond.
    turn = random.uniform(-0.5, 0.5)
    low, high = [0, 0], list(shape)
    if unit == 1.0:
        low = [max(0, math.floor(middle - extent / 2)) for middle, extent in zip(center, extents, strict=True)]
        reach = (math.ceil(middle + extent / 2) for middle, extent in zip(center, extents, strict=True))
        high = [min(length, last) for length, last in zip(shape, reach, strict=True)]
    margin = max(extents)
    height, width = (int(last - first + 2 * margin) * SUPERSAMPLING for first, last in zip(low, high, strict=True))
    picture = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    origin_y, origin_x = (middle - first + margin for middle, first in zip(center, low, strict=True))
    for number, polygon in enumerate(OUTLINES[CLASS_NAMES[kind]](turn)):
        points = [
            ((origin_x + x * extents[1] / 2) * SUPERSAMPLING, (origin_y + y * extents[0] / 2) * SUPERSAMPLING)
            for y, x in polygon
        ]
        draw.polygon(points, fill=255 if number == 0 else 0)
    coverage = np.asarray(picture.reduce(SUPERSAMPLING), np.float32) / 255.0
    first = round(margin)
    inside = coverage[first : first + high[0] - low[0], first : first + high[1] - low[1]]
    return inside, (slice(low[0], high[0]), slice(low[1], high[1])), int((coverage >= 0.5).sum())


def _can_be_placed(owner: np.ndarray, alpha: np.ndarray, window: Window, area: int, full_areas: list[int]) -> bool:
    """Returns True if the new object is visible enough, and everything under it stays visible enough."""
    new = alpha >= 0.5
    visible = int(new.sum())
    if visible < MIN_VISIBLE * area or not _is_thick(new):
        return False
    covered = np.zeros(owner.shape, bool)
    covered[window] = new
    for number in np.unique(owner[window][new]):
        if number < 0:
            continue
        rest = (owner == number) & ~covered
        if int(rest.sum()) < MIN_VISIBLE * full_areas[number] or not _is_thick(rest):
            return False
    return True


def _is_thick(mask: np.ndarray) -> bool:
    return bool(mask.any(1).sum() >= MIN_SIDE_PX and mask.any(0).sum() >= MIN_SIDE_PX)


def _paint(canvas: np.ndarray, alpha: np.ndarray, random: np.random.Generator) -> None:
    """Fills the shape with a colour that differs from its background, shaded from one side to the other."""
    under = canvas[alpha >= 0.5].mean(0)
    color = random.uniform(0.0, 255.0, 3)
    while np.linalg.norm(color - under) < MIN_CONTRAST:
        color = random.uniform(0.0, 255.0, 3)
    first, last = -random.uniform(0.0, 25.0), random.uniform(0.0, 25.0)
    axis = 0 if random.random() < 0.5 else 1
    shade = np.expand_dims(np.linspace(first, last, canvas.shape[axis]), 1 - axis)
    fill = np.clip(color + shade[..., None] + random.normal(0.0, 5.0, canvas.shape), 0.0, 255.0)
    canvas += alpha[..., None] * (fill.astype(np.float32) - canvas)


def _annotated(visible: np.ndarray, class_name: str, full_area: int, where: str) -> AnnotatedObject:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    shape, packed = visible.shape, np.packbits(visible)
    return AnnotatedObject(
        box=(float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1)),
        class_name=class_name,
        where=where,
        area_px=float(visible.sum()),
        is_truncated=int(visible.sum()) < 0.9 * full_area,
        mask=lambda _height, _width: np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape),
    )


def _ellipse(radius: float, turn: float) -> list[tuple[float, float]]:
    angles = np.linspace(0.0, 2.0 * math.pi, 48, endpoint=False) + turn
    return [(radius * math.sin(angle), radius * math.cos(angle)) for angle in angles]


def _regular(corners: int, turn: float, inner: float | None = None) -> list[tuple[float, float]]:
    """Returns a polygon with its corners on the unit circle, the first one on top; with ``inner``, a star."""
    radii = [1.0] if inner is None else [1.0, inner]
    count = corners * len(radii)
    angles = [turn - math.pi / 2 + 2.0 * math.pi * number / count for number in range(count)]
    pairs = zip(radii * corners, angles)
    return [(radius * math.sin(angle), radius * math.cos(angle)) for radius, angle in pairs]


# Class name -> outline in [-1, 1] x [-1, 1] as polygons of (y, x) for a turn in radians; a second polygon is a hole.
OUTLINES: dict[str, Outline] = {
    "circle": lambda turn: [_ellipse(1.0, turn)],
    "square": lambda turn: [_regular(4, turn + math.pi / 4)],
    "triangle": lambda turn: [_regular(3, turn)],
    "star": lambda turn: [_regular(5, turn, inner=0.42)],
    "ring": lambda turn: [_ellipse(1.0, turn), _ellipse(0.55, turn)],
}
CLASS_NAMES = tuple(OUTLINES)
