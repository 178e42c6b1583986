"""The embedded data set: geometric shapes on textured backgrounds, with boxes and masks, drawn from a seed.

The whole workflow runs on it without a download, and small detectors learn it within minutes. Objects have many sizes,
overlap, and reach over the border of the image. Labels are those of the visible part: the box is tight around it, and
no object hides more than half of another. Only the outline decides the class; colours and textures are random.

Image ``index`` of a seed depends on (seed, index, image_size, max_objects, min_object_side) only, so a longer data set
begins with a shorter one. With one object per image it is a data set for a classifier.
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
_PLACEMENT_ATTEMPTS = 4
_FIRST_PLACEMENT_ATTEMPTS = 100  # no image stays empty, also where most shapes are too small to be seen

Outline = Callable[[float], list[list[tuple[float, float]]]]


def draw_annotations(
    num_images: int,
    image_size: int = 160,
    seed: int = 0,
    max_objects: int = MAX_OBJECTS,
    min_object_side: float = MIN_OBJECT_SIDE,
) -> Annotations:
    """Draws a data set.

    Args:
        num_images: Number of images.
        image_size: Side of the square images, in pixels.
        seed: Each seed gives another data set.
        max_objects: Largest number of objects per image; the smallest is 1.
        min_object_side: Side of the smallest object, as a fraction of the image's side.

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
    indices = track(range(num_images), num_images, "drawing")
    images = [draw_image(index, image_size, seed, max_objects, min_object_side) for index in indices]
    return Annotations(images, numbered(list(CLASS_NAMES)))


def draw_image(
    index: int, image_size: int, seed: int, max_objects: int = MAX_OBJECTS, min_object_side: float = MIN_OBJECT_SIDE
) -> AnnotatedImage:
    """Draws image number ``index`` of a data set, with 1 to ``max_objects`` objects."""
    random = np.random.default_rng([seed, index, image_size])
    canvas = background(random, image_size)
    owner = np.full((image_size, image_size), -1, np.int32)  # which object is seen at a pixel
    full_areas: list[int] = []
    kinds: list[int] = []
    for _ in range(int(random.integers(1, max_objects + 1))):
        for _attempt in range(_PLACEMENT_ATTEMPTS if kinds else _FIRST_PLACEMENT_ATTEMPTS):
            kind = int(random.integers(len(CLASS_NAMES)))
            alpha, area = object_alpha(random, kind, image_size, min_object_side)
            if not _can_be_placed(owner, alpha, area, full_areas):
                continue
            _paint(canvas, alpha, random)
            owner[alpha >= 0.5] = len(kinds)
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
        declared_size=(image_size, image_size),
        content=buffer.getvalue(),
    )


def background(random: np.random.Generator, image_size: int) -> np.ndarray:
    """Draws smooth coloured noise of several scales, and sometimes stripes; float32 [size, size, 3], 0..255."""
    canvas = np.full((image_size, image_size, 3), random.uniform(60.0, 195.0, 3), np.float32)
    for cells, strength in ((3, 35.0), (8, 16.0), (24, 9.0)):
        noise = random.normal(0.0, strength, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel]).resize((image_size, image_size), Image.Resampling.BICUBIC)
            canvas[..., channel] += np.asarray(layer)
    if random.random() < 0.4:
        angle, period = random.uniform(0.0, math.pi), random.uniform(0.03, 0.15) * image_size
        rows, columns = np.mgrid[:image_size, :image_size]
        phase = (rows * math.sin(angle) + columns * math.cos(angle)) * (2.0 * math.pi / period)
        canvas += (np.sin(phase) * random.uniform(4.0, 14.0))[..., None].astype(np.float32)
    return np.clip(canvas, 0.0, 255.0)


def object_alpha(
    random: np.random.Generator, kind: int, image_size: int, min_object_side: float = MIN_OBJECT_SIDE
) -> tuple[np.ndarray, int]:
    """Draws one shape at a random place.

    Returns:
        The coverage of each pixel, float32 [size, size] in 0..1, and the whole area in pixels, also outside the image.
    """
    side = image_size * math.exp(random.uniform(math.log(min_object_side), math.log(MAX_OBJECT_SIDE)))
    stretch = math.exp(random.uniform(-0.25, 0.25))
    height, width = side * stretch, side / stretch
    overhang = 0.4 if random.random() < TRUNCATED_SHARE else 0.0
    center_y = random.uniform((0.5 - overhang) * height, image_size - (0.5 - overhang) * height)
    center_x = random.uniform((0.5 - overhang) * width, image_size - (0.5 - overhang) * width)
    # Turned by less than a third of a right angle: a square stays a square and does not become a diamond.
    turn = random.uniform(-0.5, 0.5)
    margin = max(height, width)
    extent = int(image_size + 2 * margin) * SUPERSAMPLING
    picture = Image.new("L", (extent, extent), 0)
    draw = ImageDraw.Draw(picture)
    for number, polygon in enumerate(OUTLINES[CLASS_NAMES[kind]](turn)):
        points = [
            ((center_x + x * width / 2 + margin) * SUPERSAMPLING, (center_y + y * height / 2 + margin) * SUPERSAMPLING)
            for y, x in polygon
        ]
        draw.polygon(points, fill=255 if number == 0 else 0)
    small = picture.reduce(SUPERSAMPLING)
    coverage = np.asarray(small, np.float32) / 255.0
    first = round(margin)
    inside = coverage[first : first + image_size, first : first + image_size]
    return inside, int((coverage >= 0.5).sum())


def _can_be_placed(owner: np.ndarray, alpha: np.ndarray, area: int, full_areas: list[int]) -> bool:
    """Returns True if the new object is visible enough, and everything under it stays visible enough."""
    new = alpha >= 0.5
    visible = int(new.sum())
    if visible < MIN_VISIBLE * area or not _is_thick(new):
        return False
    for number, full_area in enumerate(full_areas):
        rest = (owner == number) & ~new
        if int(rest.sum()) < MIN_VISIBLE * full_area or not _is_thick(rest):
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
    slope = np.linspace(-random.uniform(0.0, 25.0), random.uniform(0.0, 25.0), canvas.shape[0])
    shade = slope[:, None] if random.random() < 0.5 else slope[None, :]
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
