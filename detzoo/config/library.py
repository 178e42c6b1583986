"""The files that come with detzoo, and configs by name: ``ssd_mobilenet_v2_300`` is a config of model_configs/.

An installed package has the folders model_configs/, docs/ and protos/ inside it; a checkout has them next to it.
"""

from __future__ import annotations

import os
import pathlib
import re

from detzoo.config.names import nearest
from detzoo.config.paths import near_files
from detzoo.errors import UsageError
from detzoo.folders import CONFIG_FILE

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_WORD = re.compile(r"\w[\w.-]{,99}")  # A name; a path with a folder, a drive or a scheme is none.


def shipped(name: str) -> pathlib.Path:
    """Returns the path of a file or folder that comes with detzoo, such as "docs/sweep.md"."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name


def config_folder() -> pathlib.Path:
    """Returns the folder of the configs that come with detzoo."""
    return shipped("model_configs")


def sweep_folder() -> pathlib.Path:
    """Returns the folder of the sweep files that come with detzoo."""
    return config_folder() / "sweeps"


def config_names() -> list[str]:
    """Returns the sorted names of the configs that come with detzoo, without ``.config``."""
    return _names(config_folder(), ".config")


def sweep_names() -> list[str]:
    """Returns the sorted names of the sweep files that come with detzoo, without ``.sweep``."""
    return _names(sweep_folder(), ".sweep")


def find_config(text: str | os.PathLike[str], folder: str | os.PathLike[str] = "") -> pathlib.Path:
    """Returns the file of a pipeline config.

    Args:
        text: Path of a file, or of a folder with a pipeline.config, or name of a config that comes with detzoo, with or
            without ``.config``. An existing path takes precedence over a name.
        folder: Folder that a relative path starts from, "" for the current folder.

    Raises:
        UsageError: The text is empty, or a name of neither a file nor a config; the message has the nearest names. A
            missing file in a named folder is no error here: reading it reports the path.
    """
    path = pathlib.Path(folder) / text
    if os.path.isfile(path / CONFIG_FILE):
        return path / CONFIG_FILE
    return _find(text, path, config_folder(), ".config", "pipeline config", "`detzoo models` lists the configs")


def find_sweep(text: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the sweep file of a path, or of the name of one that comes with detzoo. See ``find_config``."""
    known = ", ".join(sweep_names())
    return _find(text, pathlib.Path(text), sweep_folder(), ".sweep", "sweep file", f"those of detzoo are {known}")


def _names(folder: pathlib.Path, suffix: str) -> list[str]:
    return sorted(file.stem for file in folder.glob(f"*{suffix}"))


def _find(
    text: str | os.PathLike[str], path: pathlib.Path, folder: pathlib.Path, suffix: str, what: str, others: str
) -> pathlib.Path:
    if not str(text):
        raise UsageError(f"the path of the {what} is empty")
    name = str(text).removesuffix(suffix)
    if not _WORD.fullmatch(name) or (os.path.exists(path) and not os.path.isdir(path)):
        return path
    known = _names(folder, suffix)
    if name in known:
        return folder / f"{name}{suffix}"
    if os.path.isdir(path):
        return path
    close = [*near_files(path), *nearest(name, known)]
    hint = f"did you mean {' or '.join(close[:3])}?" if close else others
    raise UsageError(f"there is no {what} at {path}, and detzoo has none of this name; {hint}")
