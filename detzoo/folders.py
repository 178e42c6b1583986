"""Result folders, checked before the work starts, and files that are written as a whole (floor 0).

So no computed result is lost, and no reader sees half of a file.
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
import stat
from collections.abc import Iterator
from typing import Any

from detzoo.errors import DiskFullError, UsageError

# Error numbers, and their texts in TensorFlow's messages.
_FULL = {errno.ENOSPC: os.strerror(errno.ENOSPC), errno.EDQUOT: os.strerror(errno.EDQUOT)}
_FILE_IN_TEXT = re.compile(r"(?:^|}} )(/[^;\n]*); (?:" + "|".join(_FULL.values()) + ")")
_BYTES_PER_MB = 1e6
# Files that one command writes and another reads.
CONFIG_FILE, LABEL_MAP_FILE, EXPORT_RECORD = "pipeline.config", "label_map.pbtxt", "export.json"
FROZEN_GRAPH_FILE = "frozen_inference_graph.pb"  # of exports for clients of TensorFlow 1
KEYPOINT_LABEL_MAP_FILE = "keypoint_label_map.pbtxt"
PROJECT_TRAINING, PROJECT_BEST = "training", "training/best"  # folders of a project that `detzoo train` writes
FINISHED_FILE, METRICS_FILE, PROPOSALS_FILE = "finished", "metrics.json", "proposals.npz"
PAGE_FILE = "report.html"  # of an evaluation, a sweep, or the inspection of a data set
_LOCK_FILE, _HOLDER_FILE = ".training.lock", ".training.json"

logger = logging.getLogger(__name__)


def make_folder(path: str | pathlib.Path, flag: str) -> pathlib.Path:
    """Creates a folder and its parents, if they do not exist.

    Args:
        path: Path of the folder.
        flag: Flag that named it, such as "--output_dir".

    Raises:
        UsageError: The folder cannot be created or written to.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise full_disk(problem, path) or UsageError(f"{flag} {path} cannot be made: {problem.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {path} cannot be written to")
    return folder


class IrregularFileError(OSError):
    """A path that is not that of a regular file."""


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Checks that a file can be read to its end: a device or a pipe would block, or never end.

    Returns:
        The file's status.

    Raises:
        IrregularFileError: The path is that of a folder, a device or a pipe.
        OSError: The file is missing.
        ValueError: The path holds a NUL.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IrregularFileError(None, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise IrregularFileError(None, "not a regular file (a device, pipe or socket)")
    return status


@contextlib.contextmanager
def reserved(folder: str | pathlib.Path, flag: str) -> Iterator[None]:
    """Locks a folder for this process. The lock ends with the process, even if it is killed.

    Args:
        folder: An existing folder.
        flag: Flag that named it.

    Raises:
        UsageError: Another process holds the lock; the message has its id and its host.
    """
    import filelock  # imported here because most commands lock nothing

    folder = pathlib.Path(folder)
    lock, holder = filelock.FileLock(folder / _LOCK_FILE, timeout=0), folder / _HOLDER_FILE
    try:
        lock.acquire()
    except filelock.Timeout:
        found, who = read_record(holder), "another process"
        if found.keys() >= {"pid", "host", "started"}:
            who = f"process {found['pid']} on {found['host']}, started {found['started']}"
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


def find_config(place: str | pathlib.Path) -> str:
    """Returns the path of the pipeline.config of a checkpoint or an exported model, "" if there is none.

    It lies in the folder ``place`` or one folder above it.
    """
    files = (folder / CONFIG_FILE for folder in (pathlib.Path(place), pathlib.Path(place).resolve().parent))
    return next((str(file) for file in files if file.is_file()), "")


def read_record(file: str | pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file that a command wrote; {} if there is none, or if it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def write_atomically(file: str | pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that a crash leaves the old or the new content, never a part. Text is written as UTF-8."""
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
    """Returns the error to report if a write failed because of a full disk or quota; None for other problems.

    Recognizes Python's and TensorFlow's errors, also as the cause or context of another error.

    Args:
        problem: The exception.
        path: Written file or folder, if the exception does not name it.
        needed_bytes: Size of the written data, if known.
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
    """Describes the nearest existing folder of a path and its free space; "" if the system does not report it."""
    folder = next((each for each in (path, *path.parents) if each.is_dir()), None)
    with contextlib.suppress(OSError):
        return f": {folder} has {_megabytes(shutil.disk_usage(folder).free)} free" if folder else ""
    return ""


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / _BYTES_PER_MB:,.1f} MB ({num_bytes:,} bytes)"
