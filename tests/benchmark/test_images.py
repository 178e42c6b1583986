"""Tests of the images of a benchmark: different images per run, crops as in the paper, errors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detzoo.benchmark import images
from detzoo.errors import DataError, UsageError


class Detector:
    """The batch as numpy."""

    wants_proposals = False

    def as_batch(self, given):
        return np.stack(given)


@pytest.fixture
def folder(tmp_path):
    for number, (height, width) in enumerate([(20, 30), (40, 30), (20, 30)]):
        Image.new("RGB", (width, height), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_random_images_differ():
    pool = images.random_images((4, 6))
    assert {image.shape for image in pool.images} == {(4, 6, 3)}
    assert len({image.tobytes() for image in pool.images}) == images.NUM_RANDOM


def test_a_folder_and_a_pattern(folder):
    pool = images.read_images(str(folder), None, 10)
    assert [image[0, 0, 0] for image in pool.images] == [0, 1, 2]
    assert pool.shapes == [(20, 30), (40, 30)]
    assert pool.typical.shape == (20, 30, 3)
    assert len(images.read_images(f"{folder}/[01].png", None, 10).images) == 2
    assert len(images.read_images(str(folder), None, 2).images) == 2


def test_an_unreadable_file_is_named_skipped_and_counted(folder, caplog):
    (folder / "0b.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "0a.jpg").write_bytes(b"")
    pool = images.read_images(str(folder), None, 2)
    assert [image[0, 0, 0] for image in pool.images] == [0, 1]
    assert "0b.png is skipped" in caplog.text
    assert "2 images, 2 unreadable files skipped" in caplog.text
    with pytest.raises(DataError, match="none of 1 files could be read"):
        images.read_images(str(folder / "0a.jpg"), None, 2)


def test_the_shorter_side_becomes_k_and_the_rest_is_cut():
    # 20 x 40 in four stripes of ten columns; the square of 10 shows the middle half, the second and the third stripe.
    # Borders of stripes are mixed with their neighbours.
    columns = np.repeat(np.arange(4, dtype=np.uint8) * 50, 10)
    pixels = np.broadcast_to(columns[np.newaxis, :, np.newaxis], (20, 40, 3))
    cut = np.asarray(images.fit(Image.fromarray(pixels.copy()), (10, 10)))
    assert cut.shape == (10, 10, 3)
    assert (cut[:, 1:4] == 50).all()
    assert (cut[:, 6:9] == 100).all()


def test_images_of_different_sizes_go_one_by_one(folder):
    pool = images.read_images(str(folder), None, 10)
    images.check_pool(pool, 1, needs_one_shape=False)
    with pytest.raises(UsageError, match=r"2 different sizes, and a batch needs .* --image_size"):
        images.check_pool(pool, 2, needs_one_shape=False)
    with pytest.raises(UsageError, match="XLA compiles again"):
        images.check_pool(pool, 1, needs_one_shape=True)
    images.check_pool(images.read_images(str(folder), (8, 8), 10), 2, needs_one_shape=True)


@pytest.mark.parametrize(("count", "batch_size"), [(8, 1), (8, 2), (8, 3), (3, 4), (2, 2), (8, 16)])
def test_no_batch_is_that_of_the_run_before(count, batch_size):
    found = images.batches(Detector(), images.random_images((2, 2), count), batch_size)
    assert all(len(batch) == batch_size for batch in found)
    assert all(not np.array_equal(one, other) for one, other in zip(found, found[1:] + found[:1]))


def test_mistakes(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image there; looked for"):
        images.read_images(str(tmp_path / "empty"), None, 1)
    with pytest.raises(UsageError, match="there is no such file or folder"):
        images.read_images(str(tmp_path / "nowhere"), None, 1)
