"""Learned augmentation policies for detection (Zoph et al., arXiv 1906.11172), as ``autoaugment_image`` names them.

One sub-policy of two or three steps is drawn for an image. Each step is applied with its probability. The tables
and the meaning of the levels 0..10 are the Object Detection API's v0 to v3. Masks move with the image, which that API
does not do. Steps named ``_Only_BBoxes`` change what is inside of a box, each box with a third of the probability.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.augment import policy_pixels as pixel_steps
from detzoo.data.augment.apply import another_seed, integer_between, uniforms
from detzoo.data.augment.geometry import keep_visible
from detzoo.data.sample import Sample, move_boxes

_FILL = 128.0  # gray of what comes in from outside
_ONLY_BOXES = "_Only_BBoxes"

# (size as float32 [height, width], signed level) -> float32 [3, 3], positions (x, y, 1) before -> after
_Move = Callable[[Tensor, Tensor], Tensor]

# (step, probability, level), one list per sub-policy.
_V0 = (
    (("TranslateX_BBox", 0.6, 4), ("Equalize", 0.8, 10)),
    (("TranslateY_Only_BBoxes", 0.2, 2), ("Cutout", 0.8, 8)),
    (("Sharpness", 0.0, 8), ("ShearX_BBox", 0.4, 0)),
    (("ShearY_BBox", 1.0, 2), ("TranslateY_Only_BBoxes", 0.6, 6)),
    (("Rotate_BBox", 0.6, 10), ("Color", 1.0, 6)),
)
_V1 = (
    *_V0,
    (("Color", 0.0, 0), ("ShearX_Only_BBoxes", 0.8, 4)),
    (("ShearY_Only_BBoxes", 0.8, 2), ("Flip_Only_BBoxes", 0.0, 10)),
    (("Equalize", 0.6, 10), ("TranslateX_BBox", 0.2, 2)),
    (("Color", 1.0, 10), ("TranslateY_Only_BBoxes", 0.4, 6)),
    (("Rotate_BBox", 0.8, 10), ("Contrast", 0.0, 10)),
    (("Cutout", 0.2, 2), ("Brightness", 0.8, 10)),
    (("Color", 1.0, 6), ("Equalize", 1.0, 2)),
    (("Cutout_Only_BBoxes", 0.4, 6), ("TranslateY_Only_BBoxes", 0.8, 2)),
    (("Color", 0.2, 8), ("Rotate_BBox", 0.8, 10)),
    (("Sharpness", 0.4, 4), ("TranslateY_Only_BBoxes", 0.0, 4)),
    (("Sharpness", 1.0, 4), ("SolarizeAdd", 0.4, 4)),
    (("Rotate_BBox", 1.0, 8), ("Sharpness", 0.2, 8)),
    (("ShearY_BBox", 0.6, 10), ("Equalize_Only_BBoxes", 0.6, 8)),
    (("ShearX_BBox", 0.2, 6), ("TranslateY_Only_BBoxes", 0.2, 10)),
    (("SolarizeAdd", 0.6, 8), ("Brightness", 0.8, 10)),
)
_V2 = (
    (("Color", 0.0, 6), ("Cutout", 0.6, 8), ("Sharpness", 0.4, 8)),
    (("Rotate_BBox", 0.4, 8), ("Sharpness", 0.4, 2), ("Rotate_BBox", 0.8, 10)),
    (("TranslateY_BBox", 1.0, 8), ("AutoContrast", 0.8, 2)),
    (("AutoContrast", 0.4, 6), ("ShearX_BBox", 0.8, 8), ("Brightness", 0.0, 10)),
    (("SolarizeAdd", 0.2, 6), ("Contrast", 0.0, 10), ("AutoContrast", 0.6, 0)),
    (("Cutout", 0.2, 0), ("Solarize", 0.8, 8), ("Color", 1.0, 4)),
    (("TranslateY_BBox", 0.0, 4), ("Equalize", 0.6, 8), ("Solarize", 0.0, 10)),
    (("TranslateY_BBox", 0.2, 2), ("ShearY_BBox", 0.8, 8), ("Rotate_BBox", 0.8, 8)),
    (("Cutout", 0.8, 8), ("Brightness", 0.8, 8), ("Cutout", 0.2, 2)),
    (("Color", 0.8, 4), ("TranslateY_BBox", 1.0, 6), ("Rotate_BBox", 0.6, 6)),
    (("Rotate_BBox", 0.6, 10), ("BBox_Cutout", 1.0, 4), ("Cutout", 0.2, 8)),
    (("Rotate_BBox", 0.0, 0), ("Equalize", 0.6, 6), ("ShearY_BBox", 0.6, 8)),
    (("Brightness", 0.8, 8), ("AutoContrast", 0.4, 2), ("Brightness", 0.2, 2)),
    (("TranslateY_BBox", 0.4, 8), ("Solarize", 0.4, 6), ("SolarizeAdd", 0.2, 10)),
    (("Contrast", 1.0, 10), ("SolarizeAdd", 0.2, 8), ("Equalize", 0.2, 4)),
)
_V3 = (
    (("Posterize", 0.8, 2), ("TranslateX_BBox", 1.0, 8)),
    (("BBox_Cutout", 0.2, 10), ("Sharpness", 1.0, 8)),
    (("Rotate_BBox", 0.6, 8), ("Rotate_BBox", 0.8, 10)),
    (("Equalize", 0.8, 10), ("AutoContrast", 0.2, 10)),
    (("SolarizeAdd", 0.2, 2), ("TranslateY_BBox", 0.2, 8)),
    (("Sharpness", 0.0, 2), ("Color", 0.4, 8)),
    (("Equalize", 1.0, 8), ("TranslateY_BBox", 1.0, 8)),
    (("Posterize", 0.6, 2), ("Rotate_BBox", 0.0, 10)),
    (("AutoContrast", 0.6, 0), ("Rotate_BBox", 1.0, 6)),
    (("Equalize", 0.0, 4), ("Cutout", 0.8, 10)),
    (("Brightness", 1.0, 2), ("TranslateY_BBox", 1.0, 6)),
    (("Contrast", 0.0, 2), ("ShearY_BBox", 0.8, 0)),
    (("AutoContrast", 0.8, 10), ("Contrast", 0.2, 10)),
    (("Rotate_BBox", 1.0, 10), ("Cutout", 1.0, 10)),
    (("SolarizeAdd", 0.8, 6), ("Equalize", 0.8, 8)),
)
POLICIES = {"v0": _V0, "v1": _V1, "v2": _V2, "v3": _V3}


def autoaugment_image(sample: Sample, seed: Tensor, *, policy_name: str = "v0") -> Sample:
    """Applies a sub-policy of ``POLICIES[policy_name]`` that is drawn for the image; the image becomes uint8."""
    policy = POLICIES[policy_name]
    names = sorted({name for steps in policy for name, _, _ in steps})
    length = max(len(steps) for steps in policy)
    # One loop over the steps of the drawn sub-policy, with one branch for each kind of step: traced once each.
    padded = [(*steps, *[(names[0], 0.0, 0)] * (length - len(steps))) for steps in policy]
    row = integer_between(uniforms(another_seed(seed, 0), 1)[0], 0, len(policy))
    kinds = tf.constant([[names.index(name) for name, _, _ in steps] for steps in padded])[row]
    probabilities = tf.constant([[probability for _, probability, _ in steps] for steps in padded])[row]
    fractions = tf.constant([[level / 10.0 for _, _, level in steps] for steps in padded])[row]
    pixels = tf.cast(tf.clip_by_value(tf.round(tf.cast(sample.image, tf.float32)), 0.0, 255.0), tf.uint8)

    start = _any_shape(sample._replace(image=pixels))
    fields = [field for field in Sample._fields if getattr(start, field) is not None]  # a loop carries tensors only

    def body(number: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        current = start._replace(**dict(zip(fields, values)))
        step_seed = another_seed(seed, 1 + number)

        def step(name: str) -> Sample:
            return _any_shape(apply_step(current, step_seed, name, probabilities[number], fractions[number]))

        changed = tf.switch_case(kinds[number], [lambda name=name: step(name) for name in names])
        return (number + 1, *(getattr(changed, field) for field in fields))

    values = tuple(getattr(start, field) for field in fields)
    shapes = (tf.TensorShape([]), *(value.shape for value in values))
    _, *values = tf.while_loop(lambda number, *_: number < length, body, (tf.constant(0), *values), shapes)
    return start._replace(**dict(zip(fields, values)))


def _any_shape(sample: Sample) -> Sample:
    """Returns the sample without what is known of its sizes, so that all branches of a choice agree."""
    fixed = {"image": 3, "boxes_norm": 4, "proposals_norm": 4}  # the last dimension
    fields = {name: field for name, field in sample._asdict().items() if field is not None}
    for name, field in fields.items():
        shape = [None] * (field.shape.rank - 1) + [fixed.get(name)]
        fields[name] = tf.compat.v1.placeholder_with_default(field, shape)
    return sample._replace(**fields)


def apply_step(
    sample: Sample, seed: Tensor, name: str, probability: Tensor | float, fraction: Tensor | float
) -> Sample:
    """Applies one step of a policy with a probability; ``sample.image`` is uint8, ``fraction`` the level in [0, 1]."""
    chance, sign = uniforms(another_seed(seed, 0), 2)
    direction = tf.where(sign < 0.5, -1.0, 1.0)
    step_seed = another_seed(seed, 1)
    if name.endswith(_ONLY_BOXES):
        return _inside_boxes(sample, step_seed, name.removesuffix(_ONLY_BOXES), probability / 3.0, fraction, direction)
    if name in _MOVES:
        move = _MOVES[name]
        change = lambda: _move(sample, move(_size(sample.image), fraction * direction))  # noqa: E731
    elif name == "BBox_Cutout":
        change = lambda: sample._replace(image=_cut_out_of_a_box(sample, step_seed, fraction))  # noqa: E731
    else:
        change = lambda: sample._replace(image=pixel_steps.STEPS[name](sample.image, step_seed, fraction))  # noqa: E731
    return tf.cond(chance < probability, change, lambda: sample)


def _rotation(size: Tensor, level: Tensor) -> Tensor:
    """Rotates by up to 30 degrees around the centre of the image."""
    angle = level * (30.0 * 3.141592653589793 / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    y, x = size[0] / 2.0, size[1] / 2.0
    return _matrix(cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)


def _translate_y(pixels: float) -> _Move:
    return lambda size, level: _matrix(1.0, 0.0, 0.0, 0.0, 1.0, tf.round(pixels * level))


def _shear_x(size: Tensor, level: Tensor) -> Tensor:
    return _matrix(1.0, 0.3 * level, 0.0, 0.0, 1.0, 0.0)


def _shear_y(size: Tensor, level: Tensor) -> Tensor:
    return _matrix(1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.0)


def _matrix(*values: Tensor | float) -> Tensor:
    rows = [tf.cast(value, tf.float32) for value in (*values, 0.0, 0.0, 1.0)]
    return tf.reshape(tf.stack(rows), [3, 3])


# Shears by up to 0.3 of the distance from the top or left, translations by up to 250 pixels (120 inside boxes).
_MOVES: dict[str, _Move] = {
    "Rotate_BBox": _rotation,
    "ShearX_BBox": _shear_x,
    "ShearY_BBox": _shear_y,
    "TranslateX_BBox": lambda size, level: _matrix(1.0, 0.0, tf.round(250.0 * level), 0.0, 1.0, 0.0),
    "TranslateY_BBox": _translate_y(250.0),
}
_MOVES_IN_BOXES: dict[str, _Move] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateY": _translate_y(120.0),
    "Flip": lambda size, level: _matrix(-1.0, 0.0, size[1], 0.0, 1.0, 0.0),
}


def _size(image: Tensor) -> Tensor:
    return tf.cast(tf.shape(image)[:2], tf.float32)


def _move(sample: Sample, matrix: Tensor) -> Sample:
    """Moves image, masks and boxes; a box becomes the one around its four moved corners, within the image."""
    size = _size(sample.image)

    def move(boxes: Tensor) -> Tensor:
        ymin, xmin, ymax, xmax = tf.unstack(boxes * tf.tile(size, [2]), axis=1)
        corners = tf.stack([tf.stack([xmin, xmax, xmin, xmax]), tf.stack([ymin, ymin, ymax, ymax])])  # [2, 4, N]
        moved = tf.einsum("ij,jkn->ikn", matrix[:2, :2], corners) + matrix[:2, 2, tf.newaxis, tf.newaxis]
        low, high = tf.reduce_min(moved, axis=1), tf.reduce_max(moved, axis=1)
        return tf.stack([low[1], low[0], high[1], high[0]], axis=1) / tf.tile(size, [2])

    masks = None
    if sample.masks is not None:
        masks = tf.transpose(_warp(tf.transpose(sample.masks, [1, 2, 0]), matrix, 0.0), [2, 0, 1])
    warped = sample._replace(image=_warp(sample.image, matrix, _FILL), masks=masks)
    return keep_visible(move_boxes(warped, move))


def _warp(pixels: Tensor, matrix: Tensor, fill: float) -> Tensor:
    """Moves uint8 [H, W, C] by a matrix (nearest pixel)."""
    # The op takes the earlier position of a pixel's index; the pixel's centre is half a pixel further.
    half = tf.constant([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    backwards = tf.linalg.inv(half) @ tf.linalg.inv(matrix) @ half
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[tf.newaxis],
        transforms=tf.reshape(backwards, [1, 9])[:, :8],
        output_shape=tf.shape(pixels)[:2],
        fill_value=fill,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _cut_out_of_a_box(sample: Sample, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Grays a rectangle around a random point of one random box, up to 0.75 of the box's sides."""
    count = tf.shape(sample.boxes_norm)[0]
    chosen, row, column = uniforms(seed, 3)

    def cut() -> Tensor:
        box = sample.boxes_norm[integer_between(chosen, 0, count)] * tf.tile(_size(sample.image), [2])
        sides = box[2:] - box[:2]
        center = box[:2] + tf.stack([row, column]) * sides
        return pixel_steps.gray_rectangle(sample.image, center, 0.75 * fraction * sides / 2.0)

    return tf.cond(count > 0, cut, lambda: sample.image)


def _inside_boxes(
    sample: Sample, seed: Tensor, name: str, probability: Tensor | float, fraction: Tensor | float, direction: Tensor
) -> Sample:
    """Changes the pixels inside some boxes, in order; boxes stay, masks move with their pixels."""
    size = tf.shape(sample.image)[:2]
    corners = sample.boxes_norm * tf.cast(tf.tile(size, [2]), tf.float32)
    lows = tf.cast(tf.clip_by_value(tf.round(corners[:, :2]), 0.0, tf.cast(size - 1, tf.float32)), tf.int32)
    highs = tf.clip_by_value(tf.cast(tf.round(corners[:, 2:]), tf.int32), lows + 1, size)
    chances = tf.random.stateless_uniform(tf.shape(lows)[:1], another_seed(seed, 0))
    chosen = tf.where(chances < probability)[:, 0]
    masks = tf.zeros([0, 0, 0], tf.uint8) if sample.masks is None else sample.masks

    def change(pixels: Tensor, index: Tensor, is_mask: bool) -> Tensor:
        if name in _MOVES_IN_BOXES:
            matrix = _MOVES_IN_BOXES[name](_size(pixels), fraction * direction)
            return _warp(pixels, matrix, 0.0 if is_mask else _FILL)
        return pixels if is_mask else pixel_steps.STEPS[name](pixels, another_seed(seed, index), fraction)

    def body(step: Tensor, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = chosen[step]
        low, high = lows[index], highs[index]
        image = _replace_part(image, low, high, lambda part: change(part, index, False))
        if sample.masks is not None:
            mask = _replace_part(masks[index][..., tf.newaxis], low, high, lambda part: change(part, index, True))
            masks = tf.tensor_scatter_nd_update(masks, [[index]], [mask[..., 0]])
        return step + 1, image, masks

    unknown = (tf.TensorShape([]), tf.TensorShape([None, None, 3]), tf.TensorShape([None, None, None]))
    start = (tf.constant(0), sample.image, masks)
    _, image, masks = tf.while_loop(lambda step, *_: step < tf.size(chosen), body, start, unknown)
    return sample._replace(image=image, masks=None if sample.masks is None else masks)


def _replace_part(pixels: Tensor, low: Tensor, high: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Changes the pixels from ``low`` up to but without ``high`` (int32 [2])."""
    size = tf.shape(pixels)[:2]
    part = change(pixels[low[0] : high[0], low[1] : high[1]])
    paddings = tf.stack([tf.concat([low, [0]], 0), tf.concat([size - high, [0]], 0)], axis=1)
    rows, columns = tf.range(size[0])[:, tf.newaxis], tf.range(size[1])
    inside = (rows >= low[0]) & (rows < high[0]) & (columns >= low[1]) & (columns < high[1])
    return tf.where(inside[..., tf.newaxis], tf.pad(part, paddings), pixels)
