"""Recognizes what ``detzoo.load`` is given: a config, a run, a checkpoint, an export, a model file or an ensemble."""

from __future__ import annotations

import enum
import os
import pathlib
import re
from typing import Any, NamedTuple

from detzoo.config.load import LoadedPipeline, load_message
from detzoo.config.zoo import PREFIX
from detzoo.errors import UsageError
from detzoo.folders import CONFIG_FILE, EXPORT_RECORD, PROJECT_BEST, PROJECT_TRAINING, find_config

ACCEPTED = (
    "accepted: the folder of a project, the model_dir of a training, the name, path or message of a config, the prefix "
    "of a checkpoint, the folder of an export, a .tflite or .onnx file, an ensemble.json, or zoo://NAME"
)
_CHECKPOINT_FOLDERS = ("", "checkpoint")  # of a run, and of an export or an archive of the zoo
_INDEX = ".index"
_FILE_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_TENSORFLOW_1 = "model.ckpt.index"  # in an archive of the TensorFlow 1 zoo, next to its saved_model


class Kind(enum.Enum):
    """The kinds of sources."""

    CONFIG = "config"  # without weights
    CHECKPOINT = "checkpoint"  # a config with weights
    EXPORT = "export"
    TFLITE = "TFLite model"
    ONNX = "ONNX model"
    ENSEMBLE = "ensemble"


_MODEL_FILES = {".tflite": Kind.TFLITE, ".onnx": Kind.ONNX}


class Source(NamedTuple):
    """A recognized source."""

    kind: Kind
    path: str  # as the user named it
    config: str | LoadedPipeline = ""  # of a CONFIG or CHECKPOINT
    checkpoint: str = ""  # of a CHECKPOINT


def find_source(source: Any) -> Source:
    """Recognizes a source by its type, its name and the files in it, without reading them.

    Raises:
        UsageError: It is of another type, or a folder without a model.
    """
    if isinstance(source, LoadedPipeline):
        return Source(Kind.CONFIG, source.path, source)
    if hasattr(source, "DESCRIPTOR"):
        loaded = load_message(source)
        return Source(Kind.CONFIG, loaded.path, loaded)
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"the source is a {type(source).__name__}; {ACCEPTED}")
    text, path = os.fspath(source), pathlib.Path(source)
    if not text:
        raise UsageError(f"the source is an empty text; {ACCEPTED}")
    if text.startswith(PREFIX):
        from detzoo.checkpoints import zoo

        folder = zoo.fetch(text.removeprefix(PREFIX))
        return Source(Kind.CHECKPOINT, text, str(folder / CONFIG_FILE), zoo.local(text))
    if path.is_dir():
        return _in_folder(path)
    if path.suffix in _MODEL_FILES:
        return Source(_MODEL_FILES[path.suffix], text)
    if path.name == "saved_model.pb":
        return Source(Kind.EXPORT, text)
    if path.suffix == ".json" and path.is_file():
        return Source(Kind.ENSEMBLE, text)
    if path.suffix == ".pb" and path.is_file():  # a frozen graph of TensorFlow 1
        config = find_config(path.parent)
        if not config or (path.parent / EXPORT_RECORD).is_file():
            return Source(Kind.EXPORT, text)
        return Source(Kind.CHECKPOINT, text, config, text)
    prefix = _FILE_OF_CHECKPOINT.sub("", text)
    if pathlib.Path(prefix + _INDEX).is_file():
        return Source(Kind.CHECKPOINT, text, _config_near(path.parent), prefix)
    return Source(Kind.CONFIG, text, text)


def _in_folder(folder: pathlib.Path) -> Source:
    text = str(folder)
    if (folder / _TENSORFLOW_1).is_file():
        return Source(Kind.CHECKPOINT, text, _config_near(folder), text)
    if any((place / "saved_model.pb").is_file() for place in (folder, folder / "saved_model")):
        return Source(Kind.EXPORT, text)
    if any(_has_checkpoint(folder / place) for place in _CHECKPOINT_FOLDERS):
        return Source(Kind.CHECKPOINT, text, _config_near(folder), text)
    models = sorted(path for suffix in _MODEL_FILES for path in folder.glob(f"*{suffix}"))
    if len(models) == 1:
        return Source(_MODEL_FILES[models[0].suffix], str(models[0]))
    if not models and (folder / CONFIG_FILE).is_file():
        trained = [folder / place for place in (PROJECT_BEST, PROJECT_TRAINING) if _has_checkpoint(folder / place)]
        if trained:
            return Source(Kind.CHECKPOINT, text, str(folder / CONFIG_FILE), str(trained[0]))
        return Source(Kind.CONFIG, text, str(folder / CONFIG_FILE))
    inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "an empty folder"
    found = f"several models ({', '.join(m.name for m in models)})" if models else f"no model ({inside})"
    raise UsageError(f"the folder {folder} holds {found}; {ACCEPTED}")


def _has_checkpoint(folder: pathlib.Path) -> bool:
    return any(folder.glob(f"*{_INDEX}"))


def _config_near(folder: pathlib.Path) -> str:
    """Returns the path of a checkpoint's config; without one, raises UsageError."""
    if found := find_config(folder):
        return found
    raise UsageError(
        f"the checkpoint in {folder} has no {CONFIG_FILE} next to it: load its config, and give the checkpoint as "
        f"weights={str(folder)!r}"
    )
