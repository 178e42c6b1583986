"""Windows of selective search: where OpenCV is looked for, what becomes of its windows, and that a stop loses nothing.

A stand-in for OpenCV's contrib build says which one the workers load, and needs none to be installed.
"""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data.proposals import read_proposals
from detzoo.datasets import proposal_search, selective_search
from detzoo.datasets.proposal_search import images_of_files, images_of_records, write_searched
from detzoo.datasets.selective_search import FOLDER_VARIABLE, SearchOptions, find_opencv, search_images, to_proposals
from detzoo.errors import DataError, UsageError
from detzoo.ops.numpy_boxes import pairwise_iou
from detzoo.tasks.propose import search

# Images of the stand-in are two bytes, height and width; it finds the whole image and its left half.
STAND_IN = """
import types
import numpy as np
IMREAD_COLOR, IMREAD_IGNORE_ORIENTATION = 1, 128
__version__ = "stand-in"
def setNumThreads(count): pass
def imdecode(data, flags):
    return np.zeros((data[0], data[1], 3), np.uint8) if flags == 129 and len(data) == 2 else None
def resize(pixels, size): return np.zeros((size[1], size[0], 3), np.uint8)
class Search:
    def setBaseImage(self, pixels): self.height, self.width = pixels.shape[:2]
    def switchToSelectiveSearchFast(self): self.mode = 1
    def switchToSelectiveSearchQuality(self): self.mode = 2
    def switchToSingleStrategy(self): self.mode = 3
    def process(self):
        whole = [0, 0, self.width, self.height]
        return np.array([whole, [0, 0, self.width // 2, self.height], whole][: self.mode], np.int32)
segmentation = types.SimpleNamespace(createSelectiveSearchSegmentation=Search)
"""
OPTIONS = SearchOptions("quality", image_width=0, min_size=1)


def by_one(opencv):
    return functools.partial(search_images, options=OPTIONS, opencv_folder=opencv, num_workers=1)


@pytest.fixture
def opencv(tmp_path):
    """A folder with the stand-in."""
    folder = tmp_path / "contrib"
    (folder / "cv2" / "ximgproc").mkdir(parents=True)
    (folder / "cv2" / "__init__.py").write_text(
        STAND_IN + "ximgproc = types.SimpleNamespace(segmentation=segmentation)"
    )
    return str(folder)


def test_windows_become_fractions_best_first():
    # x, y, width, height on an image of 100 x 200 pixels; the third is the first again, the fourth too small.
    windows = [[20, 10, 40, 50], [0, 0, 200, 100], [20, 10, 40, 50], [5, 5, 19, 60], [100, 50, 100, 50]]
    found = to_proposals(np.array(windows), (100, 200), SearchOptions(max_proposals=2))
    np.testing.assert_allclose(found.boxes_norm, [[0.1, 0.1, 0.6, 0.3], [0.0, 0.0, 1.0, 1.0]])
    assert found.scores.tolist() == [1.0, 0.5]
    assert (found.boxes_norm.dtype, found.scores.dtype) == (np.float32, np.float32)


def test_an_image_may_have_no_window():
    found = to_proposals(np.zeros([0, 4], int), (100, 200), SearchOptions())
    assert (found.boxes_norm.shape, found.scores.shape) == ((0, 4), (0,))


def test_the_contrib_build_is_found_where_it_is_named(opencv, monkeypatch, tmp_path):
    assert find_opencv(opencv) == opencv
    monkeypatch.setenv(FOLDER_VARIABLE, opencv)
    assert find_opencv() == opencv
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".local/share/detzoo/opencv_contrib/cv2").mkdir(parents=True)
    assert find_opencv() == str(tmp_path / ".local/share/detzoo/opencv_contrib")


def test_an_environment_whose_own_opencv_is_the_contrib_build_needs_no_folder(opencv, monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(opencv)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    assert find_opencv() == ""


def test_without_it_the_message_has_both_commands_that_install_it(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'install "detzoo.spp."(.|\n)*pip install --no-deps --target ~/.local'):
        find_opencv()
    with pytest.raises(UsageError, match=r"there is no cv2 in .*nowhere(.|\n)*--target .*nowhere opencv-contrib"):
        find_opencv(str(tmp_path / "nowhere"))


def test_workers_search_in_the_order_of_the_images(opencv):
    images = [("a", bytes([10, 20])), ("b", bytes([40, 8])), ("c", bytes([6, 6]))]
    found = list(search_images(images, OPTIONS, opencv, num_workers=1))
    assert [image_id for image_id, _ in found] == ["a", "b", "c"]
    np.testing.assert_allclose(found[0][1].boxes_norm, [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]])
    [(_, fast)] = search_images(images[:1], SearchOptions(image_width=100), opencv, num_workers=1)
    np.testing.assert_allclose(fast.boxes_norm, [[0.0, 0.0, 1.0, 1.0]])


def test_an_image_that_cannot_be_decoded_is_named_and_gets_no_windows(opencv, caplog):
    [(image_id, found)] = search_images([("broken", b"123")], OPTIONS, opencv, num_workers=1)
    assert (image_id, found.boxes_norm.shape, found.scores.shape) == ("broken", (0, 4), (0,))
    assert "image 'broken' cannot be decoded" in caplog.text


@pytest.mark.parametrize("left", ["", "ximgproc = types.SimpleNamespace()"])  # what another build leaves of contrib
def test_a_build_without_selective_search_is_named(opencv, tmp_path, left):
    (tmp_path / "plain" / "cv2").mkdir(parents=True)
    (tmp_path / "plain" / "cv2" / "__init__.py").write_text(STAND_IN + left)
    with pytest.raises(UsageError, match=r"OpenCV stand-in in .*plain.* has no selective search.*install --no-deps"):
        list(search_images([("a", bytes([10, 20]))], OPTIONS, str(tmp_path / "plain"), num_workers=1))


def test_what_was_searched_before_a_stop_is_kept(opencv, tmp_path, monkeypatch):
    """The third id stops the first run; the second run searches the third image alone."""
    monkeypatch.setattr(proposal_search, "IMAGES_OF_A_PART", 1)
    good = [("a", bytes([10, 20])), ("b", bytes([40, 8]))]
    output = tmp_path / "proposals.npz"
    with pytest.raises(DataError, match="two images have the id 'a'"):
        write_searched([*good, ("a", bytes([6, 6]))], 3, output, OPTIONS, by_one(opencv))
    assert not output.exists()
    whole = [*good, ("c", bytes([6, 6]))]
    summary = write_searched(whole, 3, output, OPTIONS, by_one(opencv))
    assert summary == (3, 6, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contrib", "proposals.npz"]
    table = read_proposals(str(output))
    assert table.image_ids == ["a", "b", "c"]
    np.testing.assert_allclose(table.lookup(b"b")[0], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]])


def test_two_images_of_one_id_are_told(opencv, tmp_path):
    images = [("a", bytes([10, 20])), ("a", bytes([40, 8]))]
    with pytest.raises(DataError, match="two images have the id 'a'"):
        write_searched(images, 2, tmp_path / "proposals.npz", OPTIONS, by_one(opencv))


def _record(**features):
    kept = {key.replace("_", "/", 1): value for key, value in features.items()}
    feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in kept.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_records_are_known_by_their_source_id(tmp_path):
    path = str(tmp_path / "records")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(_record(image_source_id=b"7", image_encoded=b"pixels"))
        writer.write(_record(image_encoded=b"pixels"))
    count, images = images_of_records(path)
    assert (count, next(images)) == (2, ("7", b"pixels"))
    with pytest.raises(DataError, match="record 1 has no image/source_id"):
        next(images)


def test_files_are_known_by_their_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    assert list(images_of_files([tmp_path / "a.png"])) == [("a.png", b"pixels")]


def test_the_real_opencv_finds_a_square():
    """With the contrib build, some window is the bright square, and a second search agrees."""
    try:
        folder = find_opencv()
    except UsageError:
        pytest.skip("OpenCV's contrib build is not installed")
    pixels = np.full((120, 160, 3), 30, np.uint8)
    pixels[40:90, 60:120] = (250, 200, 40)
    encoded = tf.io.encode_png(pixels).numpy()
    options = SearchOptions(image_width=0)
    (_, found), (_, again) = search_images([("a", encoded), ("b", encoded)], options, folder, num_workers=1)
    distance = np.abs(found.boxes_norm - np.array([40 / 120, 60 / 160, 90 / 120, 120 / 160])).max(axis=1)
    assert distance.min() < 0.03
    np.testing.assert_array_equal(found.boxes_norm, again.boxes_norm)


def test_edge_boxes_finds_a_box_by_its_edges():
    cv2 = pytest.importorskip("cv2")
    if not hasattr(getattr(cv2, "ximgproc", None), "createEdgeBoxes"):
        pytest.skip("OpenCV without contrib modules")
    pixels = np.full((120, 160, 3), 40, np.uint8)
    pixels[30:90, 50:130] = (200, 180, 60)
    found = selective_search._search(
        cv2.imencode(".png", pixels)[1].tobytes(), SearchOptions("edge_boxes", image_width=0, min_size=10)
    )
    true = np.array([[30 / 120, 50 / 160, 90 / 120, 130 / 160]])
    assert pairwise_iou(found.boxes_norm[:5].astype(float), true).max() > 0.8
    assert found.scores[0] == 1.0


def test_a_missing_model_of_edges_is_named(opencv, tmp_path):
    with pytest.raises(UsageError, match=r"--edge_model: there is no file .*model\.yml\.gz"):
        search(
            tmp_path / "x.npz",
            images=[str(tmp_path)],
            options=SearchOptions("edge_boxes", edge_model=str(tmp_path / "model.yml.gz")),
            opencv_folder=opencv,
        )
