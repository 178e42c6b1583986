"""Keeps the notes that TensorFlow 2.21 writes to stderr while it is imported off the terminal.

Its libraries log before they read TF_CPP_MIN_LOG_LEVEL. TensorFlow 2.20 writes nothing then.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_MODULE = "tensorflow"
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NOTE = re.compile(  # INFO records of absl, their second line, and the warning that precedes the first of them
    rb"I\d{4} .*|To enable the following instructions: .*|WARNING: All log messages before absl::InitializeLog.*"
)


def drop_import_notes() -> None:
    """Drops TensorFlow's notes from stderr when it is imported, unless TF_CPP_MIN_LOG_LEVEL asks for them."""
    if _MODULE not in sys.modules and os.environ.get(_LEVEL, "0") != "0" and _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow once, and filters stderr while it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_filtered(module: ModuleType) -> None:
                with contextlib.suppress(ValueError):
                    sys.meta_path.remove(self)
                with _filtered_stderr():
                    execute(module)

            loader: Any = spec.loader
            loader.exec_module = execute_filtered
        return spec


_FINDER = _Finder()


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Within, collects what this process writes to stderr; writes it at the end, without the notes."""
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _NOTE.match(line):
                    os.write(2, line)
