"""Folders that a user names for results, made and tried before the work starts, and files that are there as a whole.

So nothing computed is lost, and nobody reads half of it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator

from detzoo.errors import DiskFullError, UsageError

# As errno, and as the texts by which TensorFlow passes them on.
_FULL = {errno.ENOSPC: os.strerror(errno.ENOSPC), errno.EDQUOT: os.strerror(errno.EDQUOT)}
_FILE_IN_TEXT = re.compile(r"(?:^|}} )(/[^;\n]*); (?:" + "|".join(_FULL.values()) + ")")
_BYTES_PER_MB = 1e6
_LOCK_FILE, _HOLDER_FILE = ".training.lock", ".training.json"

logger = logging.getLogger(__name__)


def make_folder(path: str | pathlib.Path, flag: str) -> pathlib.Path:
    """Makes a folder, with those above it, where it does not exist.

    Args:
        path: the folder.
        flag: what the user gave it with, such as "--output_dir".

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise full_disk(problem, path) or UsageError(f"{flag} {path} cannot be made: {problem.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {path} cannot be written to")
    return folder


@contextlib.contextmanager
def reserved(folder: str | pathlib.Path, flag: str) -> Iterator[None]:
    """Holds a folder for this process; the lock ends with the process, however that ends.

    Args:
        folder: The folder, which exists.
        flag: Flag that named it.

    Raises:
        UsageError: Another process holds it; the message has its id and its host.
    """
    import filelock  # here: most commands lock nothing

    folder = pathlib.Path(folder)
    lock, holder = filelock.FileLock(folder / _LOCK_FILE, timeout=0), folder / _HOLDER_FILE
    try:
        lock.acquire()
    except filelock.Timeout:
        try:
            found = json.loads(holder.read_text(encoding="utf-8"))
            who = f"process {found['pid']} on {found['host']}, started {found['started']}"
        except (OSError, ValueError, LookupError, TypeError):
            who = "another process"
        raise UsageError(
            f"{flag} {folder} is in use by {who}: two trainings would overwrite each other's checkpoints. Wait for its "
            f"end, stop it, or use another {flag}"
        ) from None
    except (NotImplementedError, OSError) as problem:
        if full_disk(problem):
            raise
        logger.warning("%s cannot be locked (%s): start no second training in it", folder, problem)
        yield
        return
    try:
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        write_atomically(holder, json.dumps(facts) + "\n")
        yield
    finally:
        lock.release()


def write_atomically(file: str | pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never a part. Text is written as UTF-8."""
    with draft_of(file) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def draft_of(file: str | pathlib.Path, suffix: str = "") -> Iterator[pathlib.Path]:
    """Yields the path of a hidden draft in the same folder, which replaces ``file`` at the end of the block.

    An exception in the block removes the draft and leaves ``file`` as it was.

    Args:
        file: Path of the file to write.
        suffix: End of the draft's name. The default is the id of the process, so that processes do not collide.
    """
    file = pathlib.Path(file)
    draft = file.with_name(f".{file.name}.{suffix or os.getpid()}")
    try:
        yield draft
        draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def full_disk(
    problem: BaseException, path: str | pathlib.Path | None = None, needed_bytes: int | None = None
) -> DiskFullError | None:
    """Returns the error to show where a write failed because a disk or a quota is full, None for other problems.

    Recognizes Python's and TensorFlow's errors, also where another error was raised while they were handled.

    Args:
        problem: What was raised.
        path: File or folder that was written, where the problem does not name it.
        needed_bytes: Size of what was written, where known.
    """
    cause: BaseException | None = problem
    while cause is not None:
        number = getattr(cause, "errno", None)
        reason = _FULL.get(number) if number else next((text for text in _FULL.values() if text in str(cause)), None)
        if isinstance(cause, DiskFullError):
            return cause
        if reason is not None:
            break
        cause = cause.__cause__ or cause.__context__
    else:
        return None
    named = _FILE_IN_TEXT.search(str(cause))
    path = path or getattr(cause, "filename", None) or (named[1] if named else None)
    needed = f"; {_megabytes(needed_bytes)} were to be written" if needed_bytes else ""
    return DiskFullError(
        f"the disk is full ({reason}){_room(pathlib.Path(path)) if path else ''}{needed}. Free some space and run the "
        "same command again; what was saved before is kept"
    )


def _room(path: pathlib.Path) -> str:
    """The nearest existing folder of a path and its free space, "" where the system does not answer."""
    folder = next((each for each in (path, *path.parents) if each.is_dir()), None)
    with contextlib.suppress(OSError):
        return f": {folder} has {_megabytes(shutil.disk_usage(folder).free)} free" if folder else ""
    return ""


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / _BYTES_PER_MB:,.1f} MB ({num_bytes:,} bytes)"
