"""Keras's methods of a detector: fit and evaluate with the detector's own losses, predict with detections.

fit       -> train_step   -> loss_shares -> gradients -> the compiled optimizer
evaluate  -> test_step    -> loss_shares without the training mode
predict   -> predict_step -> preprocess, forward, postprocess -> dict of arrays
save      -> get_config   -> text of the config that the detector was built from
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from detzoo import keras_files
from detzoo.contracts import Detections, Tensor
from detzoo.detectors.keras_data import KerasData, to_arrays
from detzoo.detectors.parts import Part, find_parts, print_summary
from detzoo.detectors.training_losses import all_reduce_sum, loss_shares
from detzoo.errors import DataError, UsageError
from detzoo.layers.resample import spatial_shape

LOSS = "loss"  # Keras's name of the total
LEARNING_RATE, CLIPPING_NORM = 1e-4, 10.0  # of compile() without an optimizer, chosen for fine-tuning


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """Description from which a detector was built."""

    model: str  # text of the config's ``model`` block, without pretrained weights
    dtype_policy: str  # name of the dtype policy
    # The config's resizer, a function of images [B, H, W, 3] to (padded images, true shape).
    resizer: Callable[[Tensor], Any]
    state: tuple[Any, ...]  # ``state_of`` the detector as it was built


def state_of(detector: keras.Model) -> tuple[Any, ...]:
    """Returns what a config determines: the layers, and the variables' paths, shapes and types."""
    variables = ((variable.path, tuple(variable.shape), variable.dtype) for variable in detector.variables)
    return (*detector._flatten_layers(include_self=False), *variables)


class _LossMeans:
    """Means over an epoch, in an object that Keras does not track, because metrics are no part of a detector."""

    def __init__(self) -> None:
        self.by_name: dict[str, keras.metrics.Metric] = {}


class KerasDetector(keras.Model):
    """Keras model with the methods that a Keras user expects of a detector.

    Args:
        **kwargs: Arguments of ``keras.Model``.
    """

    trained_in_steps = False  # by several trainings, not by one loss

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers the class for .keras files, under one name for all, because the config determines the class."""
        super().__init_subclass__(**kwargs)
        package, _, name = keras_files.REGISTERED_NAME.partition(">")
        keras.saving.register_keras_serializable(package, name)(cls)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False  # the number of objects, and of candidates in a suppression, depends on values
        self.origin: Origin | None = None
        self._loss_means = _LossMeans()
        self._keras_data = KerasData(self)

    @property
    def named_parts(self) -> dict[str, Part]:
        """Parts with variables by name, such as ``backbone``, ``neck`` and ``head``, in the order of the graph."""
        return find_parts(self)

    def summary(self, *args: Any, print_fn: Any = None, expand_nested: bool = False, **options: Any) -> None:
        """Prints the parts with their output shapes and numbers of parameters.

        Args:
            *args: Ignored, as are ``options``: they format Keras's own table.
            print_fn: Function of a text; ``print`` if None.
            expand_nested: Print Keras's summary of each network, too.
            **options: See ``args``.
        """
        del args, options
        print_summary(self, print_fn, expand_nested)

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """Configures ``fit`` and ``evaluate``, whose losses are those of the detector's config.

        Args:
            optimizer: Keras optimizer or its name; None for Adam with learning rate 1e-4, clipped to global norm 10.
            loss: Only None is accepted, as for ``loss_weights``, ``metrics`` and ``weighted_metrics``.
            loss_weights: See ``loss``.
            metrics: See ``loss``.
            weighted_metrics: See ``loss``.
            **options: run_eagerly, steps_per_execution, auto_scale_loss and jit_compile of ``keras.Model.compile``.

        Raises:
            UsageError: A loss or metrics are given.
        """
        if loss is not None or loss_weights is not None:
            raise UsageError(
                "compile() takes no loss and no loss_weights: a detector has the losses of its config; change their "
                "kinds and weights there (model.*.loss, *_loss_weight)"
            )
        if metrics or weighted_metrics:
            raise UsageError(
                "compile() takes no metrics: Keras's compare one label with one prediction, and a detector is measured "
                "by matched boxes; use detzoo.tasks.evaluate (COCO metrics)"
            )
        if optimizer is None:
            optimizer = keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=CLIPPING_NORM)
        self._loss_means.by_name.clear()
        super().compile(optimizer, **options)

    @property
    def metrics(self) -> list[Any]:
        """Means of the total loss and of its parts since the start of the epoch."""
        return list(self._loss_means.by_name.values())

    def fit(self, x: Any = None, y: Any = None, *args: Any, **options: Any) -> Any:
        """Trains with the detector's own losses and regularisation.

        Args:
            x: uint8 or float images 0..255, RGB: [images, height, width, 3] or a list of images of one size. Or a
                dataset, PyDataset or generator of ``(images, ground truth)``, or a dataset of
                ``detzoo.contracts.Batch``. Images are resized as the config says.
            y: Ground truth of an array ``x``: a dict of ``boxes`` [images, objects, 4], ``[ymin, xmin, ymax, xmax]`` in
                fractions of the image, and ``classes`` [images, objects], from 0, -1 for padding; optional ``masks``
                [images, objects, height, width], ``is_crowd`` and ``weights`` [images, objects]. Each is padded,
                ragged, or a list of one array per image.
            *args: Further arguments of ``keras.Model.fit``.
            **options: Further arguments of ``keras.Model.fit``, except ``class_weight`` and ``sample_weight``.

        Returns:
            Keras's ``History`` with the total loss and each of its parts.

        Raises:
            UsageError: An argument is not supported, or this detector cannot be trained so.
            DataError: The data are not as described; the message names image, object and value.
        """
        self._check_fit(options)
        if isinstance(options.get("validation_data"), tuple):
            options["validation_data"] = tuple(map(to_arrays, options["validation_data"]))
        if isinstance(x, tf.data.Dataset):
            options.setdefault("shuffle", False)  # Keras warns that a dataset is shuffled by itself only
        with self._one_sentence():
            return super().fit(to_arrays(x), to_arrays(y), *args, **options)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **options: Any) -> Any:
        """Returns the mean losses, without the training mode of batch normalisation and dropout.

        Args:
            x: As in ``fit``.
            y: As in ``fit``.
            *args: Further arguments of ``keras.Model.evaluate``.
            **options: Further arguments of ``keras.Model.evaluate``, except ``sample_weight``.

        Returns:
            List of the total loss and its parts in the order of ``metrics_names``, or a dict with ``return_dict``.

        Raises:
            UsageError: As for ``fit``.
            DataError: As for ``fit``.
        """
        self._check_fit(options)
        with self._one_sentence():
            return super().evaluate(to_arrays(x), to_arrays(y), *args, **options)

    def predict(self, x: Any, *args: Any, **options: Any) -> Any:
        """Returns the detections of images.

        Args:
            x: Images as in ``fit``; ground truth in a dataset is ignored.
            *args: Further arguments of ``keras.Model.predict``.
            **options: Further arguments of ``keras.Model.predict``.

        Returns:
            Dict of numpy arrays, best detection first, padded with zeros to M rows: ``boxes`` float32 [images, M, 4],
            ``[ymin, xmin, ymax, xmax]`` in fractions of the image; ``scores`` float32 [images, M]; ``classes`` int32
            [images, M], from 0; ``num_valid`` int32 [images], rows before the padding; with a mask head ``masks``
            float32 [images, M, h, w] in [0, 1], stretched over each box. A classifier returns scores [images, classes].

        Raises:
            DataError: The images are not as described.
        """
        with self._one_sentence():
            return super().predict(to_arrays(x), *args, **options)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **options: Any) -> Any:
        """Trains one step on images and ground truth as in ``fit``."""
        self._check_fit(options)
        with self._one_sentence():
            return super().train_on_batch(to_arrays(x), to_arrays(y), *args, **options)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **options: Any) -> Any:
        """Returns the losses of one batch as in ``evaluate``."""
        self._check_fit(options)
        with self._one_sentence():
            return super().test_on_batch(to_arrays(x), to_arrays(y), *args, **options)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns the detections of one batch as in ``predict``."""
        with self._one_sentence():
            return super().predict_on_batch(to_arrays(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on this replica's part of a batch; called by Keras."""
        batch = self._keras_data.examples(data)
        variables = self.trainable_variables
        if not variables:
            raise UsageError("there is nothing to train: trainable is False in every layer")
        with tf.GradientTape() as tape:
            shares = loss_shares(self, batch)
            scaled = self.optimizer.scale_loss(tf.add_n(list(shares.values())))
        gradients = tape.gradient(scaled, variables)
        with tf.control_dependencies([scaled]):  # no step is counted if the input has ended
            self.optimizer.apply_gradients(zip(gradients, variables))
        return self._mean_losses(shares, batch.images)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Computes the losses of this replica's part of a batch; called by Keras."""
        batch = self._keras_data.examples(data)
        return self._mean_losses(loss_shares(self, batch, training=False), batch.images)

    def predict_step(self, data: Any) -> Any:
        """Detects in a batch; called by Keras."""
        detector: Any = self
        batch = self._keras_data.images(data)
        predictions = detector.forward(
            detector.preprocess(batch.images), true_shapes=batch.true_shapes, **batch.side_inputs()
        )
        found = detector.postprocess(predictions, batch.true_shapes, spatial_shape(batch.images))
        if not isinstance(found, Detections):  # scores of a classifier
            return found
        result = {
            "boxes": found.boxes_norm,
            "scores": found.scores,
            "classes": found.classes,
            "num_valid": found.num_valid,
        }
        return result if isinstance(found.masks, tuple) else {**result, "masks": found.masks}

    def get_config(self) -> dict[str, Any]:
        """Returns the description from which ``from_config`` builds an equal detector with random weights.

        Raises:
            UsageError: The detector was not built from a config, or was changed since.
        """
        if self.origin is None:
            raise UsageError(
                f"{type(self).__name__} was not built from a config, which a .keras file stores; use save_weights()"
            )
        if state_of(self) != self.origin.state:
            raise UsageError(
                "the layers were changed since the detector was built from its config, and a .keras file stores the "
                "config; use save_weights(), and repeat the change before load_weights()"
            )
        frozen = [
            layer.path for layer in self._flatten_layers(include_self=False) if layer.weights and not layer.trainable
        ]
        return {"model": self.origin.model, "dtype_policy": self.origin.dtype_policy, "frozen": frozen}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the optimizer of a .keras file, and creates its variables; called by Keras."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Builds the detector of ``get_config``, with random weights."""
        del custom_objects
        return keras_files.SavedDetector.from_config(config)

    def export(self, *args: Any, **options: Any) -> None:
        """Refuses: Keras would export the raw predictions of ``__call__``.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "keras_model.export() would write raw predictions without resizing and post-processing; use detzoo export "
            "(detzoo.tasks.export) for a SavedModel or a .tflite file, or save() for a .keras file"
        )

    def _check_fit(self, options: dict[str, Any]) -> None:
        """Raises if the detector, an argument or the strategy does not go with ``fit`` and ``evaluate``."""
        for name in ("class_weight", "sample_weight"):
            if options.get(name) is not None:
                raise UsageError(
                    f"{name} is not accepted, because a loss is normalised over the batch; give "
                    '"weights" [images, objects] with the ground truth'
                )
        if self.trained_in_steps:
            raise UsageError(f"{self.name} is trained in steps, by detzoo train; fit and evaluate need one loss")
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise UsageError(
                "Keras's fit does not run under MultiWorkerMirroredStrategy, where it cannot convert per-replica "
                "values; use detzoo train --strategy multi_worker"
            )

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Creates the optimizer's variables; Keras's method would first average a batch, which may hold strings."""
        del iterator, data_batch
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        """Raises the problem of a batch that stopped the graph as a sentence, without TensorFlow's report."""
        self._keras_data.problem = ""
        try:
            yield
        except tf.errors.OpError:
            if self._keras_data.problem:
                raise DataError(self._keras_data.problem) from None
            raise

    def _mean_losses(self, shares: dict[str, Tensor], images: Tensor) -> dict[str, Any]:
        """Adds the losses of a global batch to the means. Returns the means."""
        values = all_reduce_sum(tf.stack(list(shares.values())))
        losses = {LOSS: tf.reduce_sum(values), **dict(zip(shares, tf.unstack(values), strict=True))}
        means = self._loss_means.by_name

        def create(strategy: tf.distribute.Strategy) -> None:
            with tf.init_scope(), strategy.scope():
                means.update({name: keras.metrics.Mean(name=name) for name in losses if name not in means})

        tf.distribute.get_replica_context().merge_call(create)
        with tf.control_dependencies([values]):  # nothing is counted if the input has ended
            for name, value in losses.items():
                means[name].update_state(value, sample_weight=tf.shape(images)[0])
        return {name: means[name].result() for name in losses}
