"""A server of the detection zoo on localhost, and archives in the zoo's layout, whole and otherwise."""

from __future__ import annotations

import contextlib
import http.server
import io
import pathlib
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
ADDRESS = f"/tf2/20200711/{NAME}.tar.gz"
FILES = {  # content is never read as a checkpoint
    "checkpoint/checkpoint": b'model_checkpoint_path: "ckpt-0"\n',
    "checkpoint/ckpt-0.index": b"index",
    "checkpoint/ckpt-0.data-00000-of-00001": bytes(range(256)) * 40,
    "saved_model/saved_model.pb": b"graph",
    "pipeline.config": b"model { }\n",
}


def packed(members: Iterable[tarfile.TarInfo | tuple[str, bytes]], **options) -> bytes:
    """The bytes of a .tar.gz of files (name, content) and of members as they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", **options) as tar:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
            else:
                tar.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()


def archive(*more: tarfile.TarInfo | tuple[str, bytes], top: str = NAME) -> bytes:
    """The archive of ``FILES``, and of more members after them."""
    return packed([*((f"{top}/{name}", content) for name, content in FILES.items()), *more])


def archive_of_folder(folder: pathlib.Path, top: str = NAME) -> bytes:
    """The archive of a folder's files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, top)
    return stream.getvalue()


class ZooServer:
    """The next answers of the server, and the requests so far.

    Attributes:
        url: Value of DETZOO_ZOO_URL.
        content: Body of an archive; None for 404.
        address: Path of that archive; others give 404.
        requests: Paths that were asked for.
        break_off: Number of answers that end in the middle of the body.
        states_length: False for answers without Content-Length.
        before_answer: Called before each answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.content: bytes | None = archive()
        self.address = ADDRESS
        self.requests: list[str] = []
        self.break_off = 0
        self.states_length = True
        self.before_answer: Callable[[], object] = lambda: None


@contextlib.contextmanager
def serving() -> Iterator[ZooServer]:
    """Serves one archive."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            zoo.requests.append(self.path)
            zoo.before_answer()
            content = zoo.content
            if content is None or self.path != zoo.address:
                self.send_error(404)
                return
            self.send_response(200)
            if zoo.states_length:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if zoo.break_off:
                zoo.break_off -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    zoo = ZooServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield zoo
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
