"""Paths on file systems that TensorFlow reads by the scheme of a URL, such as gs://bucket/folder.

A ``RemotePath`` has the methods of ``pathlib.Path`` that importers and writers use.
"""

from __future__ import annotations

import atexit
import functools
import os
import pathlib
import re
import shutil
import tempfile
import types
from collections.abc import Iterator
from typing import Any

from detzoo.errors import UsageError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*):/(?=[^/])", re.IGNORECASE)


class RemotePath(pathlib.PurePosixPath):
    """A path that begins with a scheme."""

    def __str__(self) -> str:
        return _SCHEME.sub(r"\1://", super().__str__())

    def is_dir(self) -> bool:
        """Returns whether the path is that of a folder."""
        return _gfile().isdir(str(self))

    def is_file(self) -> bool:
        """Returns whether the path is that of a file."""
        return _gfile().exists(str(self)) and not self.is_dir()

    def read_bytes(self) -> bytes:
        """Returns the content; raises OSError if there is none."""
        try:
            with _gfile().GFile(str(self), "rb") as file:
                return file.read()
        except _errors() as problem:
            raise OSError(None, str(problem)) from None

    def write_bytes(self, content: bytes) -> None:
        """Writes the content; raises OSError."""
        try:
            _gfile().makedirs(str(self.parent))
            with _gfile().GFile(str(self), "wb") as file:
                file.write(content)
        except _errors() as problem:
            raise OSError(None, str(problem)) from None

    def files_below(self) -> Iterator[RemotePath]:
        """Yields all files in this folder and its subfolders."""
        for folder, _, names in _gfile().walk(str(self)):
            yield from (RemotePath(folder, name) for name in names)

    def matches(self) -> list[RemotePath]:
        """Returns the files that this path names as a pattern."""
        return [RemotePath(match) for match in _gfile().glob(str(self))]

    def stat(self) -> Any:
        """Returns an object with ``st_size`` and ``st_mtime_ns``; raises OSError."""
        try:
            found = _gfile().stat(str(self))
        except _errors() as problem:
            raise OSError(None, str(problem)) from None
        return types.SimpleNamespace(st_size=found.length, st_mtime_ns=found.mtime_nsec)


def path_of(text: str | os.PathLike[str]) -> Any:
    """Returns the ``pathlib.Path`` or, for text with a scheme, the ``RemotePath``."""
    return RemotePath(text) if "://" in os.fspath(text) else pathlib.Path(text)


def local_file(text: str | os.PathLike[str], flag: str) -> pathlib.Path:
    """Returns the path of a file that a flag names. A remote file is copied for as long as this process runs.

    Raises:
        UsageError: The remote file cannot be copied.
    """
    path = path_of(text)
    if not isinstance(path, RemotePath):
        return path
    copy = pathlib.Path(tempfile.mkdtemp(dir=_copies()), path.name)
    try:
        _gfile().copy(str(path), str(copy))
    except _errors() as problem:
        raise UsageError(f"{flag} {path} cannot be read: {str(problem) or type(problem).__name__}") from None
    return copy


@functools.cache
def _copies() -> str:
    """Returns a folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="detzoo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _gfile() -> Any:
    import tensorflow as tf  # takes seconds, and few paths are remote

    return tf.io.gfile


def _errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    return (tf.errors.OpError,)
