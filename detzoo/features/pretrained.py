"""Loads pretrained weights into a backbone: ImageNet's of ``keras.applications``, or those of a file.

The file may be of detzoo (``model.save_weights`` of the same backbone) or of ``keras.applications``' model without its
classifier (``.weights.h5``, ``.h5``, ``.keras``). Two differences between the networks are converted:

* a bias before a batch norm is subtracted from its moving mean, which gives the same output;
* a first kernel for colours in BGR order (VGG, ResNet) is reversed for RGB.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
import sys
import traceback
import warnings
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from detzoo.errors import CheckpointError
from detzoo.features.network import Application, producer_of, stable_names
from detzoo.features.rewrite import ACTIVATION_SUFFIX, MODEL_NAME

IMAGENET = "imagenet"
CLASSIFIER_LAYER = "predictions"  # of the networks in keras.applications

_WITHOUT_IMAGENET = (
    "Otherwise name a file in pretrained_weights, leave pretrained_weights empty, or train with --allow_random_weights"
)
_OWN_BATCH_NORM = re.compile(r"/batch_norm(_\d+)?/vars$")

_logger = logging.getLogger(__name__)

_Weights = dict[str, dict[str, np.ndarray]]  # layer's name -> variable's name -> value


class MissingWeightsError(CheckpointError):
    """ImageNet's weights are requested, but not available."""


class PretrainedReport(NamedTuple):
    """The loaded and the missing weights of a backbone, as ``layer/variable`` in the model's order."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # these keep their initial values


def load_pretrained(model: keras.Model, source: str, application: Application | None = None) -> PretrainedReport:
    """Loads a backbone's weights from ``source``, by layer name and shape, and logs the missing ones.

    Args:
        model: The backbone, a functional model of ``detzoo.features.rewrite``.
        source: "imagenet", or the path of a ``.weights.h5``, ``.h5`` or ``.keras`` file.
        application: Twin of the network in ``keras.applications``, or None.

    Returns:
        The names of the loaded and of the missing weights.

    Raises:
        MissingWeightsError: ImageNet's weights cannot be downloaded, or do not exist.
        CheckpointError: The file does not exist, cannot be read, or has no weight that fits.
    """
    weights = _imagenet_weights(application) if source == IMAGENET else _file_weights(model, source, application)
    report = _assign(model, weights)
    if source != IMAGENET and not report.loaded:
        raise CheckpointError(
            f"pretrained_weights: '{source}' has no weight whose layer and shape are those of the backbone. Accepted "
            "are a file of the same backbone and one of keras.applications' model without its classifier."
        )
    _logger.info("Loaded %d weights of the backbone from %s.", len(report.loaded), source)
    if report.missing:
        _logger.warning(
            "%s has no value for %d weights of the backbone, which start from scratch: %s",
            source,
            len(report.missing),
            ", ".join(report.missing),
        )
    return report


def _imagenet_weights(application: Application | None) -> _Weights:
    if application is None:
        raise MissingWeightsError(
            f"pretrained_weights: keras.applications has no ImageNet weights of this backbone. {_WITHOUT_IMAGENET}"
        )
    application = application.with_classifier or application
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of a download
            twin = application.build(weights=IMAGENET)
    except Exception as error:  # from the network, the file system, or a damaged file
        raise MissingWeightsError(_missing_file(error)) from error
    return _application_weights(twin, application)


def _missing_file(error: Exception) -> str:
    """Describes the file that ``keras.applications`` failed to download or read, from the frames of its error."""
    found: dict[str, Any] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "get_file" or "weights_path" in frame.f_locals:
            found |= frame.f_locals
    path = pathlib.Path(found.get("download_target") or found.get("weights_path") or "")
    message = f"pretrained_weights: ImageNet's weights are not available: {str(error) or type(error).__name__}."
    if path.name:
        expected = f" (hash {found['file_hash']})" if found.get("file_hash") else ""
        origin = f" from {found['origin']}" if found.get("origin") else ""
        message += f" Put the file {path.name}{expected}{origin} into the folder {path.parent}."
    return f"{message} {_WITHOUT_IMAGENET}"


def _file_weights(model: keras.Model, source: str, application: Application | None) -> _Weights:
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"pretrained_weights: there is no file '{source}'. Accepted are '{IMAGENET}' and the path of a "
            ".weights.h5, .h5 or .keras file."
        )
    try:
        if path.suffix == ".keras":
            return _model_weights(keras.saving.load_model(path, compile=False), application)
        own = _own_weights(model, path)
        if own or application is None:
            return own
        return _twin_weights(path, application)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"pretrained_weights: '{source}' cannot be read: {error}") from error


def _twin_weights(path: pathlib.Path, application: Application) -> _Weights:
    """Reads a file of the twin, with its classifier if the backbone uses it and the file has one."""
    if application.with_classifier is not None:
        with contextlib.suppress(ValueError, KeyError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of files without a classifier
            return _twin_weights(path, application.with_classifier)
    twin = application.build(weights=None)
    twin.load_weights(path)
    return _application_weights(twin, application)


def _model_weights(loaded: keras.Model, application: Application | None) -> _Weights:
    if application is None or loaded.name == MODEL_NAME:
        return {layer.name: _values(layer) for layer in loaded.layers}
    if application.with_classifier is not None and CLASSIFIER_LAYER in {layer.name for layer in loaded.layers}:
        application = application.with_classifier
    return _application_weights(loaded, application)


def _own_weights(model: keras.Model, path: pathlib.Path) -> _Weights:
    """Reads a file of a detzoo backbone, possibly with other maps, by layer name. Returns {} for other files.

    detzoo's files have layers of ``BatchNorm``, or separate activations of convolutions (VGG without batch norm).
    """
    stored: dict[str, list[np.ndarray]] = {}
    is_own = False

    def visit(group_path: str, group: Any) -> None:
        nonlocal is_own
        if group_path.endswith("/vars") and "name" in group.attrs:
            name = str(group.attrs["name"])
            stored[name] = [group[str(number)][()] for number in range(len(group))]
            is_own |= _OWN_BATCH_NORM.search(group_path) is not None or name.endswith(ACTIVATION_SUFFIX)

    with h5py.File(path) as file:
        file.visititems(visit)
    if not is_own:
        return {}
    return {
        layer.name: {weight.name: value for weight, value in zip(layer.weights, stored[layer.name], strict=False)}
        for layer in model.layers
        if layer.name in stored
    }


def _application_weights(twin: keras.Model, application: Application) -> _Weights:
    """Returns the twin's weights by detzoo's layer names, in its conventions."""
    names = stable_names(twin)
    weights = {names[layer.name]: _values(layer) for layer in twin.layers}
    for layer in twin.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            _move_bias(weights[names[producer_of(twin, layer.input).name]], weights[names[layer.name]])
    if application.expects_bgr:
        first = next(layer for layer in twin.layers if isinstance(layer, keras.layers.Conv2D))
        values = weights[names[first.name]]
        values["kernel"] = values["kernel"][:, :, ::-1, :]
    application.convert(weights)
    return weights


def _move_bias(convolution: dict[str, np.ndarray], batch_norm: dict[str, np.ndarray]) -> None:
    """Moves a bias into the moving mean: conv + bias - mean = conv - (mean - bias)."""
    if "bias" in convolution:
        batch_norm["moving_mean"] = batch_norm["moving_mean"] - convolution.pop("bias")


def _values(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {weight.name: weight.numpy() for weight in layer.weights}


def _assign(model: keras.Model, weights: _Weights) -> PretrainedReport:
    loaded: list[str] = []
    missing: list[str] = []
    for layer in model.layers:
        values = weights.get(layer.name, {})
        for weight in layer.weights:
            value = values.get(weight.name)
            fits = value is not None and tuple(value.shape) == tuple(weight.shape)
            (loaded if fits else missing).append(f"{layer.name}/{weight.name}")
            if fits:
                weight.assign(value)
    return PretrainedReport(tuple(loaded), tuple(missing))
