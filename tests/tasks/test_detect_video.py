"""Detection on videos: the annotated video, the list of frames, interruptions, streams, and tracking."""

from __future__ import annotations

import collections
import importlib.util
import json
import logging
import os
import signal
import sys
import time
import types
from typing import ClassVar

import numpy as np
import pytest

from detzoo.errors import DataError, UsageError
from detzoo.files import video
from detzoo.files.video import VideoReader, find_videos
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.tasks import detect_video as module
from detzoo.tasks.detect_video import VideoOptions, frames_of
from detzoo.tasks.result import Result
from tests.video_files import jpegs, mpegts, number_of, sending, serving, stalling, write_video

LABEL_MAP = "item { id: 1 name: 'cat' }\nitem { id: 2 name: 'dog' }\n"


class Moving(ImageDetector):
    """A cat that moves by 2 % of the width per frame, and a dog in even frames; with scores 0.9 and 0.6, or less."""

    def __init__(self, folder, at=None, error=None, scores=(0.9, 0.6)):
        self.folder, self._at, self._error, self._scores = folder, at, error, scores
        self.batches, self.seen = [], []
        (folder / "label_map.pbtxt").write_text(LABEL_MAP)

    def detect_all(self, images, proposals_norm=()):
        self.batches.append(len(images))
        return super().detect_all(images, proposals_norm)

    def __call__(self, image):
        number = number_of(image)
        self.seen.append(number)
        if number == self._at:
            raise self._error
        left = 0.02 * number
        boxes = np.float32([[0.2, left, 0.6, left + 0.3], [0.5, 0.6, 0.9, 0.9]])[: 2 - number % 2]
        count = len(boxes)
        return ImageDetections(boxes, np.float32(self._scores)[:count], np.int32([1, 2])[:count])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "street.mp4"
    write_video(str(path), bf="0")
    return path


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(video, "_FIRST_PAUSE_SECONDS", 0.01)


def detect(detector, videos, out, **options):
    names = ("no_pictures", "score_threshold", "tile_overlap")
    of_task = {name: options.pop(name) for name in names if name in options}
    return module.detect_video(
        [str(name) for name in videos], out, saved_model=detector, options=VideoOptions(**options), **of_task
    )


def lines_of(out):
    return [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]


def frames_in(path):
    [source] = find_videos([str(path)])
    return list(VideoReader(source))


def test_a_video_becomes_an_annotated_one_and_a_list(clip, tmp_path):
    out = tmp_path / "out"
    [summary] = detect(Moving(tmp_path), [clip], out)
    assert sorted(path.name for path in out.iterdir()) == ["detections.jsonl", "street.mp4"]
    lines = lines_of(out)
    # 64 x 96 pixels: rows 0.2 to 0.6 are 12.8 to 38.4; in frame 3 the left side is at 2 x 2 % of 96.
    assert lines[2] == {
        "video": str(clip),
        "frame": 3,
        "seconds": 0.2,
        "height": 64,
        "width": 96,
        "counts": {"cat": 1, "dog": 1},
        "detections": [
            {"category_id": 1, "category_name": "cat", "bbox": [3.84, 12.8, 28.8, 25.6], "score": 0.9},
            {"category_id": 2, "category_name": "dog", "bbox": [57.6, 32.0, 28.8, 25.6], "score": 0.6},
        ],
    }
    assert [line["frame"] for line in lines] == list(range(1, 11))
    assert (summary.source, summary.num_frames, summary.objects) == (str(clip), 10, {})
    assert summary.detections == {"cat": 10, "dog": 5}
    assert summary.frames == {"cat": 10, "dog": 5}
    drawn, given = frames_in(out / "street.mp4"), frames_in(clip)
    assert [frame.seconds for frame in drawn] == pytest.approx([frame.seconds for frame in given], abs=1e-3)
    assert drawn[0].pixels.shape == (320, 480, 3)  # small frames are enlarged, as small images are
    where_dog_is = [frame.pixels[150:300, 280:440].astype(int) - 40 - 8 * number for number, frame in enumerate(drawn)]
    assert [bool(abs(part).max() > 60) for part in where_dog_is] == [number % 2 == 0 for number in range(10)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interruption_leaves_a_playable_video_and_whole_lines(clip, tmp_path, error, caplog):
    with pytest.raises(error, match="stopped"):
        detect(Moving(tmp_path, 6, error("stopped")), [clip], tmp_path / "out", batch_size=1)
    assert [line["frame"] for line in lines_of(tmp_path / "out")] == list(range(1, 7))
    assert len(frames_in(tmp_path / "out" / "street.mp4")) == 6
    assert f"ended early: 6 frames of {clip} are written" in caplog.text


def test_a_termination_ends_as_an_interruption(clip, tmp_path):
    class Terminated(Moving):
        def __call__(self, image):
            if len(self.seen) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(image)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        detect(Terminated(tmp_path), [clip], tmp_path / "out", batch_size=1)
    assert len(frames_in(tmp_path / "out" / "street.mp4")) == len(lines_of(tmp_path / "out")) in (5, 6)
    assert signal.getsignal(signal.SIGTERM) is before


def test_several_videos_share_the_list(clip, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "street.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "in" / "broken.mp4").write_bytes(b"nothing")
    summaries = detect(Moving(tmp_path), [clip, tmp_path / "in"], tmp_path / "out", max_frames=2)
    assert [summary.num_frames for summary in summaries] == [2, 2]
    names = ["detections.jsonl", "street.mp4", "street_2.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    expected = [(str(clip), 1), (str(clip), 2), *((str(tmp_path / "in" / "street.mp4"), n) for n in (1, 2))]
    assert [(line["video"], line["frame"]) for line in lines_of(tmp_path / "out")] == expected
    assert "broken.mp4 cannot be opened" in caplog.text
    with pytest.raises(DataError, match=r"broken.mp4 cannot be opened: it is no video"):
        detect(Moving(tmp_path), [tmp_path / "in" / "broken.mp4"], tmp_path / "out")
    assert len(lines_of(tmp_path / "out")) == 4, "the results of the run before are still there"


def test_a_video_without_frames(tmp_path):
    write_video(str(tmp_path / "none.avi"), "mjpeg", 1, pixels="yuvj420p")
    content = (tmp_path / "none.avi").read_bytes()
    start = content.index(b"00dc", content.index(b"movi")) + 8
    (tmp_path / "none.avi").write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(DataError, match=r"none.avi has no frame that can be decoded: 1 frames are damaged or lost$"):
        detect(Moving(tmp_path), [tmp_path / "none.avi"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_stream_is_recorded_until_it_is_gone(tmp_path, caplog):
    out = tmp_path / "out"
    with serving(sending(mpegts(5)), sending(mpegts(4)), None) as url:
        [summary] = detect(Moving(tmp_path), [url + ".ts"], out, stream_timeout=5.0, stream_retries=1)
    assert summary.num_frames == 9
    assert "the stream ended, and did not return" in caplog.text
    assert len(lines_of(out)) == len(frames_in(next(out.glob("*_camera_ts.mp4")))) == 9
    with (
        serving(stalling(jpegs(range(4))), None) as url,
        pytest.raises(DataError, match=r"did not return: nothing came for 0.3 s"),
    ):
        detect(Moving(tmp_path), [url], out, stream_timeout=0.3, stream_retries=1)
    assert len(lines_of(out)) == 4, "what came before is kept"
    assert "secret" not in caplog.text + (out / "detections.jsonl").read_text()


def test_a_slow_model_drops_frames_of_a_stream_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("detzoo.files.frame_buffer.LIVE_BUFFER_BYTES", 2 * 64 * 96 * 3)

    buffers = []

    class Watched(module.FrameBuffer):
        def __enter__(self):
            buffers.append(self)
            return super().__enter__()

    class Slow(Moving):
        def __call__(self, image):
            while not buffers[0]._has_ended:
                time.sleep(0.01)
            return super().__call__(image)

    monkeypatch.setattr(module, "FrameBuffer", Watched)
    with serving(sending(jpegs(range(20))), None) as url:
        [summary] = detect(Slow(tmp_path), [url], tmp_path / "out", batch_size=1, stream_retries=0, no_pictures=True)
    assert summary.num_frames < 20
    dropped = 20 - summary.num_frames
    assert f"{dropped} frames were dropped, because the model is slower than the stream" in caplog.text
    assert lines_of(tmp_path / "out")[-1]["frame"] == 20


def test_an_interruption_is_the_end_of_a_stream(clip, tmp_path, caplog):
    stopped = Moving(tmp_path, 4, KeyboardInterrupt("stopped"))
    with serving(stalling(jpegs(range(9)))) as url:
        [summary] = detect(stopped, [url, clip], tmp_path / "out", batch_size=1, stream_timeout=5.0)
    assert (summary.is_interrupted, summary.num_frames, summary.detections) == (True, 4, {"cat": 4, "dog": 2})
    assert "ended early: 4 frames of http" in caplog.text


def test_mistakes_are_named(clip, tmp_path):
    detector = Moving(tmp_path)
    with pytest.raises(UsageError, match=r"street.mp4 would be replaced by its annotated video; name another folder"):
        detect(detector, [clip], clip.parent)
    with pytest.raises(UsageError, match="--frame_stride is 0; accepted: 1 or more"):
        VideoOptions(frame_stride=0)
    detector.wants_proposals = True
    with pytest.raises(UsageError, match="classifies given regions, which a video does not have"):
        detect(detector, [clip], tmp_path / "out")
    with pytest.raises(UsageError, match="needs --saved_model, or --ensemble"):
        module.detect_video([str(clip)], tmp_path / "out")
    with pytest.raises(UsageError, match="--tile_overlap goes with --tile"):
        detect(Moving(tmp_path), [clip], tmp_path / "out", tile_overlap=0.1)
    failing = Moving(tmp_path, 0, ValueError("too large"))
    with pytest.raises(
        DataError, match=r"street.mp4: image 1 cannot be used: the model fails on 96 x 64 pixels: too large"
    ):
        detect(failing, [clip], tmp_path / "out")


def test_damage_is_reported(clip, tmp_path, caplog):
    write_video(str(tmp_path / "whole.mkv"), "mjpeg", 40, pixels="yuvj420p")
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING, "detzoo"):
        detect(Moving(tmp_path), [tmp_path / "cut.mkv"], tmp_path / "out", no_pictures=True)
    assert "cut.mkv: " in caplog.text
    assert " of 4.0 s" in caplog.text


# Tracking


class FakeSupervision(types.ModuleType):
    """ByteTrack that follows every box of the first class from its second frame, as number 7."""

    __version__ = "0.30.0"

    class Detections:
        def __init__(self, xyxy, confidence, data):
            self.xyxy, self.confidence, self.data, self.tracker_id = xyxy, confidence, data, None

        def __len__(self):
            return len(self.xyxy)

    class ByteTrack:
        made: ClassVar[list] = []

        def __init__(self, **arguments):
            self.arguments, self.scores = arguments, []
            self.made.append(self)

        def update_with_detections(self, given):
            self.scores.append(given.confidence.tolist())
            found = FakeSupervision.Detections(given.xyxy[:1], given.confidence[:1], {"row": given.data["row"][:1]})
            if len(self.scores) == 1:
                return FakeSupervision.Detections(given.xyxy[:0], given.confidence[:0], {})
            found.tracker_id = np.array([7])
            return found


@pytest.fixture
def fake_supervision(monkeypatch):
    monkeypatch.setattr("detzoo.extras._PACKAGES", {"track": {"av": "av"}, "video": {"av": "av"}})
    fake = FakeSupervision("supervision")
    fake.ByteTrack.made.clear()
    monkeypatch.setitem(sys.modules, "supervision", fake)
    return fake


def test_a_tracker_numbers_the_objects(clip, tmp_path, fake_supervision):
    detector = Moving(tmp_path, scores=(0.9, 0.3))
    [summary] = detect(detector, [clip], tmp_path / "out", track=True, frame_stride=2)
    [tracker] = fake_supervision.ByteTrack.made
    assert tracker.arguments == {"track_activation_threshold": pytest.approx(0.4), "frame_rate": 5.0}
    assert tracker.scores[0] == pytest.approx([0.9, 0.3]), "the tracker is given unsure boxes as well"
    found = [[(e["category_name"], e["track_id"]) for e in line["detections"]] for line in lines_of(tmp_path / "out")]
    assert found == [[("cat", None)], *[[("cat", 7)]] * 4]
    assert summary.objects == {"cat": 1}


def test_names_are_drawn_with_the_number():
    found = ImageDetections(np.float32([[0, 0, 1, 1]] * 2), np.float32([0.9, 0.8]), np.int32([1, 1]))
    result = Result(found, (10, 10), {1: "cat"}, track_ids=np.int32([3, 0]))
    assert [result._label(row) for row in range(2)] == ["cat #3", "cat"]
    assert result[[1]].track_ids.tolist() == [0]
    assert [entry["track_id"] for entry in result.to_coco()] == [3, None]
    assert [detection.track_id for detection in result] == [3, None]


def test_a_release_without_byte_track_is_named(clip, tmp_path, fake_supervision, monkeypatch):
    monkeypatch.delattr(FakeSupervision, "ByteTrack")
    with pytest.raises(UsageError, match=r"supervision 0.30.0 has no ByteTrack. Install: .*detzoo\[track\]"):
        detect(Moving(tmp_path), [clip], tmp_path / "out", track=True)


@pytest.mark.skipif(importlib.util.find_spec("supervision") is None, reason="needs the extra detzoo[track]")
def test_byte_track_follows_a_moving_object(clip, tmp_path):
    [summary] = detect(Moving(tmp_path), [clip], tmp_path / "out", track=True)
    ids = collections.defaultdict(list)
    for line in lines_of(tmp_path / "out"):
        for entry in line["detections"]:
            ids[entry["category_name"]].append(entry["track_id"])
    assert ids["cat"] == [1] * 10
    assert set(ids["dog"]) <= {2}, "it keeps its number while it is gone"
    assert summary.objects == {"cat": 1, "dog": 1}


def test_results_of_a_single_video(clip, tmp_path):
    results = list(frames_of(Moving(tmp_path), str(clip), {1: "cat"}, VideoOptions(max_frames=3)))
    assert [(result.image_id, result.path) for result in results] == [(number, clip) for number in (1, 2, 3)]
    assert [result.seconds for result in results] == pytest.approx([0.0, 0.1, 0.2], abs=1e-3)
    assert number_of(results[2].image) == 2
    with pytest.raises(UsageError, match="is 2 videos; give one"):
        frames_of(Moving(tmp_path), f"{clip},0", {}, VideoOptions())
