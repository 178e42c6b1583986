"""Weights by name: archives of the TensorFlow 1 and 2 detection zoos, downloaded into a cache and unpacked.

``zoo://NAME`` is accepted where a checkpoint or an exported model is opened. The cache has for each archive

    NAME/         the unpacked archive: checkpoint/ (TensorFlow 1: model.ckpt.*, frozen_inference_graph.pb),
                  saved_model/, pipeline.config; and COCO's label_map.pbtxt
    NAME.json     its address and the SHA-256 of the archive and of each file, recorded at the first use
    NAME.tar.gz   only if it was put there by hand; it is used instead of a download
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.client
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

from detzoo.config.zoo import (
    ARCHIVES,
    COCO,
    COCO_CLASSES,
    PREFIX,
    archive_of,
    is_tensorflow1,
    name_in,
    names,
    problem_of,
)
from detzoo.errors import CheckpointError, UsageError
from detzoo.folders import LABEL_MAP_FILE, full_disk, make_folder, write_atomically
from detzoo.progress import track

__all__ = ["PREFIX", "address_of", "archive_of", "cache_folder", "fetch", "local", "names", "size_of"]

CACHE_VARIABLE, SERVER_VARIABLE = "DETZOO_CACHE", "DETZOO_ZOO_URL"
CHECKPOINT = "checkpoint"  # folder in an archive
_SERVER = "http://download.tensorflow.org/models/object_detection"
_TIMEOUT_SECONDS = 20.0  # without an answer, or without new data
_ATTEMPTS = 3  # a download that breaks off starts again
# The largest archives hold about 500 MB in a dozen files. Trained weights hardly compress.
_MAX_BYTES, _MAX_FILES, _MAX_RATIO = 4 * 2**30, 1000, 20
_RATIO_FREE_BYTES = 64 * 2**20  # small archives may compress better
_BLOCK, _MB = 2**20, 10**6
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
_BROKEN_OFF = (ConnectionError, http.client.HTTPException)

logger = logging.getLogger(__name__)


def local(text: str | os.PathLike[str], part: str = CHECKPOINT) -> str:
    """Returns the local path of ``zoo://NAME``, downloaded if needed. Other paths are returned unchanged.

    Args:
        text: A path.
        part: Folder in the archive; "" for the folder of the whole archive, in which an exported model is found. An
            archive of TensorFlow 1 has no CHECKPOINT, which is the archive's folder then.

    Raises:
        UsageError, CheckpointError: See ``fetch``.
    """
    name = name_in(str(text))
    if name is None:
        return str(text)
    folder = fetch(name)
    return str(folder / part if (folder / part).is_dir() else folder)  # TensorFlow 1: model.ckpt in the folder itself


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of an unpacked archive: checkpoint/, saved_model/, pipeline.config, label_map.pbtxt.

    The archive is downloaded if it is not in the cache. One process downloads it, others wait for it. A download that
    was broken off is never used.

    Args:
        name: Name of an archive, see ``names``.

    Raises:
        UsageError: The name is unknown, or the cache cannot be written to.
        CheckpointError: The archive cannot be downloaded, is damaged or unsafe, or differs from the recorded one.
        DiskFullError: The disk is full.
    """
    if problem := problem_of(name):
        raise UsageError(problem)
    folder = cache_folder() / name
    if not folder.is_dir():
        make_folder(folder.parent, f"the cache ({CACHE_VARIABLE})")
        with _locked(folder):
            if not folder.is_dir():
                _install(folder)
    _check_unchanged(folder)
    return folder


def cache_folder() -> pathlib.Path:
    """Returns the folder of the archives: ``DETZOO_CACHE``, or zoo/ in the user's cache folder of the platform."""
    if given := os.environ.get(CACHE_VARIABLE):
        return pathlib.Path(given).expanduser().absolute()
    home, given = pathlib.Path.home(), os.environ.get("XDG_CACHE_HOME", "")
    if sys.platform == "win32":
        base = pathlib.Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local")
    elif sys.platform == "darwin":
        base = home / "Library/Caches"
    else:
        base = pathlib.Path(given) if os.path.isabs(given) else home / ".cache"  # relative ones are to be ignored
    return base / "detzoo" / "zoo"


def address_of(name: str) -> str:
    """Returns the address of an archive, on the server that ``DETZOO_ZOO_URL`` names if it is set."""
    server = os.environ.get(SERVER_VARIABLE) or _SERVER
    # Archives of TensorFlow 1 are in no folder.
    release = "" if is_tensorflow1(name) else f"tf2/{ARCHIVES[name].released}/"
    return f"{server.rstrip('/')}/{release}{name}.tar.gz"


def size_of(name: str) -> int:
    """Returns the bytes that an unpacked archive takes in the cache, 0 if it is not there."""
    return sum(file.stat().st_size for file in (cache_folder() / name).rglob("*") if file.is_file())


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks an archive of the cache for this process, and waits for another process that holds the lock."""
    import filelock  # imported here because most commands download nothing

    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logger.warning("waiting for another process, which downloads %s into %s", folder.name, folder.parent)
        lock.acquire()
    except NotImplementedError:  # of the file system
        logger.warning("%s cannot be locked: download %s in one process only", folder.parent, folder.name)
    try:
        yield
    finally:
        lock.release()


def _install(folder: pathlib.Path) -> None:
    """Unpacks an archive, which is downloaded unless it was put into the cache. Nothing is kept if that fails."""
    from detzoo.config.label_map import LabelMap

    given, scratch = folder.with_name(f"{folder.name}.tar.gz"), folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir()
        archive = given if given.is_file() else _download(folder, scratch)
        found, recorded = _sha256(archive), _recorded(folder).get("sha256", "")
        if recorded not in ("", found):
            raise CheckpointError(
                f"{_origin(folder, archive)} is not the archive of the first download: its SHA-256 is {found}, not "
                f"{recorded}; if the new one is right, delete {_record(folder)}"
            )
        logger.info("unpacking %s into %s", folder.name, folder.parent)
        unpacked = _unpack(archive, scratch / "unpacked", _origin(folder, archive))
        if ARCHIVES[folder.name].trained_on == COCO:
            LabelMap(COCO_CLASSES).save(unpacked / LABEL_MAP_FILE)
        _write_record(folder, unpacked, found)
        unpacked.rename(folder)
    except OSError as problem:
        raise full_disk(problem, folder.parent) or CheckpointError(
            f"{folder.name} cannot be unpacked into {folder.parent}: {problem}"
        ) from problem
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _origin(folder: pathlib.Path, archive: pathlib.Path) -> str:
    """Returns the address of a downloaded archive, or the path of one that was put into the cache."""
    return str(archive) if archive.parent == folder.parent else address_of(folder.name)


def _download(folder: pathlib.Path, scratch: pathlib.Path, attempts: int = _ATTEMPTS) -> pathlib.Path:
    """Downloads an archive into a new folder; starts again if the connection breaks off."""
    file, address = scratch / f"{folder.name}.tar.gz", address_of(folder.name)
    try:
        _retrieve(address, file, folder.name)
        return file
    except (OSError, ValueError, http.client.HTTPException) as problem:
        if full := full_disk(problem, scratch):
            raise full from problem
        is_answer = isinstance(problem, urllib.error.HTTPError)
        reason = str(problem if is_answer else getattr(problem, "reason", problem)) or type(problem).__name__
        if attempts == 1 or not isinstance(problem, _BROKEN_OFF):
            raise CheckpointError(
                f"{folder.name} cannot be downloaded ({reason}): fetch {address} with another program or on another "
                f"machine and put the file into {folder.parent}; it is used without a connection"
            ) from problem
        logger.warning("the download broke off (%s) and starts again", reason)
    return _download(folder, scratch, attempts - 1)


def _retrieve(address: str, file: pathlib.Path, label: str) -> None:
    """Does what ``urllib.request.urlretrieve`` does, with a timeout and a progress."""
    sys.stderr.write(f"downloading {address}\n")  # stdout is for results
    with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer, file.open("wb") as target:
        size = int(answer.headers.get("Content-Length", 0))
        blocks = iter(lambda: answer.read(_MB), b"")
        for block in track(blocks, math.ceil(size / _MB) or None, label, "MB"):
            target.write(block)
        if target.tell() < size:
            raise ConnectionError(f"retrieval incomplete: got only {target.tell()} out of {size} bytes")


class _Bounded:
    """A compressed file that refuses to expand beyond a limit, in its members and between them."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise CheckpointError("it expands to more bytes than trained weights do")
        return data


def _unpack(archive: pathlib.Path, target: pathlib.Path, origin: str) -> pathlib.Path:
    """Unpacks the one folder in an archive, which holds nothing but files and folders.

    Returns:
        The folder.

    Raises:
        CheckpointError: The archive is damaged or unsafe, or not one of the zoo.
    """
    limit = min(_MAX_BYTES, _RATIO_FREE_BYTES + _MAX_RATIO * archive.stat().st_size)
    target.mkdir()
    try:
        with gzip.open(archive) as file:
            stream = _Bounded(file, limit)
            with tarfile.open(fileobj=stream, mode="r|") as members:  # type: ignore[call-overload]
                for count, member in enumerate(members, start=1):
                    _unpack_member(members, member, count, target)
            while stream.read(_BLOCK):  # to the checksum at its end
                pass
        places = [f"*/{CHECKPOINT}", "*"]  # of TensorFlow 2 and 1
        found = [file for place in places for end in ("index", "data-*") for file in target.glob(f"{place}/*.{end}")]
        if len(found) < 2 or len(list(target.iterdir())) != 1:
            raise CheckpointError(f"it is not one folder with a {CHECKPOINT}/ in it, as the archives of the zoo are")
    except _DAMAGED as problem:
        again = "download it again" if origin == str(archive) else "run the same command again"
        raise CheckpointError(f"{origin} is damaged or incomplete ({problem}); {again}") from problem
    except CheckpointError as problem:
        raise CheckpointError(f"{origin} is refused: {problem}") from None
    return next(target.iterdir())


def _unpack_member(members: tarfile.TarFile, member: tarfile.TarInfo, count: int, target: pathlib.Path) -> None:
    """Writes one file or folder of an archive. Links, devices, and paths outside of ``target`` are refused."""
    parts = pathlib.PurePosixPath(member.name).parts
    shown = ascii(member.name[:100])
    if count > _MAX_FILES:
        raise CheckpointError(f"it has more than {_MAX_FILES} files")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise CheckpointError(f"{shown} is a link, a device or a sparse file; accepted: files and folders")
    if member.name.startswith("/") or ".." in parts or re.search(r"[\\:]", member.name):
        raise CheckpointError(f"the path {shown} leads out of the archive")
    path = target.joinpath(*parts)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    content = members.extractfile(member)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _BLOCK)  # type: ignore[arg-type]  # None for links only


def _record(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.json")


def _recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the record of an archive, {} before its first use."""
    try:
        found = json.loads(_record(folder).read_text(encoding="utf-8"))
        return {"sha256": str(found["sha256"]), "files": dict(found["files"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise CheckpointError(
            f"{_record(folder)} cannot be read ({problem}); delete it, to record the files again"
        ) from None


def _write_record(folder: pathlib.Path, unpacked: pathlib.Path, digest: str) -> None:
    files = {
        file.relative_to(unpacked).as_posix(): _sha256(file) for file in sorted(unpacked.rglob("*")) if file.is_file()
    }
    record = {"address": address_of(folder.name), "sha256": digest, "files": files}
    write_atomically(_record(folder), json.dumps(record, indent=2) + "\n")


def _check_unchanged(folder: pathlib.Path) -> None:
    """Compares the files of an unpacked archive with the recorded ones. Records a folder that was put there by hand."""
    recorded = _recorded(folder)
    if not recorded:
        with contextlib.suppress(OSError):  # a cache that cannot be written to is used as it is
            _write_record(folder, folder, "")
    for name, digest in recorded.get("files", {}).items():
        file = folder / name
        if not file.is_file() or _sha256(file) != digest:
            state = "has changed since it was unpacked" if file.is_file() else "is missing"
            raise CheckpointError(f"{file} {state}; delete the folder {folder}, to unpack it again")


def _sha256(file: pathlib.Path) -> str:
    found = file.stat()
    return _sha256_of(file, found.st_size, found.st_mtime_ns)


@functools.cache
def _sha256_of(file: pathlib.Path, size: int, mtime_ns: int) -> str:
    """Returns the digest of a file in hexadecimal digits, computed once per state of the file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
