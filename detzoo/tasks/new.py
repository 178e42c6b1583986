"""From a folder of labels to a project: records, label map and a pipeline.config that trains without an edit.

from detzoo.tasks.new import new_project

project = new_project("raccoons", "photos_with_labels")
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from detzoo.config import stages
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.comments import commented_text
from detzoo.config.library import config_names
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.problems import Severity, format_problems
from detzoo.config.project import (
    RECORDS_FOLDER,
    WEIGHTS,
    DataFacts,
    add_recomputed_statistics,
    fitted,
)
from detzoo.config.zoo import PREFIX, archive_of
from detzoo.datasets.import_yolo import has_masks
from detzoo.datasets.recognize import Recognized, recognize, remarks, write_records
from detzoo.datasets.split_names import ALL, TRAIN, VAL
from detzoo.datasets.splits import draw
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import CONFIG_FILE, LABEL_MAP_FILE, PROJECT_TRAINING, full_disk

if TYPE_CHECKING:
    from detzoo.datasets.conversion import ConversionResult

DETECTOR, CLASSIFIER = "custom_ssd_mobilenet_v1_fpn_160", "shapes_spp_classifier_zf5"  # without --model
CLASS_FOLDERS = "classes"  # format of images without boxes
_HEADING = """\
# Project {project}, written by `detzoo new`. Every field can be changed here, or for one command with --set PATH=VALUE.
#
#   detzoo config check {quoted}
#   detzoo train {quoted}      # {training}/; started again, it resumes
#   detzoo evaluate {quoted}
#   detzoo export {quoted}
#
# docs/own_data.md explains the choices.

"""


class NewProject(NamedTuple):
    """A project that ``new_project`` wrote."""

    folder: pathlib.Path  # folder of the project
    recognized: Recognized  # labels that were found, and their data issues
    results: dict[str, ConversionResult]  # result of the conversion by split
    model: str  # name of the config that was fitted
    weights: str  # initial weights, one of ``WEIGHTS``
    training: Any  # ``pb.TrainConfig`` of the project
    warnings: list[str]  # sentences about the data and the config


def new_project(
    project: str | pathlib.Path,
    data: str | pathlib.Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    val: float = 0.2,
    data_format: str | None = None,
    seed: int = 0,
) -> NewProject:
    """Makes a project from a folder of labels, or nothing if that fails.

    Args:
        project: Folder to make. It must not exist, or be empty.
        data: Folder with images and labels.
        model: Name or path of a config; None for a small one that learns from few images and random weights.
        weights: "zoo" for weights trained on COCO, "imagenet" for the backbone's, "none" for random ones. None for the
            best of these that ``model`` has, and for random ones without ``model``.
        val: Share of the images that is held out if the data has no split for validation, above 0 and below 1.
        data_format: Format of the labels; None to recognize it.
        seed: Seed of the split.

    Raises:
        UsageError: An argument is wrong, the project exists, or the folder has labels in several formats.
        DataError: There are no labels, or too few images.
        ConfigError: The config does not fit the data.
        DiskFullError: The disk is full.
    """
    folder = pathlib.Path(project)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{project} exists already; give another name, or remove it")
    if not 0 < val < 1:
        raise UsageError(f"--val is {val:g}; accepted: a share of the images, above 0 and below 1, such as 0.2")
    base = _load_base(model) if model else None
    reads_masks = base is not None and stages.has_mask_head(base.message.model)
    recognized = recognize(data, data_format, flag="--data", include_masks=reads_masks)
    are_classes = recognized.format == CLASS_FOLDERS
    name = model or (CLASSIFIER if are_classes else DETECTOR)
    base = base or _load_base(name)
    chosen, archive = _choose_weights(name, base, weights, is_default=model is None)
    _check_fits(name, base.message.model, recognized)
    recognized = _with_validation(recognized, val, seed)
    with _draft_of(folder) as draft:
        results = _write_records(recognized, draft)
        facts = _facts(recognized, results)
        memory, has_gpu = device_memory()
        message, comments = fitted(base, name, facts, chosen, archive, memory, has_gpu)
        notes = _write_config(message, comments, draft, folder.name)
    results = {split: _moved(result, folder / RECORDS_FOLDER) for split, result in results.items()}
    return NewProject(folder, recognized, results, name, chosen, message.train_config, [*remarks(recognized), *notes])


def _load_base(name: str) -> LoadedPipeline:
    """Loads a config that can be fitted to any labels."""
    loaded = load_pipeline(name)
    message = loaded.message
    usable = ", ".join((DETECTOR, "ssd_mobilenet_v2_fpnlite_320", "faster_rcnn_resnet50_v1_640"))
    if not stages.knows_classes(message.model) or stages.reads_proposals(message.model):
        what = "reads regions from a file" if stages.reads_proposals(message.model) else "does not classify"
        raise UsageError(f"--model {name} {what}, so it cannot be trained on labels alone; take, e.g., {usable}")
    if not message.train_config.HasField("optimizer"):
        raise UsageError(f"--model {name} has no train_config with an optimizer, whose learning rate would be fitted")
    return loaded


def _choose_weights(name: str, base: LoadedPipeline, weights: str | None, is_default: bool) -> tuple[str, str]:
    """Returns one of ``WEIGHTS`` and the path of the zoo's checkpoint, "" without one."""
    archive = archive_of(name.removesuffix(".config"))
    kind = getattr(base.message.model, str(base.message.model.WhichOneof("model")))
    pretrained = getattr(getattr(kind, "feature_extractor", None), "pretrained_weights", "")
    if weights is None:
        weights = "none" if is_default else "zoo" if archive else "imagenet" if pretrained else "none"
    if weights not in WEIGHTS:
        raise UsageError(f"--weights is '{weights}'; accepted: {', '.join(WEIGHTS)}")
    if weights == "zoo" and archive is None:
        having = ", ".join(sorted(other for other in config_names() if archive_of(other)))
        raise UsageError(f"the zoo has no weights for --model {name}; it has some for {having}")
    if weights == "imagenet" and not pretrained:
        raise UsageError(f"--model {name} takes no weights of ImageNet; accepted: --weights none")
    return weights, f"{PREFIX}{archive}" if weights == "zoo" else ""


def _check_fits(name: str, model: Any, recognized: Recognized) -> None:
    """Checks that a model can learn from the kind of labels."""
    are_classes = recognized.format == CLASS_FOLDERS
    if are_classes != model.HasField("spp_classifier"):
        found, lacking = ("classes of whole images", "boxes") if are_classes else ("boxes", "whole images")
        other = CLASSIFIER if are_classes else DETECTOR
        raise UsageError(f"--model {name} learns from {lacking}, but --data has {found}; take, e.g., --model {other}")
    if stages.has_mask_head(model) and recognized.splits and not any(map(has_masks, recognized.splits.values())):
        raise UsageError(
            f"--model {name} learns from masks, but the labels have boxes only; take, e.g., --model {DETECTOR}"
        )


@contextlib.contextmanager
def _draft_of(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder that becomes ``folder`` at the end of the block; an exception removes it."""
    folder = folder.absolute()
    above = next(each for each in folder.parents if each.exists())
    draft = above / f".{folder.name}.{os.getpid()}"
    try:
        draft.mkdir()
        yield draft
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(folder)
    except OSError as problem:
        raise full_disk(problem, above) or UsageError(f"{folder} cannot be written: {problem.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _with_validation(recognized: Recognized, val: float, seed: int) -> Recognized:
    """Draws the images to validate on, unless the labels have a split for it."""
    if VAL in recognized.splits:
        return recognized
    return draw(recognized, val, seed, ALL if ALL in recognized.splits else TRAIN)


def _write_records(recognized: Recognized, draft: pathlib.Path) -> dict[str, ConversionResult]:
    (draft / RECORDS_FOLDER).mkdir()
    masks = any(map(has_masks, recognized.splits.values()))
    return write_records(recognized, f"{draft / RECORDS_FOLDER}/", with_masks=masks)


def _moved(result: ConversionResult, folder: pathlib.Path) -> ConversionResult:
    """Returns a result whose files lie in another folder."""
    shards = [folder / shard.name for shard in result.shards]
    return dataclasses.replace(result, shards=shards, label_map_path=folder / LABEL_MAP_FILE)


def _facts(recognized: Recognized, results: dict[str, ConversionResult]) -> DataFacts:
    train = results[TRAIN]
    most = max(len(image.objects) for part in recognized.splits.values() for image in part.images)
    patterns = {
        split: f"{RECORDS_FOLDER}/{split}-?????-of-{len(result.shards):05d}.tfrecord"
        for split, result in results.items()
    }
    return DataFacts(max(recognized.class_names), train.num_images, most, train.with_masks, patterns)


def _write_config(message: Any, comments: dict[str, str], draft: pathlib.Path, project: str) -> list[str]:
    """Writes the config of a project next to its records. Returns the warnings that `config check` has for it."""
    heading = _HEADING.format(project=project, quoted=shlex.quote(project), training=PROJECT_TRAINING)
    added: dict[str, str] | None = None
    while added is None or added:
        (draft / CONFIG_FILE).write_text(heading + commented_text(message, comments), encoding="utf-8")
        problems = check_pipeline(load_pipeline(str(draft / CONFIG_FILE)))
        added = add_recomputed_statistics(message.train_config, problems)
        comments = comments | added
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise ConfigError(format_problems(problems, project))
    return [problem.message for problem in problems if problem.severity is Severity.WARNING]


def device_memory() -> tuple[int, bool]:
    """Returns the free memory in bytes of the device that trains, of all GPUs if there are any, and if it is a GPU."""
    import psutil

    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1"):
        query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
            if free := sum(int(line) for line in answer.split()):
                return free * 2**20, True
    return psutil.virtual_memory().available, False
