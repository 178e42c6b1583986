"""Reading videos of every kind, cameras and streams; writing videos that players show."""

from __future__ import annotations

import fractions
import logging
import threading
import time

import numpy as np
import pytest
from PIL import Image

from detzoo.errors import DataError, UsageError
from detzoo.files import frame_buffer, video
from detzoo.files.frame_buffer import FrameBuffer
from detzoo.files.pixel_limit import limited_to
from detzoo.files.video import Frame, VideoReader, find_videos, is_video
from detzoo.files.video_writer import VideoWriter
from tests.video_files import (
    SIZE,
    add_silence,
    av,
    jpegs,
    mpegts,
    number_of,
    picture,
    sending,
    serving,
    stalling,
    turned,
    write_video,
)


def reader_of(name, *arguments, **options):
    [source] = find_videos([str(name)])
    return VideoReader(source, *arguments, **options)


def numbers(frames):
    return [number_of(frame.pixels) for frame in frames]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(video, "_FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(str(path), bf="0")
    return path


# Reading


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", {"has_sound": True}),
        ("a.mov", "h264", {}),
        ("a.mkv", "h264", {}),
        ("a.avi", "mpeg4", {}),
        ("a.webm", "libvpx-vp9", {"speed": "8", "deadline": "realtime"}),
        ("a.ts", "h264", {}),
        ("a.mpg", "mpeg1video", {"rate": 25}),
        ("a, b:c %03d.mp4", "h264", {}),
    ],
)
def test_every_container_has_its_frames_and_times(name, codec, options, tmp_path, capfd):
    write_video(str(tmp_path / name), codec, **options)
    reader = reader_of(tmp_path / name)
    frames = list(reader)
    assert numbers(frames) == list(range(10))
    assert [frame.number for frame in frames] == list(range(1, 11))
    rate = options.get("rate", 10)
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(10) / rate, atol=0.002)
    assert (reader.rate, reader.is_live, reader.flaws) == (rate, False, [])
    assert capfd.readouterr() == ("", "")


def test_the_frames_of_a_gif(tmp_path):
    first, *others = [picture(number) for number in range(4)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=200)
    frames = list(reader_of(tmp_path / "a.gif"))
    assert numbers(frames) == [0, 1, 2, 3]
    np.testing.assert_allclose([frame.seconds for frame in frames], [0, 0.2, 0.4, 0.6])


def test_a_variable_rate_keeps_its_times(tmp_path):
    seconds = [0.0, 0.1, 1.0, 1.5]
    write_video(str(tmp_path / "a.mp4"), count=4, seconds=seconds)
    reader = reader_of(tmp_path / "a.mp4")
    np.testing.assert_allclose([frame.seconds for frame in reader], seconds, atol=1e-3)


def test_stride_and_limit(clip):
    reader = reader_of(clip, 3)
    assert reader.num_expected == 4  # 1, 4, 7, 10
    assert [frame.number for frame in reader] == [1, 4, 7, 10]
    reader = reader_of(clip, 3, 2)
    frames = list(reader)
    assert (reader.num_expected, numbers(frames), reader.flaws) == (2, [0, 3], [])


# A display matrix (a, b), (c, d) moves a stored point (x, y) to (a x + c y, b x + d y). Stored are a red corner at the
# top left and a blue one at the top right. For (0, 1), (-1, 0), which turns clockwise: (0, 0) is at the greatest x and
# the least y, the top right; (width, 0) at the greatest x and y, the bottom right.
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [
        ((1, 0, 0, 1), "top left", "top right"),
        ((0, 1, -1, 0), "top right", "bottom right"),
        ((-1, 0, 0, -1), "bottom right", "bottom left"),
        ((0, -1, 1, 0), "bottom left", "top left"),
        ((-1, 0, 0, 1), "top right", "top left"),
        ((1, 0, 0, -1), "bottom left", "bottom right"),
        ((0, 1, 1, 0), "top left", "bottom left"),
        ((0, -1, -1, 0), "bottom right", "top right"),
    ],
)
def test_videos_of_phones_are_upright(clip, tmp_path, matrix, red, blue):
    (tmp_path / "turned.mp4").write_bytes(turned(clip.read_bytes(), *matrix))
    pixels = next(iter(reader_of(tmp_path / "turned.mp4"))).pixels
    is_turned = matrix[0] == 0
    assert pixels.shape == ((96, 64, 3) if is_turned else (64, 96, 3))
    corners = {
        "top left": pixels[6, 6],
        "top right": pixels[6, -7],
        "bottom left": pixels[-7, 6],
        "bottom right": pixels[-7, -7],
    }
    assert corners[red][0] > 200 > 60 > corners[red][2]
    assert corners[blue][2] > 200 > 60 > corners[blue][0]


def test_odd_sizes_and_pixels_that_are_not_square(tmp_path):
    write_video(str(tmp_path / "odd.mkv"), "ffv1", 1, size=(97, 63), pixels="bgr0")
    [frame] = reader_of(tmp_path / "odd.mkv")
    assert frame.pixels.shape == (63, 97, 3)
    np.testing.assert_array_equal(frame.pixels, np.asarray(picture(0, (97, 63))))
    write_video(str(tmp_path / "wide.mp4"), count=1, ratio=fractions.Fraction(3, 2))
    [frame] = reader_of(tmp_path / "wide.mp4")
    assert frame.pixels.shape == (64, 144, 3)  # 96 x 3/2


def test_damage_costs_what_is_damaged(tmp_path, capfd):
    write_video(str(tmp_path / "whole.avi"), "mjpeg", pixels="yuvj420p")
    content = (tmp_path / "whole.avi").read_bytes()
    begin = content.index(b"movi")
    chunks = [start for start in range(begin, len(content)) if content[start : start + 4] == b"00dc"]
    start, end = chunks[4] + 8, chunks[5]
    (tmp_path / "broken.avi").write_bytes(content[:start] + bytes(end - start) + content[end:])
    reader = reader_of(tmp_path / "broken.avi")
    assert numbers(reader) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert reader.flaws == ["1 frames are damaged or lost"]

    write_video(str(tmp_path / "whole.mkv"), "mjpeg", 40, pixels="yuvj420p")
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    reader = reader_of(tmp_path / "cut.mkv")
    assert len(list(reader)) in range(15, 21)
    [flaw] = reader.flaws[-1:]
    assert flaw.startswith("its last frame is at 1.")
    assert flaw.endswith(" of 4.0 s")
    assert capfd.readouterr() == ("", "")


def test_what_is_no_video_gets_one_sentence(clip, tmp_path, capfd):
    with av.open(str(tmp_path / "sound.m4a"), "w") as sound:
        add_silence(sound, sound.add_stream("aac", rate=48000))
    contents = {
        "empty.mp4": (b"", "empty.mp4 cannot be opened: the file is empty"),
        "text.mp4": (b"no video" * 40, "text.mp4 cannot be opened: it is no video, or its recording was not finished"),
        "cut.mp4": (clip.read_bytes()[:1000], "cut.mp4 cannot be opened: it is no video, or its recording was not"),
        "sound.m4a": ((tmp_path / "sound.m4a").read_bytes(), "sound.m4a has no video in it, only audio"),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=expected):
            reader_of(tmp_path / name)
    with (
        limited_to(0.001),
        pytest.raises(DataError, match="frames of 96 x 64 pixels, more than --max_image_megapixels"),
    ):
        reader_of(clip)
    assert capfd.readouterr() == ("", "")


def test_names_are_files_folders_globs_cameras_and_addresses(clip, tmp_path):
    (tmp_path / "b.MOV").touch()
    (tmp_path / "photo.jpg").touch()
    names = [
        f"{clip},{clip}",
        f"{tmp_path}",
        "0,/dev/video2",
        "rtsp://me:p@ss@10.0.0.7:554/live/1?x=1,2",
        "http://h/a.m3u8",
    ]
    sources = find_videos(names)
    assert [source.text for source in sources] == [
        str(clip),
        str(tmp_path / "b.MOV"),
        "camera 0",
        "camera 2",
        "rtsp://10.0.0.7:554/live/1?x=1,2",
        "http://h/a.m3u8",
    ]
    stems = [source.stem for source in sources]
    assert stems == ["clip", "b", "camera_0", "camera_2", "10_0_0_7_554_live_1", "h_a_m3u8"]
    assert sources[4].location == names[3]
    with pytest.raises(UsageError, match=r"--video .*clip.mp3: there is no such file or folder; did you mean clip.mp4"):
        find_videos([str(clip.with_suffix(".mp3"))])
    with pytest.raises(UsageError, match="--video is empty"):
        find_videos([])
    assert [is_video(name) for name in ("a.MP4", "rtsp://x", "a.gif", "0", "a.mp4.jpg")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_camera_that_is_not_there():
    with pytest.raises(DataError, match=r"camera 77 cannot be opened: .*77.*; cameras found: "):
        reader_of("77")


@pytest.mark.parametrize(
    ("platform", "location", "device_type"),
    [("linux", "/dev/video1", "v4l2"), ("darwin", "1:none", "avfoundation"), ("win32", "video=Second", "dshow")],
)
def test_cameras_by_platform(monkeypatch, platform, location, device_type):
    monkeypatch.setattr(video, "_cameras", {"dshow": ["First", "Second"]}.get)
    source = video._camera(1, platform)
    assert (source.location, source.format, source.stem) == (location, device_type, "camera_1")


# Streams


def test_a_stream_of_jpegs_has_the_times_of_arrival():
    with serving(sending(jpegs(range(5)))) as url:
        reader = reader_of(url, max_frames=5, timeout_seconds=5)
        frames = list(reader)
    assert reader.is_live
    assert numbers(frames) == [0, 1, 2, 3, 4]
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(set(seconds))
    assert seconds[-1] < 5.0


def test_a_stream_that_breaks_is_opened_again(caplog):
    whole, part = mpegts(10), mpegts(4)
    with serving(sending(part), None, sending(whole)) as url, caplog.at_level(logging.WARNING, "detzoo"):
        reader = reader_of(url + ".ts", max_frames=12, timeout_seconds=5)
        frames = list(reader)
    assert numbers(frames) == [*range(4), *range(8)]
    assert [frame.number for frame in frames] == list(range(1, 13))
    seconds = [frame.seconds for frame in frames]
    np.testing.assert_allclose(np.diff(seconds)[[0, 1, 2, *range(4, 11)]], 0.04, atol=1e-3)  # 25 per second
    assert 0.0 < seconds[4] - seconds[3] < 5.0, "the time of the break"
    assert "camera.ts: the stream ended; it is opened again (1 of 5)" in caplog.text
    assert "Server returned 404 Not Found; it is opened again (2 of 5)" in caplog.text
    assert "secret" not in caplog.text
    assert not reader.has_given_up


def test_a_stream_that_does_not_return(caplog):
    with serving(sending(jpegs(range(3))), None) as url, caplog.at_level(logging.WARNING, "detzoo"):
        reader = reader_of(url, timeout_seconds=5, retries=2)
        assert numbers(reader) == [0, 1, 2]
    assert (reader.has_given_up, reader.problem) == (True, "")
    assert caplog.text.count("opened again") == 2


def test_a_stream_that_stalls(capfd):
    with serving(stalling(mpegts(6)), stalling(b"")) as url:
        reader = reader_of(url + ".ts", timeout_seconds=0.3, retries=1)
        assert numbers(reader) == list(range(6)), "also the frames that were in the decoder"
    assert (reader.has_given_up, reader.problem) == (True, "nothing came for 0.3 s")
    with serving(stalling(b"")) as url:
        with pytest.raises(
            DataError, match=r"^http://127.0.0.1:.* cannot be opened: nothing came for 0.3 s$"
        ) as problem:
            reader_of(url, timeout_seconds=0.3)
        assert "secret" not in str(problem.value)
    assert capfd.readouterr().out == ""


def test_an_address_that_nobody_serves():
    with serving(None) as url, pytest.raises(DataError, match="Server returned 404 Not Found"):
        reader_of(url, timeout_seconds=5)
    with pytest.raises(DataError, match="cannot be opened: Connection refused"):
        reader_of(url, timeout_seconds=5)


def test_an_address_without_a_video():
    with pytest.raises(DataError, match=r"no-host.invalid/a cannot be opened: it cannot be reached, or sends no video"):
        reader_of("http://no-host.invalid/a", timeout_seconds=5)
    with serving(sending(b"<html>" * 99)) as url, pytest.raises(DataError, match=r"/camera.ts cannot be opened: "):
        reader_of(url + ".ts", timeout_seconds=5)


def test_a_file_on_a_server_ends(clip):
    def answer(send):
        send(clip.read_bytes())

    with serving(answer, length=clip.stat().st_size) as url:
        reader = reader_of(url + ".mp4", timeout_seconds=5)
        assert not reader.is_live
        assert numbers(reader) == list(range(10))


# Reading ahead


class Frames:
    """A reader of given frames."""

    def __init__(self, count, is_live=False, error=None):
        self.is_live, self.read, self.is_stopped = is_live, 0, threading.Event()
        self._count, self._error = count, error

    def __iter__(self):
        for number in range(self._count):
            if self.is_stopped.is_set():
                return
            self.read += 1
            yield Frame(number, float(number), np.zeros((2, 2, 3), np.uint8))
        if self._error:
            raise self._error

    def stop(self):
        self.is_stopped.set()


def taken(buffer, most):
    found = []
    while batch := buffer.take(most):
        assert len(batch) <= most
        found += [frame.number for frame in batch]
    return found


def test_frames_of_a_file_wait_for_the_detector():
    reader = Frames(20)
    with FrameBuffer(reader, 4) as buffer:
        time.sleep(0.05)
        assert reader.read <= 5, "four that wait, and one in the hand"
        assert taken(buffer, 3) == list(range(20))
    assert buffer.num_dropped == 0
    with FrameBuffer(endless := Frames(10**9), 4) as buffer:
        buffer.take(1)
    assert endless.is_stopped.is_set()


def test_old_frames_of_a_stream_are_dropped(monkeypatch):
    monkeypatch.setattr(frame_buffer, "LIVE_BUFFER_BYTES", 5 * 12)  # five frames of 2 x 2 x 3 bytes
    reader = Frames(50, is_live=True)
    with FrameBuffer(reader, 1) as buffer:
        while reader.read < 50:
            pass
        found = taken(buffer, 50)
    assert found == list(range(50 - len(found), 50))
    assert buffer.num_dropped == 50 - len(found) >= 44


def test_an_error_of_the_reader_comes_behind_its_frames():
    with FrameBuffer(Frames(3, error=DataError("lost")), 4) as buffer:
        assert sum(len(buffer.take(1)) for _ in range(3)) == 3
        with pytest.raises(DataError, match="lost"):
            buffer.take(1)


# Writing


def test_a_written_video_is_one_that_browsers_play(tmp_path):
    path, seconds = tmp_path / "out.mp4", [0.0, 0.1, 1.0, 1.5]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 200, 30)]
    writer = VideoWriter(path, 10.0)
    for colour, second in zip(colours, seconds):
        writer.write(Image.new("RGB", (97, 63), colour), second)
    writer.close()
    with av.open(str(path)) as read:
        stream = read.streams.video[0]
        assert (read.format.name.split(",")[1], stream.codec_context.name, stream.format.name) == (
            "mp4",
            "h264",
            "yuv420p",
        )
        frames = list(read.decode(stream))
        assert [(frame.width, frame.height) for frame in frames] == [(98, 64)] * 4
        np.testing.assert_allclose([frame.time for frame in frames], seconds, atol=1e-4)
        # BT.709 in limited range: y = 16 + 219 (0.2126 r + 0.7152 g + 0.0722 b) for r, g, b in 0..1.
        luma = [16 + 219 / 255 * np.dot(colour, [0.2126, 0.7152, 0.0722]) for colour in colours]
        written = [np.frombuffer(frame.planes[0], np.uint8)[20] for frame in frames]
        np.testing.assert_allclose(written, luma, atol=2)
        assert int(frames[0].colorspace) == 1
    for frame, colour in zip(reader_of(path), colours):
        np.testing.assert_allclose(frame.pixels[30, 50], colour, atol=4)


def test_a_video_whose_process_is_killed_is_playable(tmp_path):
    writer = VideoWriter(tmp_path / "out.mp4", 10.0)
    for number in range(40):
        writer.write(picture(number % 20), number / 10)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "out.mp4").read_bytes())
    seen = numbers(reader_of(tmp_path / "copy.mp4"))
    assert seen == [number % 20 for number in range(len(seen))]
    assert len(seen) >= 20, "two of four seconds"
    writer.close()
    assert len(list(reader_of(tmp_path / "out.mp4"))) == 40


def test_frames_of_another_size_and_times_that_do_not_grow(tmp_path):
    writer = VideoWriter(tmp_path / "out.mp4", 10.0)
    for size, second in [(SIZE, 0.0), ((48, 64), 0.0), ((192, 128), 0.5)]:
        writer.write(Image.new("RGB", size, (200, 200, 200)), second)
    writer.close()
    first, narrow, large = reader_of(tmp_path / "out.mp4")
    assert {frame.pixels.shape for frame in (first, narrow, large)} == {(64, 96, 3)}
    # 48 x 64 fits into 96 x 64 as it is, with black at both sides of 24 pixels.
    assert narrow.pixels[32, 12].max() < 20 < 180 < narrow.pixels[32, 48].min()
    assert large.pixels[2, 2].min() > 180
    assert first.seconds < narrow.seconds < large.seconds
