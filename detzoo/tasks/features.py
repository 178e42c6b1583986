"""Features of a classifier's layer for all images of a reader, and their classification by linear SVMs."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from detzoo.config.names import suggestion
from detzoo.errors import ConfigError, DataError, UsageError
from detzoo.extras import require_extras
from detzoo.folders import make_folder
from detzoo.progress import track
from detzoo.tasks.models import EVAL_READER, TRAIN_READER, Pipeline, load_checked, restored, start_tensorflow

if TYPE_CHECKING:
    from detzoo.recipes.spp.image_svms import ImageFeatures, SvmResult

READERS = {"train": TRAIN_READER, "eval": EVAL_READER}


class FeatureSummary(NamedTuple):
    """Size of a file of features."""

    num_images: int
    depth: int  # values per image
    num_classes: int


def extract_features(
    pipeline: Pipeline,
    checkpoint_dir: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    layer: str = "fc7",
    bins: Sequence[int] = (),
    shorter_side: int = 0,
    crop_size: int = 0,
    reader: str = "eval",
    overrides: Sequence[str] = (),
) -> FeatureSummary:
    """Writes the features of a layer for every image of a reader to an npz file.

    The file has ``features`` float32 [N, F], ``labels`` int8 [N, K] (1 present, -1 absent, 0 only as difficult
    objects), ``ids`` and ``class_names``.

    Args:
        pipeline: Config of a classifier (``model.spp_classifier``).
        checkpoint_dir: See ``detzoo.tasks``.
        output: The npz file to write.
        layer: Name of a layer.
        bins: Bins per side of each level of a pyramid on the layer's map; empty for the map itself.
        shorter_side: Shorter side of the resized images in pixels; 0 for that of the config.
        crop_size: Side of the crop of the centre; 0 for whole images.
        reader: Key of ``READERS``.
        overrides: See ``detzoo.tasks``.

    Raises:
        ConfigError: The config has errors, or is not of a classifier.
        UsageError: There is no such layer, or it needs images of another size.
        DataError: The features of two images have different lengths.
    """
    from detzoo.recipes.spp.arrays import save_arrays

    loaded = load_checked(pipeline, overrides)
    message = loaded.message
    if not message.model.HasField("spp_classifier"):
        kind = message.model.WhichOneof("model")
        raise ConfigError(f"{loaded.path}: model.{kind} is no classifier; accepted: model.spp_classifier")
    load_checked(loaded, reads=READERS[reader])
    side = shorter_side or message.model.spp_classifier.shorter_side
    if crop_size > side:
        raise UsageError(f"--crop_size {crop_size} is above the shorter side of the images, {side}; see --shorter_side")
    file = pathlib.Path(output)
    make_folder(file.parent, "--output")
    start_tensorflow()
    import tensorflow as tf

    from detzoo.builders.classification_inputs import build_labeled_images, class_label_map
    from detzoo.data.class_images import NO_LIMIT_PX, TrainingCrop
    from detzoo.data.issue_counter import IssueCounter
    from detzoo.data.resize import KeepAspectRatioResizer

    detector, _ = restored(message.model, checkpoint_dir)
    layers = detector.feature_layers()
    if layer not in layers:
        raise UsageError(f"--layer: the network has no '{layer}'{suggestion(layer, layers)}")
    if bins and layer in layers[-2:]:
        raise UsageError(f"--pyramid pools maps, and {layer} has none; accepted with it: {', '.join(layers[:-2])}")
    fixed, _ = detector.input_shape_px
    if fixed and crop_size != fixed:
        raise UsageError(f"this network has no pyramid and reads {fixed} x {fixed} pixels; give --crop_size={fixed}")
    model = detector.feature_model(layer, bins)
    resizer = (
        TrainingCrop(min_dimension=side, crop_size=crop_size)
        if crop_size
        else KeepAspectRatioResizer(min_dimension=side, max_dimension=NO_LIMIT_PX)
    )

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)], autograph=False)
    def compute(images: tf.Tensor) -> tf.Tensor:
        return model(detector.preprocess(images), training=False)

    read = message.train_input_reader if reader == "train" else message.eval_input_reader[0]
    names = class_label_map(read).names
    class_names = [names.get(number, f"id {number}") for number in range(1, max(names) + 1)]
    dataset, num_records = build_labeled_images(read, resizer, IssueCounter())
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    ids: list[str] = []
    for batch in track(dataset, num_records, f"features of {layer}"):
        vector = compute(batch.images)[0].numpy().astype(np.float32)
        ids.append(batch.image_ids[0].numpy().decode("utf-8", "replace"))
        if features and vector.size != features[0].size:
            raise DataError(
                f"image '{ids[-1]}' has {vector.size} values in {layer} and '{ids[0]}' has {features[0].size}: maps of "
                "images of different sizes need --pyramid, or --crop_size"
            )
        features.append(vector)
        labels.append(_labels(batch.groundtruth, len(class_names)))
    if not features:
        raise DataError(f"{READERS[reader]} has no image with a class of the label map")
    arrays = {"features": np.stack(features), "labels": np.stack(labels)}
    save_arrays(file, {**arrays, "ids": np.array(ids), "class_names": np.array(class_names)})
    return FeatureSummary(len(ids), features[0].size, len(class_names))


def classify_features(
    train: str | pathlib.Path,
    test: str | pathlib.Path | None = None,
    *,
    c: float = 1.0,
    train_per_class: int = 30,
    test_per_class: int = 50,
    num_splits: int = 10,
    seed: int = 0,
) -> list[SvmResult]:
    """Trains one linear SVM per class on features and measures them.

    Args:
        train: File of ``extract_features``.
        test: Another such file; None for random splits of ``train``, as in Caltech101's protocol.
        c: Weight of the errors against the margin.
        train_per_class: Training images per class of a random split.
        test_per_class: Test images per class of a random split, at most.
        num_splits: Number of random splits.
        seed: Seed of the splits.

    Returns:
        One result, or that of each split.
    """
    require_extras("training of SVMs", "spp")
    from detzoo.recipes.spp.image_svms import random_split, train_and_test

    known = _read(train)
    if test is not None:
        others = _read(test)
        if known.class_names != others.class_names or known.features.shape[1] != others.features.shape[1]:
            raise DataError(f"{train} and {test} differ in their classes or in the number of values per image")
        return [train_and_test(known, others, c)]
    random = np.random.default_rng(seed)
    results = []
    for _ in range(num_splits):
        rows, other_rows = random_split(known.labels, train_per_class, test_per_class, random)
        results.append(train_and_test(known.of(rows), known.of(other_rows), c))
    return results


def _labels(groundtruth: object, num_classes: int) -> np.ndarray:
    """Returns int8 [K] of a batch of one image."""
    from detzoo.recipes.spp.image_svms import ABSENT, PRESENT, UNCERTAIN

    classes, difficult = (np.asarray(getattr(groundtruth, name))[0] for name in ("classes", "is_difficult"))
    labels = np.full(num_classes, ABSENT, np.int8)
    labels[classes[(classes >= 0) & difficult]] = UNCERTAIN
    labels[classes[(classes >= 0) & ~difficult]] = PRESENT
    return labels


def _read(file: str | pathlib.Path) -> ImageFeatures:
    from detzoo.recipes.spp.arrays import load_arrays
    from detzoo.recipes.spp.image_svms import ImageFeatures

    arrays = load_arrays(pathlib.Path(file))
    if arrays is None:
        raise UsageError(f"there is no file {file}; `detzoo features` writes it")
    missing = {"features", "labels", "class_names"} - arrays.keys()
    if missing:
        raise DataError(f"{file} has no '{sorted(missing)[0]}'; accepted: a file that `detzoo features` wrote")
    return ImageFeatures(arrays["features"], arrays["labels"], tuple(map(str, arrays["class_names"])))
