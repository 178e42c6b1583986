"""Start of a process: quiet libraries, short log lines, and no imports that detzoo does not need."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from detzoo.errors import UsageError
from detzoo.progress import set_quiet
from detzoo.tasks.native_stderr import drop_import_notes

EXIT_TERMINATED = 143  # 128 + SIGTERM, as a shell reports it


def start_without_unused_packages() -> None:
    """Hides packages that Keras imports if it finds them and detzoo does not need: 1.5 s of a start of 4.5 s.

    Only for processes of detzoo itself; a program that calls detzoo keeps its packages.
    """
    for name in ("sklearn", "pandas"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # importing it fails as if it were not installed


def quiet_tensorflow() -> None:
    """Silences routine output of TensorFlow and Pillow; environment variables that the user has set are kept."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MAX_VLOG_LEVEL", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    drop_import_notes()
    # Pillow warns of unusual tags in files that it reads well; detzoo reports unreadable files with their names.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def configure_logging(debug: bool = False, quiet: bool = False) -> None:
    """Writes Python logs to stderr as ``12:03:59 message``, with the level before warnings and errors.

    Args:
        debug: Also write messages for developers.
        quiet: Write warnings and errors only, and hide progress.
    """
    set_quiet(quiet)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ShortFormatter())
    package = logging.getLogger("detzoo")
    package.handlers[:] = [handler]
    package.setLevel(logging.WARNING if quiet else logging.DEBUG if debug else logging.INFO)
    package.propagate = False


def start_in_python() -> None:
    """Quiets TensorFlow, and shows the messages of detzoo if the program has not configured its logs until now.

    Raises:
        UsageError: Keras is imported already, with another backend than TensorFlow.
    """
    quiet_tensorflow()
    backend = sys.modules["keras"].backend.backend() if "keras" in sys.modules else os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UsageError(
            f"Keras runs on {backend}, and detzoo needs TensorFlow: set the environment variable "
            "KERAS_BACKEND=tensorflow, or import detzoo and call detzoo.load before keras is imported"
        )
    package = logging.getLogger("detzoo")
    if not package.handlers and not logging.getLogger().handlers:
        handler = _CurrentStderr()
        handler.setFormatter(_ShortFormatter())
        package.addHandler(handler)
        # The root logger gets a handler while detzoo works: absl, which Keras logs with, calls logging.basicConfig.
        package.propagate = False
        if package.level == logging.NOTSET:
            package.setLevel(logging.INFO)


@contextlib.contextmanager
def terminated_as(exception: BaseException) -> Iterator[None]:
    """Raises an exception at SIGTERM inside the block, so that half-written files are removed; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: Any) -> None:
        raise exception

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _CurrentStderr(logging.StreamHandler[TextIO]):
    """Handler of the stderr of the moment, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _ShortFormatter(logging.Formatter):
    """Time and message; the level only for other levels than INFO."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text
