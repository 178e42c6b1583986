"""Large images in tiles: whole objects, fragments at seams, objects larger than a tile, masks, and bad numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detzoo.datasets.shapes import CLASS_NAMES, draw_image
from detzoo.ensemble.tiles import TiledDetector
from detzoo.ensemble.views import cut_sides
from detzoo.errors import UsageError
from detzoo.evaluate.coco import evaluate_coco
from detzoo.evaluate.images import EvaluatedImage
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.live_detector import LiveDetector
from tests.ensemble.test_detector import finder, with_corners

SHAPE = (300, 500)
RGB = np.array([65536, 256, 1])  # a colour as one number


class Finder(ImageDetector):
    """Finds the objects of an image exactly, as far as it shows them; see ``finder``."""

    def __init__(self, wants_proposals=False, min_share=0.0, mask=None, score=0.9):
        self.calls: list[tuple[int, ...]] = []
        self.batches: list[int] = []
        self.wants_proposals, self.has_masks = wants_proposals, mask is not None
        self._find = finder(score, min_share=min_share, mask=mask, calls=self.calls)

    def __call__(self, image, *proposals_norm):
        return self._find(image)

    def detect_all(self, images, proposals_norm=()):
        self.batches.append(len(images))
        return super().detect_all(images, proposals_norm)


def image_of(*boxes_px, shape=SHAPE):
    """An image where object n shines with brightness n + 1."""
    image = np.zeros([*shape, 3], np.uint8)
    for number, (ymin, xmin, ymax, xmax) in enumerate(boxes_px, start=1):
        image[ymin:ymax, xmin:xmax] = number
    return image


def boxes_of(found, shape=SHAPE):
    """The boxes in pixels, by class."""
    boxes = np.round(found.boxes_norm * np.tile(shape, 2), 2)
    return {class_id: boxes[found.class_ids == class_id].tolist() for class_id in np.unique(found.class_ids).tolist()}


def test_tiles_cover_the_image_in_batches_with_at_least_the_overlap():
    detector = Finder()
    TiledDetector(detector, 100, 0.2, batch_size=4)(image_of())
    # Behind the first tile are 200 rows, 2.5 steps of 80, and 400 columns, 5 steps: 4 x 6 tiles.
    assert detector.calls[:-1] == [(100, 100, 3)] * 24
    assert detector.batches == [4] * 6
    assert detector.calls[-1] == (120, 200, 3)  # the whole image: its longer side is that of two tiles
    narrow = Finder()
    TiledDetector(narrow, 100, 0.0)(image_of(shape=(60, 250)))
    assert narrow.calls == [(60, 100, 3)] * 3 + [(48, 200, 3)]


def test_an_object_at_a_seam_or_a_corner_is_found_once_and_whole():
    # With an overlap of a half, tiles of 100 begin at 0, 50, 100, ...: 100 is the end of one and the beginning of one.
    objects = [[90, 90, 115, 112], [10, 95, 30, 130], [200, 480, 300, 500], [140, 200, 160, 215]]
    found = TiledDetector(Finder(), 100, 0.5)(image_of(*objects))
    assert boxes_of(found) == {number: [box] for number, box in enumerate(objects, start=1)}
    np.testing.assert_allclose(found.scores, 0.9)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_an_object_larger_than_the_overlap_is_joined_from_its_fragments(overlap):
    # Found is what fills more than 6 % of a view: no object does in the whole image, each of its fragments does.
    objects = [[120, 60, 180, 190], [190, 220, 290, 300], [10, 300, 70, 370]]
    found = TiledDetector(Finder(min_share=0.06), 100, overlap)(image_of(*objects))
    assert boxes_of(found) == {number: [box] for number, box in enumerate(objects, start=1)}


def test_an_object_larger_than_a_tile_is_found_in_the_whole_image():
    # Only a whole object is found: one that touches no side of what the model sees.
    class OfWholes(Finder):
        def __call__(self, image, *proposals_norm):
            found = super().__call__(image)
            inside = np.all((found.boxes_norm > 0) & (found.boxes_norm < 1), axis=1)
            return ImageDetections(*(column[inside] for column in found[:3]))

    found = TiledDetector(OfWholes(), 100)(image_of([50, 50, 250, 300], [20, 400, 40, 425]))
    boxes = boxes_of(found)
    assert boxes[2] == [[20, 400, 40, 425]]
    np.testing.assert_allclose(boxes[1], [[50, 50, 250, 300]], atol=2.5)  # a pixel of the whole image is 2.5 wide


def test_a_fragment_gives_way_to_the_whole_object_and_stays_without_one():
    # The object is wider than the overlap of 20: tile columns 0..100 and 80..180 of the first row show parts of it.
    class FirstTileOnly(Finder):
        whole = False

        def __call__(self, image, *proposals_norm):
            found = super().__call__(image)
            is_whole_image = image.shape[:2] == (120, 200)
            shown = (is_whole_image and self.whole) or (not is_whole_image and found.boxes_norm[:, 1:2].all())
            return found if shown else ImageDetections(*(column[:0] for column in found[:3]))

    detector = FirstTileOnly()
    image = image_of([10, 50, 40, 140])
    assert boxes_of(TiledDetector(detector, 100)(image)) == {1: [[10, 50, 40, 100]]}
    detector.whole = True
    np.testing.assert_allclose(boxes_of(TiledDetector(detector, 100)(image))[1], [[10, 50, 40, 140]], atol=2.5)


@pytest.mark.parametrize("of_one_class", [False, True])
def test_neighbours_at_a_seam_are_not_joined(of_one_class):
    class Classless(Finder):
        def __call__(self, image, *proposals_norm):
            found = super().__call__(image)
            return found._replace(class_ids=np.ones_like(found.class_ids))

    # Both end at the seam at column 100: in rows that share 5 of 35 pixels, and in the same rows in another class.
    objects = [[10, 60, 30, 100], [25, 100, 45, 140] if of_one_class else [10, 100, 30, 140]]
    found = TiledDetector((Classless if of_one_class else Finder)(), 100, 0.0)(image_of(*objects))
    assert [box for boxes in boxes_of(found).values() for box in boxes] == objects


def test_masks_stay_with_their_box_and_are_joined_with_it():
    mask = np.float32([[1, 1, 1], [0, 0, 0], [0, 0, 0]])  # the upper third of what the tile shows
    whole = TiledDetector(Finder(mask=mask), 100, 0.5)(image_of([110, 110, 130, 140]))
    np.testing.assert_array_equal(whole.masks, [mask])
    # Two halves side by side, each with its upper third: so has the union.
    joined = TiledDetector(Finder(mask=mask, min_share=0.06), 100, 0.0)(image_of([120, 60, 180, 190]))
    assert boxes_of(joined) == {1: [[120, 60, 180, 190]]}
    np.testing.assert_allclose(joined.masks, [mask], atol=1e-6)
    assert TiledDetector(Finder(mask=mask), 100)(image_of()).masks.shape == (0, 3, 3)


def test_a_detector_in_memory_runs_in_tiles_with_its_masks(toy):
    live = LiveDetector(toy.toy_detector(kind=toy.ToyMaskDetector), toy.ToyResizer())
    tiled = TiledDetector(live, 64, batch_size=3)
    found = tiled(np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8))
    assert tiled.has_masks
    assert len(found.scores) > 5
    # The toy's masks fall from 1 at the left to 0 at the right; joined ones have one such part per fragment.
    assert found.masks.shape == (len(found.scores), 3, 3)
    np.testing.assert_array_equal(found.masks[:, :, 0], 1.0)


def test_an_image_no_larger_than_a_tile_is_detected_on_as_it_is(caplog):
    detector = Finder()
    tiled = TiledDetector(detector, 500)
    for _ in range(2):
        assert boxes_of(tiled(image_of([10, 20, 30, 40]))) == {1: [[10, 20, 30, 40]]}
    assert detector.calls == [(300, 500, 3)] * 2
    [message] = caplog.messages
    assert message == "images no larger than --tile 500, such as one of 500 x 300 pixels, are detected on as a whole"


def test_bad_numbers_are_refused():
    with pytest.raises(UsageError, match=r"--tile is 8; accepted: pixels, 32 or more"):
        TiledDetector(Finder(), 8)
    for overlap in (-0.1, 0.8, float("nan")):
        with pytest.raises(UsageError, match=r"--tile_overlap is .*; accepted: 0 to 0.75"):
            TiledDetector(Finder(), 100, overlap)
    with pytest.raises(UsageError, match="--tile has no meaning for a model that classifies given regions"):
        TiledDetector(Finder(wants_proposals=True), 100)


def test_sides_of_the_image_cut_nothing():
    boxes = [[0.0, 0.0, 0.2, 0.5], [0.1, 0.1, 0.4, 0.495]]
    assert cut_sides(boxes, [0.0, 0.0, 1.0, 0.5]).tolist() == [[False, False, False, True]] * 2
    windows = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.1, 0.5, 1.0]]
    assert cut_sides(boxes, windows).tolist() == [[False, False, False, True], [False, True, False, False]]


def mosaic(shape, cell_px=100):
    """Objects of the embedded data set in every second cell, in different colours: image, boxes, classes."""
    image, boxes, classes, colours = np.zeros([*shape, 3], np.uint8), [], [], np.random.default_rng(0)
    for number, (row, column) in enumerate(np.ndindex(shape[0] // cell_px, shape[1] // cell_px)):
        [item] = draw_image(number, cell_px, seed=5, max_objects=1).objects
        height, width = np.subtract(item.box[2:], item.box[:2])
        if (row + column) % 2 or not 12 <= min(height, width) <= max(height, width) <= 60:
            continue
        offset = np.array([row, column]) * cell_px
        view = image[offset[0] :, offset[1] :][:cell_px, :cell_px]
        view[item.mask(cell_px, cell_px) > 0] = colours.integers(1, 256, 3)
        boxes.append(np.array(item.box) + np.tile(offset, 2))
        classes.append(CLASS_NAMES.index(item.class_name))
    return image, np.array(boxes, np.float32), np.array(classes, np.int32)


class Shrinking(ImageDetector):
    """A perfect detector of mosaics whose input is small: it shrinks what it sees to 160 x 160 pixels."""

    def __init__(self, image, boxes, classes):
        colours = [(image[top:bottom, left:right] @ RGB).max() for top, left, bottom, right in boxes.astype(int)]
        self._class_of = dict(zip(colours, classes))

    def __call__(self, image):
        small = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.NEAREST)) @ RGB
        boxes, class_ids = [], []
        for colour in set(np.unique(small)) & set(self._class_of):
            rows, columns = np.nonzero(small == colour)
            boxes.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            class_ids.append(self._class_of[colour] + 1)
        boxes_norm = np.array(boxes, np.float32).reshape(-1, 4) / 160
        return ImageDetections(boxes_norm, np.full(len(boxes), 0.9, np.float32), np.array(class_ids, np.int32))


def test_tiles_at_least_double_the_average_precision_on_mosaics():
    shape = (2000, 3000)
    image, boxes, classes = mosaic(shape)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert len(boxes) > 200

    def precision(detect):
        boxes_norm, scores, class_ids, *_ = detect(image)
        nothing = np.zeros(len(boxes), bool)
        evaluated = EvaluatedImage(
            *("1", shape, boxes, classes, nothing, nothing, sides.prod(axis=1)),
            *(boxes_norm * np.tile(shape, 2), scores, class_ids - 1),
        )
        return evaluate_coco([evaluated], dict(enumerate(CLASS_NAMES, start=1))).metrics["mAP"]

    detector = Shrinking(image, boxes, classes)
    whole, tiled = precision(detector), precision(TiledDetector(detector, 320, 0.2))
    # Shrunk 19 x 13 times, objects of 12 to 60 pixels are 1 to 5 pixels; shrunk twice, they are 6 to 30.
    assert tiled > max(2 * whole, 0.7)
    assert whole > 0


class CornerFinder(Finder):
    """Finder whose keypoints are corners; the lower right one is seen well where the object is not cut on the left."""

    def __call__(self, image, *proposals_norm):
        found = with_corners(self._find)(image)
        is_first = found.boxes_norm[:, 1] > 0.0
        scores = np.stack([np.where(is_first, 0.9, 0.2), np.where(is_first, 0.2, 0.9)], axis=1)
        return found._replace(keypoint_scores=scores.astype(np.float32))


def test_keypoints_of_tiles_and_joined_fragments():
    # Tiles of 200 pixels start in columns 0, 150 and 300. The first object lies in the first tile alone; the second,
    # of 250 columns, is cut off by every tile, and too small a share of the whole image to be found there.
    boxes = [10, 20, 60, 90], [240, 100, 260, 350]
    detector = TiledDetector(CornerFinder(min_share=0.034), 200, 0.2)
    found = detector(image_of(*boxes))
    order = np.argsort(found.class_ids)
    assert found.class_ids[order].tolist() == [1, 2]
    expected = found.boxes_norm[order].reshape(-1, 2, 2)
    np.testing.assert_allclose(found.keypoints_norm[order], expected, atol=1e-6)
    np.testing.assert_allclose(found.keypoint_scores[order], [[0.9, 0.2], [0.9, 0.9]])
