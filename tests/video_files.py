"""Videos and streams that the tests make: frames whose number can be read from their pixels, files, and a server."""

from __future__ import annotations

import contextlib
import fractions
import http.server
import io
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="needs the extra detzoo[video]")

SIZE = (96, 64)  # width, height
BOUNDARY = "frame"
Answer = Callable[[Callable[[bytes], object]], object]
# Offset of the matrix in a track header of version 0 (ISO 14496-12, 8.3.2), after the type of the box: version and
# flags 4, two times 8, track 4, reserved 4, duration 4, reserved 8, layer, group, volume and reserved 8.
MATRIX_OFFSET = 4 + 4 + 8 + 4 + 4 + 4 + 8 + 8


def picture(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Returns a gray frame: 40 plus 8 per frame, with a red corner at the top left and a blue one at the top right."""
    image = Image.new("RGB", size, (40 + 8 * number,) * 3)
    image.paste((255, 0, 0), (0, 0, 16, 16))
    image.paste((0, 0, 255), (size[0] - 16, 0, size[0], 16))
    return image


def number_of(pixels: np.ndarray) -> int:
    """Returns the number of the frame that ``picture`` made."""
    centre = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    return round((float(centre.mean()) - 40) / 8)


def write_video(
    file,
    codec: str = "h264",
    count: int = 10,
    *,
    rate: int = 10,
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    seconds: Sequence[float] = (),
    has_sound: bool = False,
    container: str | None = None,
    ratio: fractions.Fraction | None = None,
    **options: str,
) -> None:
    """Writes frames 0, 1, ... to a path or a file object."""
    with av.open(file, "w", format=container) as video:
        stream = video.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if ratio:
            stream.sample_aspect_ratio = ratio
        sound = video.add_stream("aac", rate=48000) if has_sound else None
        if seconds:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_image(picture(number, size))
            if seconds:
                frame.pts, frame.time_base = round(1000 * seconds[number]), fractions.Fraction(1, 1000)
            video.mux(stream.encode(frame))
        if sound is not None:
            add_silence(video, sound)
        video.mux(stream.encode(None))


def add_silence(file, sound) -> None:
    """Writes one second of silence to an audio stream of a file."""
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
    silence.sample_rate = 48000
    file.mux(sound.encode(silence))
    file.mux(sound.encode(None))


def turned(content: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Returns an MP4 file with the display matrix (a, b), (c, d) of its first track."""
    start = content.index(b"tkhd") + MATRIX_OFFSET
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return content[:start] + matrix + content[start + len(matrix) :]


def mpegts(count: int = 10) -> bytes:
    """Returns a transport stream of ``count`` frames."""
    stream = io.BytesIO()
    write_video(stream, "mpeg2video", count, rate=25, container="mpegts", g="1")
    return stream.getvalue()


def jpegs(numbers: Sequence[int]) -> bytes:
    """Returns parts of a multipart stream of JPEG images, as cameras send them."""
    parts = []
    for number in numbers:
        buffer = io.BytesIO()
        picture(number).save(buffer, "JPEG", quality=95)
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {buffer.tell()}\r\n\r\n"
        parts.append(head.encode() + buffer.getvalue() + b"\r\n")
    return b"".join(parts)


@contextlib.contextmanager
def serving(*answers: Answer | None, length: int = 0) -> Iterator[str]:
    """Serves streams on localhost: the n-th request gets the n-th answer, further ones get the last.

    Args:
        answers: Functions that send bytes by their argument; the connection ends with them. None for status 404.
        length: Content-Length; 0 for none.
    """
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer = answers[min(len(requests), len(answers)) - 1]
            if answer is None:
                self.send_error(404)
                return
            kind = "video/mp2t" if self.path.endswith(".ts") else f"multipart/x-mixed-replace; boundary={BOUNDARY}"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if length:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader has enough
                answer(self.wfile.write)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stalling(content: bytes, seconds: float = 3.0) -> Answer:
    """Returns an answer that sends some bytes and then nothing, with the connection open."""

    def answer(send):
        send(content)
        time.sleep(seconds)

    return answer


def sending(content: bytes) -> Answer:
    """Returns an answer that sends some bytes and ends."""
    return lambda send: send(content)
