"""Groups of copies and frames, and the drawn split: made textures with known copies, then real photos."""

from __future__ import annotations

import collections
import io
import itertools
import pathlib

import numpy as np
import pytest
from PIL import Image

from detzoo.datasets import splits
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations
from detzoo.datasets.recognize import recognize, remarks
from detzoo.errors import DataError, UsageError


def texture(seed, height=96, width=160):
    """A made photo: noise of four scales, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for cells in (3, 6, 12, 24):
        noise = Image.fromarray(random.uniform(-1, 1, (cells, cells * width // height)).astype(np.float32))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) * 3 / cells**0.5
    scaled = np.clip(total * 22 + 110, 0, 255)
    return np.stack([scaled, scaled * 0.9, 255 - scaled], axis=2).astype(np.uint8)


def encoded(pixels, kind="PNG", size=None, **options):
    buffer = io.BytesIO()
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    (picture.resize(size) if size else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def annotated(tmp_path, name, content, *classes):
    objects = tuple(AnnotatedObject((0, 0, 9, 9), class_name, name) for class_name in classes)
    return AnnotatedImage(tmp_path / name, name, name, objects, content=content)


def groups_of(named):
    """Sets of names of the groups with several images, from name -> content."""
    images = [annotated(pathlib.Path(), name, content) for name, content in sorted(named.items())]
    found = collections.defaultdict(set)
    for image, group in zip(images, splits.group_images(images)[0]):
        found[group].add(image.filename)
    return sorted(sorted(names) for names in found.values() if len(names) > 1), len(found)


def test_copies_are_one_group_and_distinct_images_are_not():
    named = {f"photo-{number}.png": encoded(texture(number)) for number in range(24)}
    assert groups_of(named) == ([], 24)
    first, second = texture(0).astype(float), texture(1).astype(float)
    named |= {
        "copy.png": encoded(first),
        "jpeg.jpg": encoded(first, "JPEG", quality=40),
        "bright.jpg": encoded(first * 1.2 + 15, "JPEG", quality=85),
        "dark.png": encoded(second * 0.5),
        "half.jpg": encoded(second, "JPEG", size=(80, 48)),
        "gray.png": encoded(second.mean(axis=2)),
    }
    same = [["bright.jpg", "copy.png", "jpeg.jpg", "photo-0.png"], ["dark.png", "gray.png", "half.jpg", "photo-1.png"]]
    assert groups_of(named) == (same, 24)


def test_plain_and_broken_images_are_like_no_other():
    named = {f"{value}.png": encoded(np.full((20, 30, 3), value)) for value in (0, 100, 255)}
    named |= {"broken1.png": b"x", "broken2.png": b"", "again.png": named["100.png"]}
    assert groups_of(named) == ([["100.png", "again.png"]], 5)


def test_roboflows_copies_share_the_name_before_the_hash():
    pixels = texture(3)
    named = {
        "a_jpg.rf.0123456789abcdef0123456789abcdef.jpg": encoded(pixels),
        "a_jpg.rf.fedcba9876543210fedcba9876543210.jpg": encoded(pixels[:, ::-1]),
        "b_jpg.rf.00112233445566778899aabbccddeeff.jpg": encoded(texture(4)),
    }
    assert groups_of(named) == ([sorted(named)[:2]], 2)


def clip(seed, count, step_px):
    """Frames of a camera that pans over a texture by ``step_px`` per frame."""
    wide = texture(seed, 96, 160 + count * step_px)
    return [wide[:, number * step_px :][:, :160] for number in range(count)]


@pytest.mark.parametrize("step_px", [1, 6, 16])  # up to a tenth of the width
def test_frames_of_a_clip_are_one_group_up_to_a_cut(step_px):
    frames = [*clip(5, 9, step_px), *clip(6, 7, step_px)]
    # Every tenth frame of a video, in a folder with numbered photos.
    named = {f"video/clip_{1000 + 10 * number:06d}.jpg": encoded(frame, "JPEG") for number, frame in enumerate(frames)}
    first, second = sorted(named)[:9], sorted(named)[9:]
    named |= {f"video/photo_{number:06d}.jpg": encoded(texture(50 + number)) for number in range(10)}
    assert groups_of(named) == ([first, second], 12)


def test_real_photos_are_not_merged(shared):
    """Seven of raccoon's photos occur twice under other names, one of them thrice; coco128 has no copy."""
    found = {}
    for name in ("raccoon", "coco128"):
        files = sorted((shared / "data" / name / "images").iterdir())
        found[name] = groups_of({file.name: file.read_bytes() for file in files})
    pairs = [(11, 116), (120, 83), (21, 45), (50, 52, 74), (51, 85), (65, 98)]
    assert found["raccoon"] == ([[f"raccoon-{number}.jpg" for number in pair] for pair in pairs], 193)
    assert found["coco128"] == ([], 128)


def drawn(images, fraction=0.25, seed=0):
    train, held_out = splits.draw_split(images, fraction, seed)
    assert not {image.filename for image in train} & {image.filename for image in held_out}
    assert len(train) + len(held_out) == len(images)
    return [[image.filename for image in part] for part in (train, held_out)]


def test_a_drawn_split_depends_on_the_seed_only_and_divides_no_group(tmp_path):
    images = []
    for number in range(20):  # each photo with a darker copy
        pixels = texture(number).astype(float)
        images.append(annotated(tmp_path, f"a{number:02d}.png", encoded(pixels), "cat"))
        images.append(annotated(tmp_path, f"b{number:02d}.png", encoded(pixels * 0.7), "cat"))
    train, held_out = drawn(images)
    assert len(held_out) == 10
    assert {name[1:] for name in train}.isdisjoint(name[1:] for name in held_out)
    assert drawn(images[::-1]) == [train[::-1], held_out[::-1]]
    assert drawn(images) == [train, held_out]
    assert drawn(images, seed=1) != [train, held_out]


def test_each_class_is_trained_and_its_share_is_held_out(tmp_path):
    images = []
    for number in range(40):
        classes = ["car"] + ["bus"] * (number % 4 == 0) + ["tram"] * (number in (3, 9)) + ["ship"] * (number == 5)
        images.append(annotated(tmp_path, f"{number:02d}.png", encoded(texture(number, 24, 40)), *classes))
    for seed in range(5):
        train, held_out = splits.draw_split(images, 0.25, seed)
        counts = collections.Counter(item.class_name for image in train for item in image.objects)
        assert set(counts) == {"car", "bus", "tram", "ship"}
        assert len(held_out) == 10
        assert counts["car"] == 30
        assert 7 <= counts["bus"] <= 8  # three quarters of 10


def test_objects_that_are_the_only_ones_of_their_class_are_trained(tmp_path, caplog):
    images = [annotated(tmp_path, f"{n:02d}.png", encoded(texture(n, 24, 40)), f"class{n % 19}") for n in range(20)]
    _, held_out = drawn(images, 0.5)  # only images 0 and 19 share a class
    assert held_out in (["00.png"], ["19.png"])
    assert not caplog.text


def test_what_cannot_be_divided(tmp_path, caplog):
    pixels = texture(1)
    one = [annotated(tmp_path, "a.png", encoded(pixels), "cat")]
    with pytest.raises(DataError, match=r"^1 image cannot be divided into training and validation: add images"):
        splits.draw_split(one, 0.2)
    copies = [annotated(tmp_path, f"{number}.png", encoded(pixels), "cat") for number in range(3)]
    with pytest.raises(DataError, match=r"^3 images, all copies of one, cannot be divided"):
        splits.draw_split(copies, 0.2)
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            splits.draw_split(copies, fraction)
    two = [annotated(tmp_path, f"{number}.png", encoded(texture(number)), f"class{number}") for number in range(2)]
    assert [len(part) for part in drawn(two, 0.2)] == [1, 1]


def test_one_fixed_camera_is_divided_into_runs(tmp_path, caplog):
    frames = []
    for number in range(40):
        pixels = texture(2).copy()
        pixels[8:16, 3 * number : 3 * number + 8] = 255  # a small object passes
        frames.append(annotated(tmp_path, f"frame{number:03d}.png", encoded(pixels), "cat"))
    frames.append(annotated(tmp_path, "copy.png", frames[7].content, "cat"))
    assert splits.group_images(frames)[0].max() == 0
    held_out = drawn(frames, 0.2)[1]
    assert "41 of 41 images are near-identical, as with a fixed camera: they are divided into runs of 4" in caplog.text
    assert len(held_out) == 8
    assert ("copy.png" in held_out) == ("frame007.png" in held_out)
    numbers = sorted(int(name[5:8]) for name in held_out if name != "copy.png")
    assert sum(later - earlier > 1 for earlier, later in itertools.pairwise(numbers)) <= 3  # few borders
    # Two clips are not divided: one of them is held out.
    caplog.clear()
    clips = [
        annotated(tmp_path, f"{name}_{number}.png", encoded(frame), "cat")
        for name, seed in (("a", 5), ("b", 6))
        for number, frame in enumerate(clip(seed, 10, 4))
    ]
    assert {name[0] for name in drawn(clips, 0.2)[1]} in ({"a"}, {"b"})
    assert not caplog.text


def test_draw_keeps_splits_that_exist(tmp_path, load_module, images):
    forms = load_module("datasets/label_formats.py")
    made = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(texture(number, 24, 40)))
        made.append(forms.Labelled(path, (24, 40), [("cat", (1.0, 1.0, 9.0, 9.0))]))
    forms.write_coco(made[:3], tmp_path / "data", "train.json")
    forms.write_coco(made[3:], tmp_path / "data", "val.json")
    recognized = recognize(tmp_path / "data")
    assert splits.draw(recognized, 0.5) is recognized
    (tmp_path / "data" / "val.json").unlink()
    recognized = recognize(tmp_path / "data")
    assert splits.draw(recognized, 0) is recognized
    assert recognized.description.endswith("; 3 images, no splits")
    halves = splits.draw(recognized, 0.34, seed=3)
    assert {name: len(part.images) for name, part in halves.splits.items()} == {"train": 2, "val": 1}
    assert halves.description.endswith("; drawn by seed 3: train 2 images, val 1 images")


def test_remarks_name_classes_with_too_few_objects(tmp_path):
    names = {1: "cat", 2: "dog", 3: "cow", 4: "unused"}
    train = [annotated(tmp_path, "a.png", b"", "cat", "cat")]
    val = [annotated(tmp_path, "b.png", b"", "dog", "cow", "cow")]
    recognized = recognize_of({"train": Annotations(train, names), "val": Annotations(val, names)}, names)
    assert remarks(recognized) == [
        "with one object only, a class cannot be both learned and evaluated: dog",
        "without an object in the split train, a class cannot be learned: cow",
    ]
    single = recognize_of({"all": Annotations(train, names)}, names)
    assert remarks(single) == ["the data set has one image only; a detector needs some dozens per class"]


def recognize_of(parts, names):
    from detzoo.datasets.recognize import Recognized
    from detzoo.files.issues import IssueLog

    return Recognized("coco", "", parts, names, IssueLog())
