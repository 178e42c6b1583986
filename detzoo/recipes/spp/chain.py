"""Runs SPP-net's chain (arXiv:1406.4729, section 4.1) and writes one checkpoint.

    classifier's weights -> maps -> fine-tuning of fc6 to fc8 -> SVMs -> box regression -> checkpoint of the detector

``plan`` derives the steps from the config. A run that ended at any moment can be resumed: maps are stored per image,
fine-tuning has checkpoints, and SVMs and box regression store their state.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.builders.inputs import build_dataset
from detzoo.builders.optimizer import build_optimizer, moving_average_decay
from detzoo.builders.resize import build_model_resizer
from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.merge import save_weights
from detzoo.checkpoints.restore import warm_start
from detzoo.checkpoints.stored_weights import CLASSIFICATION
from detzoo.config.label_map import load_label_map
from detzoo.detectors.spp_net import SppNet
from detzoo.errors import DetzooError
from detzoo.progress import track
from detzoo.recipes.recipe import FinishedRecipe
from detzoo.recipes.spp.fine_tuning import FineTuningOptions, WindowClassifier, make_window_dataset
from detzoo.recipes.spp.images import TrainingImages
from detzoo.recipes.spp.linear_svm import LinearSvms, SvmOptions
from detzoo.recipes.spp.map_cache import BYTES_A_GIGABYTE, MapCache
from detzoo.recipes.spp.network import DetectorFeatures
from detzoo.recipes.spp.plan import (
    BOX_REGRESSION,
    FINE_TUNING,
    MAPS,
    RECIPE,
    SVM,
    Plan,
    check_origin,
)
from detzoo.recipes.spp.regression_step import train_box_regression
from detzoo.recipes.spp.survey import Survey, survey_records
from detzoo.recipes.spp.svm_step import train_svms
from detzoo.train.loop import TrainingLoop
from detzoo.train.progress import Progress
from detzoo.train.run_record import read_finished, write_finished
from detzoo.train.settings import dtype_policy_of, settings_from_config
from detzoo.train.stop import StopRequest
from detzoo.train.strategy import create_strategy
from detzoo.train.trainer import Trainer

_CONTENTS = {
    MAPS: "feature maps of the training images; may be deleted, another run would make them again",
    FINE_TUNING: "fc6 to fc8, with TensorBoard's events",
    SVM: "an SVM for each class",
    BOX_REGRESSION: "from windows to boxes, for each class",
}
ORIGIN_NETWORK, ORIGIN_IMAGES = "fine_tune_checkpoint", "set of training images"

logger = logging.getLogger(__name__)


def train_spp_net(
    pipeline: Any, model_dir: str | pathlib.Path, plan: Plan, strategy_name: str, stop: StopRequest
) -> FinishedRecipe | None:
    """Runs the remaining steps of the chain; returns None if a signal came first.

    Args:
        pipeline: ``TrainEvalPipelineConfig`` with ``model.spp_net``, passed by ``config.check``.
        model_dir: Folder of the run, passed by ``plan.check_folder``.
        plan: Plan of this config.
        strategy_name: Strategy of fine-tuning, see ``train_pipeline``; one machine only.
        stop: Stop request, entered already.
    """
    folder = pathlib.Path(model_dir)
    RECIPE.check_machine(strategy_name)
    reader = _in_order(pipeline)
    label_map = load_label_map(reader.label_map_path)
    class_names = _class_names(label_map, pipeline.model.spp_net.num_classes)
    patterns = list(reader.tf_record_input_reader.input_path)
    survey = survey_records(patterns, reader.sample_1_of_n_examples, label_map.id_by_any_name, class_names)
    logger.info("%d training images; true boxes: %s", len(survey.image_ids), survey.describe())
    strategy = create_strategy(strategy_name)
    keras.utils.set_random_seed(pipeline.train_config.seed + 1)  # as in session
    with strategy.scope():
        detector: Any = build_detector(pipeline.model)
    config = pipeline.train_config
    _warn_of_ignored_fields(config)
    checkpoint_type = config.fine_tune_checkpoint_type or CLASSIFICATION
    logger.info("%s", warm_start(detector, config.fine_tune_checkpoint, checkpoint_type).describe())
    folder.mkdir(parents=True, exist_ok=True)
    network = DetectorFeatures(detector)
    origin = {ORIGIN_NETWORK: network.fingerprint(), ORIGIN_IMAGES: survey.fingerprint()}
    check_origin(folder, origin)
    chain = _Chain(pipeline, folder, plan, detector, network, strategy, survey, class_names, stop)
    facts = {"seed": config.seed, "strategy": type(strategy).__name__}
    return RECIPE.run(folder, pipeline, chain.steps(), lambda: chain.finish(origin), stop, **facts)


class _Chain:
    """The steps and their shared state."""

    def __init__(
        self,
        pipeline: Any,
        folder: pathlib.Path,
        plan: Plan,
        detector: SppNet,
        network: DetectorFeatures,
        strategy: tf.distribute.Strategy,
        survey: Survey,
        class_names: list[str],
        stop: StopRequest,
    ) -> None:
        self._pipeline, self._folder, self._plan, self._detector = pipeline, folder, plan, detector
        self._strategy, self._survey, self._class_names, self._stop = strategy, survey, class_names, stop
        self._model, self._seed = pipeline.model.spp_net, pipeline.train_config.seed
        cache = self._model.cache
        self._cache = MapCache(
            cache.directory or folder / MAPS, network.fingerprint(), cache.max_gigabytes * BYTES_A_GIGABYTE
        )
        reader = _in_order(pipeline)

        def read(first_record: int) -> tf.data.Dataset:
            return _read(pipeline, reader, training=False, start_record=first_record)

        self._images = TrainingImages(read, network, self._cache, detector.num_classes, len(survey.image_ids))

    def steps(self) -> list[tuple[str, Callable[[str], bool]]]:
        """Returns the folders and functions of the steps that the config asks for."""
        functions: dict[str, Callable[[], bool]] = {
            MAPS: self._make_maps,
            FINE_TUNING: self._fine_tune,
            SVM: self._train_svms,
            BOX_REGRESSION: self._regress_boxes,
        }

        def labelled(function: Callable[[], bool]) -> Callable[[str], bool]:
            def run(label: str) -> bool:
                logger.info("%s", label)
                return function()

            return run

        return [(step, labelled(functions[step])) for step in self._plan.steps]

    def finish(self, origin: Mapping[str, str]) -> FinishedRecipe:
        """Writes the checkpoint of the detector."""
        weights = {path: variable.numpy() for path, variable in variables_by_path(self._detector.variables).items()}
        step = max(1, self._pipeline.train_config.num_steps)
        prefix = save_weights(self._folder, step, weights)
        RECIPE.write(self._folder, {"origin": dict(origin), "steps": list(self._plan.steps), "checkpoint": prefix})
        write_finished(self._folder, step, step, "SPP-net's chain has ended")
        rows = [(str(self._folder / name), _CONTENTS[name]) for name in self._plan.steps]
        return FinishedRecipe(prefix, (*rows, (prefix, "the detector")))

    def _make_maps(self) -> bool:
        """Computes the maps of every image, as far as the cache has room."""
        missing = {image_id for image_id in self._survey.image_ids if image_id not in self._cache}
        if missing:
            for image in track(self._images.since(), len(self._survey.image_ids), "feature maps"):
                if self._stop.requested:
                    return False
                if image.image_id in missing and not self._cache.put(
                    image.image_id, self._images.network.maps(image.pixels)
                ):
                    break  # what does not fit now will not fit later
        logger.info("%.3f GB of feature maps", self._cache.num_bytes / BYTES_A_GIGABYTE)
        return True

    def _fine_tune(self) -> bool:
        """Trains fc6, fc7 and fc8, or restores their weights."""
        folder, config = self._folder / FINE_TUNING, self._pipeline.train_config
        classifier = WindowClassifier(self._detector)
        finished = read_finished(folder)
        if finished is not None and finished["num_train_steps"] >= config.num_steps:
            logger.info("finished already, at step %d", restore_for_inference(classifier, folder))
            return True
        folder.mkdir(parents=True, exist_ok=True)
        options = _options(FineTuningOptions, self._model.fine_tuning)
        settings = settings_from_config(config, moving_average_decay(config.optimizer))
        settings = dataclasses.replace(
            settings, batch_size=options.batch_size, eval_every_n_steps=0, early_stopping=None
        )
        with self._strategy.scope():
            optimizer = build_optimizer(config.optimizer)
        problems: list[Exception] = []

        def read_windows(start_record: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
            images = _read(self._pipeline, self._pipeline.train_input_reader, training=True, start_record=start_record)
            share = options.batch_size // context.num_replicas_in_sync
            return make_window_dataset(self._images, images, options, share, self._seed, problems)

        trainer = Trainer(classifier, read_windows, optimizer, self._strategy, settings)
        progress = Progress(settings.num_steps, settings.batch_size, settings.log_every_n_steps, unit="windows")
        loop = TrainingLoop(trainer, folder, None, self._stop, progress)
        step = loop.checkpoints.restore_latest()
        if step is not None:
            logger.info("resuming from step %d of %d", step, settings.num_steps)
        try:
            if not loop.run().finished:
                return False
        except tf.errors.OpError as error:
            raise (problems[0] if problems and isinstance(problems[0], DetzooError) else error) from None
        restore_for_inference(classifier, folder)  # moving averages, if there are any
        return True

    def _train_svms(self) -> bool:
        """Trains the SVMs and sets their weights."""
        message = self._model.svm
        options = _options(SvmOptions, message)
        trained = train_svms(
            self._images,
            LinearSvms(self._class_names, self._images.network.classifier_depth, options),
            self._folder / SVM,
            self._stop,
            mining_rounds=message.mining_rounds,
            seed=self._seed,
        )
        if trained is None:
            return False
        _assign(self._detector.svm, trained["kernels"].T, trained["biases"])
        return True

    def _regress_boxes(self) -> bool:
        """Trains box regression and sets its weights."""
        message = self._model.box_regression
        solved = train_box_regression(
            self._images,
            self._class_names,
            self._folder / BOX_REGRESSION,
            self._stop,
            min_iou=message.min_iou,
            regularization=message.regularization,
        )
        if solved is None:
            return False
        _assign(self._detector.box_regression, *solved)
        return True


def _options(kind: type, message: Any) -> Any:
    """Returns options from the fields of the same names of a message."""
    return kind(**{field.name: getattr(message, field.name) for field in dataclasses.fields(kind)})


def _warn_of_ignored_fields(config: Any) -> None:
    if config.eval_every_n_steps or config.HasField("early_stopping"):
        logger.warning("train_config: evaluation while training has no effect on SPP-net: evaluate its checkpoint")
    if dtype_policy_of(config) != "float32":
        logger.warning("train_config.mixed_precision has no effect on SPP-net, which computes with float32")


def _class_names(label_map: Any, num_classes: int) -> list[str]:
    """Returns the names of the ids from 1 to ``num_classes``."""
    return [label_map.names.get(number, f"id {number}") for number in range(1, num_classes + 1)]


def _assign(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Sets kernel and bias of a linear layer."""
    layer.set_weights([kernel, bias])


def _in_order(pipeline: Any) -> Any:
    """Returns a copy of ``train_input_reader`` that yields every image once, unchanged."""
    reader = copy.deepcopy(pipeline.train_input_reader)
    reader.shuffle = False
    reader.load_instance_masks = False
    reader.max_number_of_boxes = max(reader.max_number_of_boxes, pipeline.train_config.max_number_of_boxes)
    reader.num_epochs = 1
    return reader


def _read(pipeline: Any, reader: Any, *, training: bool, start_record: int) -> tf.data.Dataset:
    """Returns batches of one unresized image with proposals."""
    reader = copy.deepcopy(reader)
    reader.load_instance_masks = False
    reader.max_number_of_proposals = pipeline.model.spp_net.max_proposals
    return build_dataset(
        reader,
        build_model_resizer(pipeline.model),
        pipeline.train_config,
        training=training,
        batch_size=1,
        seed=pipeline.train_config.seed,
        start_record=start_record,
        all_proposals=start_record == 0,
    )
