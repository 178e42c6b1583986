"""Rewrites messages of tasks for callers from Python: arguments in place of flags."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from detzoo.errors import DetzooError

# Flag -> argument, where they differ.
_ARGUMENTS = {
    "pipeline_config_path": "config",
    "checkpoint_dir": "weights",
    "trained_checkpoint_dir": "weights",
    "saved_model": "source",
    "max_image_megapixels": "DETZOO_MAX_IMAGE_MEGAPIXELS",  # an environment variable
}
# A flag outside of backticks, which hold commands.
_FLAG = re.compile(r"(`[^`]*`)|--set '?([^\s',;]+)'?|--([a-z][a-z_]*)(?:=(?=\S))?")


@contextlib.contextmanager
def named_arguments() -> Iterator[None]:
    """Lets errors within name arguments instead of flags; their types stay."""
    try:
        yield
    except DetzooError as problem:
        text = for_python(str(problem))
        if text == str(problem):
            raise
        raise type(problem)(text).with_traceback(problem.__traceback__) from problem.__cause__


def for_python(text: str) -> str:
    """Returns a message with ``name`` or ``name=`` in place of ``--name`` and ``--name=``."""

    def replacement(match: re.Match[str]) -> str:
        command, override, flag = match.groups()
        if override:
            return f"overrides=['{override}']"
        return command or _ARGUMENTS.get(flag, flag) + ("=" if match[0].endswith("=") else "")

    return _FLAG.sub(replacement, text)
