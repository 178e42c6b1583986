"""Draws a training and a validation split by a seed, so that no copy or neighbouring frame of an image is in both.

Images form groups, and a group is not divided. Two images are in one group if

- their files have the same content, or their names differ in Roboflow's ``.rf.<hash>`` only (augmented copies),
- they are near-identical: their fingerprints (see ``fingerprint``) correlate by at least ``MIN_COPY``, as for images
  that were encoded again, resized or brightened,
- their names are neighbours, such as ``clip_000123.jpg`` and ``clip_000130.jpg``, and they are similar apart from a
  shift by camera motion: a correlation of at least ``MIN_FRAME``, or ``MIN_FRAME_OF_CLIP`` if half of all neighbours
  in that numbering reach it, which is a clip then. A shift is allowed for images of many edges only, because it makes
  any two simple drawings similar.

Groups are transitive: a clip is one group up to a cut. Measured on 328 photos, numbered but no clips: unrelated images
correlate by at most 0.59, as neighbours by at most 0.58, copies by at least 0.93.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from detzoo.datasets.annotations import AnnotatedImage
from detzoo.datasets.conversion import in_parallel
from detzoo.datasets.recognize import Recognized
from detzoo.datasets.split_names import ALL, TRAIN, VAL
from detzoo.errors import DataError, UsageError
from detzoo.files import images
from detzoo.progress import track

SIDE = 16  # of the thumbnails that are compared
MIN_COPY = 0.9
MIN_FRAME, MIN_FRAME_OF_CLIP = 0.65, 0.4
MIN_EDGES = 32  # of 512 differences; photos have 50 to 170, one rectangle on a plain background 8 to 31
NUM_DRAWS = 64  # of which the one with the most even classes is used
ROWS_PER_BLOCK = 1024  # of the matrix of correlations
_ROBOFLOW_COPY = re.compile(r"\.rf\.[0-9a-zA-Z]{8,}$")
_LAST_NUMBER = re.compile(r"(\d{1,18})(?=\D*$)")

logger = logging.getLogger(__name__)


def draw(recognized: Recognized, fraction: float, seed: int = 0, source: str = ALL) -> Recognized:
    """Draws the splits "train" and "val" from one split; returns labels that do not have it unchanged.

    Args:
        recognized: Labels of a folder.
        fraction: Part of the images to hold out, 0 to 1; 0 draws no split.
        seed: Seed of the draw; the same images and seed give the same split.
        source: Split to divide: "all", which labels without splits have, or "train".

    Raises:
        UsageError, DataError: As in ``draw_split``.
    """
    if source not in recognized.splits or fraction == 0:
        return recognized
    parts = zip((TRAIN, VAL), draw_split(recognized.splits[source].images, fraction, seed), strict=True)
    divided = recognized.splits[source]
    drawn = {split: divided._replace(images=images, class_names=recognized.class_names) for split, images in parts}
    others = {split: part for split, part in recognized.splits.items() if split != ALL}
    text, origin = recognized.description, f" from {source}"
    if source == ALL:
        text, origin = text.rpartition(";")[0], ""  # without the number of all images
    counts = ", ".join(f"{split} {len(part.images)} images" for split, part in drawn.items())
    return recognized._replace(
        splits={**others, **drawn}, description=f"{text}; drawn{origin} by seed {seed}: {counts}"
    )


def draw_split(
    annotated: Sequence[AnnotatedImage], fraction: float, seed: int = 0
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Returns the images to train on and those held out, both in the given order.

    Each class has an object in the first part if any group allows it, and its share of the second part is close to
    ``fraction``. If the groups are so large that far too few or too many images would be held out, as with one fixed
    camera, they are divided into runs in the order of names, with a warning.

    Args:
        annotated: Images with their objects.
        fraction: Part of the images to hold out, above 0 and below 1.
        seed: Seed of the draw; the order of ``annotated`` has no effect.

    Raises:
        UsageError: The fraction is out of range.
        DataError: All images are copies of one, or there is only one.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"the fraction to hold out is {fraction:g}; it must be above 0 and below 1, such as 0.2")
    by_name = sorted((image for image in annotated if not image.unusable), key=lambda image: image.filename)
    groups, copies = group_images(by_name)
    if copies.max(initial=0) == 0:
        raise DataError(
            f"{len(by_name)} image{'' if len(by_name) == 1 else 's, all copies of one,'} cannot be divided into"
            " training and validation: add images, or name folders train and val"
        )
    target = max(1, round(fraction * len(by_name)))
    length, largest = max(1, target // 2), np.bincount(groups).max()
    chosen = _draw_groups(by_name, groups, target, seed)[groups]
    if largest > length and not target / 4 <= chosen.sum() <= max(target, len(by_name) / 2):
        logger.warning(
            "%d of %d images are near-identical, as with a fixed camera: they are divided into runs of %d in the order "
            "of names, so that neighbouring frames may be in both splits",
            *(largest, len(by_name), length),
        )
        groups = _runs(groups, copies, length)
        chosen = _draw_groups(by_name, groups, target, seed)[groups]
    held_out = {id(image) for image, is_chosen in zip(by_name, chosen) if is_chosen}
    train = [image for image in annotated if id(image) not in held_out]
    return train, [image for image in annotated if id(image) in held_out]


def _runs(groups: np.ndarray, copies: np.ndarray, length: int) -> np.ndarray:
    """Divides groups of more than ``length`` different images into runs of that many; copies stay together."""
    divided = groups.copy()
    for group in np.flatnonzero(np.bincount(groups) > length):
        members = groups == group
        runs = np.unique(copies[members], return_inverse=True)[1] // length
        divided[members] = divided.max() + 1 + runs
    return np.unique(divided, return_inverse=True)[1]


def _draw_groups(by_name: Sequence[AnnotatedImage], groups: np.ndarray, target: int, seed: int) -> np.ndarray:
    """Returns bool [groups]: held out."""
    random = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    class_ids: dict[str, int] = {}
    pairs = [
        (class_ids.setdefault(item.class_name, len(class_ids)), group)
        for image, group in zip(by_name, groups)
        for item in image.objects
    ]
    classes, group_of = np.array(pairs, np.int64).reshape(-1, 2).T
    totals = np.bincount(classes, minlength=len(class_ids))
    kept = _groups_to_train(classes, group_of, len(sizes), random)
    free = np.flatnonzero(~kept)
    if not len(free):  # every group has the only objects of some class
        free = np.arange(len(sizes))
    best, best_cost = np.zeros(len(sizes), bool), np.inf
    for _ in range(NUM_DRAWS):
        chosen, count = np.zeros(len(sizes), bool), 0
        for group in random.permutation(free):
            if count + sizes[group] <= target:
                chosen[group], count = True, count + sizes[group]
        if not count:
            chosen[free[np.argmin(sizes[free])]] = True
        counts = np.bincount(classes[chosen[group_of]], minlength=len(class_ids))
        missed = np.abs(counts - totals * target / len(by_name)) / np.sqrt(np.maximum(totals, 1))
        cost = missed.sum() + abs(sizes[chosen].sum() - target)
        if cost < best_cost:
            best, best_cost = chosen, cost
    return best


def _groups_to_train(
    classes: np.ndarray, group_of: np.ndarray, num_groups: int, random: np.random.Generator
) -> np.ndarray:
    """Returns bool [groups]: few groups that have every class, the rarest class first."""
    kept = np.zeros(num_groups, bool)
    of_class = {name: np.unique(group_of[classes == name]) for name in np.unique(classes)}
    for found in sorted(of_class.values(), key=len):
        if not kept[found].any():
            kept[random.choice(found)] = True
    return kept


def group_images(by_name: Sequence[AnnotatedImage]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the group of each image by the rule in the module's docstring, and by its first line alone.

    Args:
        by_name: Images, N, sorted by name.

    Returns:
        Two arrays, int64 [N], numbered from 0.
    """
    read = track(in_parallel(_read, by_name), len(by_name), "comparing images")
    digests, prints = zip(*read) if by_name else ((), ())
    first: dict[object, int] = {}
    pairs = []
    for index, (image, digest) in enumerate(zip(by_name, digests)):
        stem = os.path.basename(os.path.splitext(image.filename)[0])
        original = _ROBOFLOW_COPY.sub("", stem)
        pairs += [(index, first.setdefault(key, index)) for key in (digest, original != stem and original) if key]
    copies = _joined(len(by_name), pairs)
    near_identical = _near_identical(np.stack(prints)) if by_name else ()
    return _joined(len(by_name), itertools.chain(pairs, near_identical, _frames(by_name, prints))), copies


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Returns the group of each item, int64 [count], after joining the groups of each pair."""
    leader = list(range(count))

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    for pair in pairs:
        low, high = sorted(map(root, pair))
        leader[high] = low
    return np.unique([root(index) for index in range(count)], return_inverse=True)[1]


def _read(image: AnnotatedImage) -> tuple[bytes, np.ndarray]:
    """Returns the hash of a file and its fingerprint; b"" and zeros for a broken file, which is like no other."""
    try:
        content = image.read()
        return hashlib.blake2b(content, digest_size=16).digest(), fingerprint(content)
    except images.UnusableImage:
        return b"", np.zeros((2, SIDE, SIDE), np.float32)


def fingerprint(content: bytes) -> np.ndarray:
    """Returns the differences of neighbouring pixels of a small gray image: across and down, with a norm of 1.

    The scalar product of two fingerprints is their correlation. Brightness and contrast cancel out.

    Args:
        content: Bytes of an image file.

    Returns:
        float32 [2, 16, 16]; zeros for an image of one colour.

    Raises:
        UnusableImage: The image cannot be decoded.
    """
    gray = images.small_gray(content, SIDE + 1)
    edges = np.stack([np.diff(gray[:-1], axis=1), np.diff(gray[:, :-1], axis=0)])
    length = np.linalg.norm(edges)
    return edges / length if length > 1 else np.zeros_like(edges)


def _near_identical(prints: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields pairs of images that are copies of each other, by blocks of rows."""
    flat = prints.reshape(len(prints), -1)
    for start in range(0, len(flat), ROWS_PER_BLOCK):
        found = flat[start : start + ROWS_PER_BLOCK] @ flat[start:].T >= MIN_COPY
        for row, column in np.argwhere(found):
            if row < column:
                yield start + int(row), start + int(column)


def _frames(by_name: Sequence[AnnotatedImage], prints: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yields neighbours by number that are frames of one clip."""
    series = collections.defaultdict(list)
    for index, image in enumerate(by_name):
        folder, name = os.path.split(_ROBOFLOW_COPY.sub("", os.path.splitext(image.filename)[0]))
        number = _LAST_NUMBER.search(name)
        if number:
            series[folder, name[: number.start()], name[number.end() :]].append((int(number[1]), index))
    for numbered in series.values():
        order = [index for _, index in sorted(numbered)]
        similar = [_shifted_correlation(prints[one], prints[other]) for one, other in itertools.pairwise(order)]
        is_clip = len(similar) > 1 and np.median(similar) >= MIN_FRAME_OF_CLIP
        for (one, other), value in zip(itertools.pairwise(order), similar):
            if value >= (MIN_FRAME_OF_CLIP if is_clip else MIN_FRAME):
                yield one, other


def _shifted_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the highest correlation of two fingerprints over all shifts; without a shift if one has few edges."""
    if min(_num_edges(one), _num_edges(other)) < MIN_EDGES:
        return float((one * other).sum())
    spectrum = (np.fft.rfft2(one) * np.conj(np.fft.rfft2(other))).sum(axis=0)
    return float(np.fft.irfft2(spectrum, s=one.shape[1:]).max())


def _num_edges(print_: np.ndarray) -> float:
    """Returns the effective number of differences that are not 0, as the inverse of the sum of squared shares."""
    return float(1.0 / max(np.square(np.square(print_)).sum(), 1e-9))
