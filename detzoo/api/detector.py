"""A detector that ``detzoo.load`` returned, with what the commands do with it as methods."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np

from detzoo.api.messages import named_arguments
from detzoo.api.source import Kind
from detzoo.api.weights import label_map_of, num_classes_of, restore_whole
from detzoo.config.label_map import LabelMap
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.names import suggestion
from detzoo.config.problems import is_placeholder
from detzoo.errors import DataError, UsageError
from detzoo.folders import CONFIG_FILE
from detzoo.progress import track
from detzoo.tasks.models import InMemory, Pipeline, tiled, tiling_of, usual_batch_size
from detzoo.tasks.result import Result

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

    from detzoo.benchmark.measures import BenchmarkOptions
    from detzoo.detectors.base import Detector
    from detzoo.serving.image_detector import ImageDetector
    from detzoo.tasks.detect_images import GivenImage, Regions
    from detzoo.tasks.evaluate import Evaluation
    from detzoo.tasks.export import Exported
    from detzoo.tasks.recipes import RecipeRun
    from detzoo.tasks.train import Training

    FilePath = str | pathlib.Path
    OneImage = np.ndarray | Image.Image

    class DetectOptions(TypedDict, total=False):
        """Keyword arguments of ``LoadedDetector.detect``, which describes them."""

        score_threshold: float
        max_boxes: int | None
        batch_size: int | None
        proposals: FilePath | Sequence[np.ndarray] | None
        max_drawn_overlap: float | None
        tile: int | None
        tile_overlap: float | None


START_FOLDER = "start"  # in a model_dir: the weights that its training began with

logger = logging.getLogger(__name__)


class LoadedDetector:
    """A detector, from ``detzoo.load``.

    Args:
        source: Path or name that the user gave.
        kind: Kind of the source.
        pipeline: Config; None for an exported model without one.
        label_map: Names of the classes, if they are known.
        exported: The model of an export, a .tflite or .onnx file or an ensemble; None for a model in Keras.
        memory: The model in Keras with its weights; None to build it with random weights when it is needed.
        pretrained: Take the weights of the backbone that the config names when the model is built.

    Attributes:
        source: See above.
        label_map: ``LabelMap`` with ``names`` and ``display_names`` by id (from 1), or None.
    """

    def __init__(
        self,
        source: str,
        kind: Kind,
        pipeline: LoadedPipeline | None,
        label_map: LabelMap | None,
        *,
        exported: ImageDetector | None = None,
        memory: InMemory | None = None,
        pretrained: bool = False,
    ) -> None:
        self.source, self.label_map = source, label_map
        self._kind, self._pipeline, self._pretrained = kind, pipeline, pretrained
        self._exported, self._in_memory = exported, memory
        self._live: tuple[Any, ImageDetector] | None = None
        self._is_handed_out = False  # whether a caller may have changed the weights
        self._has_warned = False

    @property
    def config(self) -> Any:
        """The config, a ``TrainEvalPipelineConfig``. Changes of its fields take effect in later calls.

        Raises:
            UsageError: The source is a model without a pipeline.config next to it.
        """
        return self._loaded_config().message

    @property
    def class_names(self) -> dict[int, str]:
        """Class names by id (from 1), as drawn; empty if they are unknown."""
        return dict(self.label_map.display_names) if self.label_map else {}

    @property
    def step(self) -> int | None:
        """Training step of the weights, 0 if it is unknown; None for random weights and exported models."""
        return self._in_memory.step if self._in_memory and self._in_memory.source else None

    @property
    def keras_model(self) -> Detector:
        """The Keras model. If its weights change, later calls of this detector use the new ones.

        Raises:
            UsageError: The source is an exported model, which is a graph without Keras's layers.
        """
        model = self._memory().detector
        self._is_handed_out = True
        return model

    def __repr__(self) -> str:
        num_classes = len(self.label_map) if self.label_map else self._pipeline and num_classes_of(self.config.model)
        facts = [self._architecture(), *([f"{num_classes} classes"] if num_classes else []), self._state()]
        return f"LoadedDetector({self.source!r}: {', '.join(facts)})"

    @overload
    def detect(self, images: OneImage, **options: Unpack[DetectOptions]) -> Result: ...

    @overload
    def detect(self, images: Sequence[FilePath | OneImage], **options: Unpack[DetectOptions]) -> list[Result]: ...

    @overload
    def detect(self, images: Any, **options: Unpack[DetectOptions]) -> Any: ...

    def detect(self, images: Any, **options: Unpack[DetectOptions]) -> Result | list[Result]:
        """Detects objects on images.

        Args:
            images: Path of a file, an array uint8 [H, W, 3] in RGB, or a PIL image, for one result; a list of these, a
                folder (with its subfolders) or a glob for a list of results.
            **options: Keyword arguments, all of them optional:

                - score_threshold: Least score of a detection, 0 to 1.
                - max_boxes: Detections per image at most; None for 100, and 1000 with tiles.
                - batch_size: Images that run together, if the model takes several. None for 8 with a one-stage
                  detector, and 1 with others, whose memory grows much with each image.
                - proposals: Regions to classify, for a model without a first stage: the proposals.npz of `detzoo
                  proposals`, or an array float32 [R, 4] in fractions of the image for each image.
                - max_drawn_overlap: Greatest IoU of two drawn detections of a class; None for 0.5 if the detections
                  are class-agnostic masks, else 1.
                - tile: Side in pixels of the tiles in which the model gets large images, for objects that are small
                  in them; ``batch_size`` tiles run together. None for whole images.
                - tile_overlap: Least overlap of neighbouring tiles, as a share of their side; None for 0.2.

        A video file gives a list with the results of its frames, without their images; see ``detect_video``.

        Returns:
            A ``Result``, or a list with one per image, in the order of the images.

        Raises:
            DataError: An image cannot be used. Those of a folder or glob are skipped with a warning, unless no image
                is left.
            UsageError: An argument is wrong, such as an array of another shape or type.
        """
        from detzoo.tasks.detect_images import given_images, is_one_image

        with named_arguments():
            if _is_video(images):
                return [result.without_image() for result in self._frames(images, is_whole=True, **options)]
            if is_one_image(images):
                proposals = options.get("proposals")
                if isinstance(proposals, np.ndarray) and proposals.ndim == 2:
                    options["proposals"] = [proposals]
                [result] = self._detect_given(given_images(images), **options)
                return result
            given = list(given_images(images))
            if not given:
                raise UsageError("images is empty; give at least one image")
            results = track(self._detect_given(given, **options), len(given), "detect")
            found = [result.without_image() for result in results]
            if not found:
                raise DataError(f"none of the {len(given)} files could be read as an image and detected on")
            return found

    def detect_each(self, images: Any, **options: Unpack[DetectOptions]) -> Iterator[Result]:
        """Yields one result per image as ``detect`` does, with only a few images in memory at a time.

        For large folders, and for images that a generator produces. ``detect_video`` has more settings for videos.

        Args:
            images: As for ``detect``, or any iterable of paths, arrays and PIL images, which may be endless.
            **options: See ``detect``. A result is yielded when its batch is done; proposals may be any iterable.

        Raises:
            DataError: An image that is not from a folder or glob cannot be used. Earlier results were yielded.
            UsageError: An argument is wrong.
        """
        from detzoo.tasks.detect_images import given_images

        if _is_video(images):
            return self._frames(images, **options)
        return self._detect_given(given_images(images), **options)

    def detect_video(
        self,
        video: FilePath | int,
        *,
        frame_stride: int = 1,
        max_frames: int | None = None,
        track: bool = False,
        stream_timeout: float = 10.0,
        stream_retries: int = 5,
        **options: Unpack[DetectOptions],
    ) -> Iterator[Result]:
        """Yields the result of each frame of a video, a camera or a stream; the next frames are decoded meanwhile.

        Needs the extra detzoo[video]. ``detzoo.tasks.detect_video.detect_video`` writes an annotated video.

        Args:
            video: Path of a file, number of a camera, or address of a stream. Those two have no end.
            frame_stride: Detect on every n-th frame.
            max_frames: Frames to detect on at most.
            track: Number the objects with ByteTrack, in ``result.track_ids``. Needs the extra detzoo[track].
            stream_timeout: Seconds without a frame after which a camera or stream is opened again.
            stream_retries: Attempts to open it before the results end.
            **options: See ``detect``. ``batch_size`` is the most frames that run together; None for 4.

        Yields:
            A ``Result`` whose ``image_id`` is the number of the frame, from 1, and whose ``seconds`` is its time.

        Raises:
            DataError: The video cannot be opened or has no frame, or a stream broke off for good.
            UsageError: An argument is wrong, or a package is missing.
        """
        from detzoo.tasks.detect_video import VideoOptions, frames_of

        with named_arguments():
            batch_size = options.pop("batch_size", None)
            chosen = VideoOptions(batch_size, frame_stride, max_frames, track, stream_timeout, stream_retries)
            results = frames_of(self._detector(), str(video), self._names(), chosen, **options)
            return _with_named_arguments(results)

    def train(
        self,
        config: Pipeline | None = None,
        *,
        model_dir: FilePath,
        overrides: Sequence[str] = (),
        num_train_steps: int | None = None,
        checkpoint_every_n: int | None = None,
        strategy: str = "auto",
        record_summaries: bool = True,
        allow_random_weights: bool = False,
    ) -> Training | RecipeRun:
        """Trains as `detzoo train` does; afterwards this detector is the trained one.

        A run that ``model_dir`` holds is resumed. A new one starts with the weights of this detector, unless the given
        config names a ``fine_tune_checkpoint``; with random weights it starts as the config describes.

        Args:
            config: Name, path or loaded config; None for the config of this detector.
            model_dir: Folder for checkpoints, TensorBoard's events, pipeline.config and run.json.
            overrides: Changes of single config fields, such as "train_config.batch_size=16".
            num_train_steps: Steps in total; None for ``train_config.num_steps``.
            checkpoint_every_n: Steps between checkpoints; None for ``train_config.checkpoint_every_n_steps``.
            strategy: "auto", "one_device", "mirrored" or "multi_worker".
            record_summaries: Write TensorBoard's events.
            allow_random_weights: Train from random weights if ImageNet's are not available, rather than raise.

        Returns:
            The step that was reached, and the reason of the end.

        Raises:
            ConfigError: The config has errors or paths that are not set; all are listed.
            UsageError: The number of steps is missing, or the folder cannot be used.
            KeyboardInterrupt: Ctrl-C ended the training; a checkpoint is saved.
        """
        from detzoo.tasks.models import load_checked
        from detzoo.tasks.recipes import train_spp_net
        from detzoo.tasks.train import train

        counts: dict[str, Any] = {"num_train_steps": num_train_steps, "checkpoint_every_n": checkpoint_every_n}
        with named_arguments():
            loaded = load_checked(self._loaded_config() if config is None else config, overrides)
            if loaded.message.model.HasField("spp_net"):
                run = train_spp_net(loaded, model_dir, strategy=strategy, **counts)
                if run.made is not None:
                    self._become(model_dir)
                return run
            self._set_start(loaded.message.train_config, pathlib.Path(model_dir), is_own=config is None)
            training = train(
                loaded,
                model_dir,
                strategy=strategy,
                record_summaries=record_summaries,
                allow_random_weights=allow_random_weights,
                **counts,
            )
            self._become(model_dir)
            return training

    def evaluate(
        self,
        config: Pipeline | None = None,
        *,
        recompute_batch_norm: int | None = None,
        **options: Any,
    ) -> Evaluation:
        """Measures this detector on evaluation data as `detzoo evaluate` does.

        Args:
            config: Config whose first eval_input_reader has the data; None for the config of this detector.
            recompute_batch_norm: Number of training batches from which the moving statistics of batch normalization
                are computed; None for the statistics of the model.
            **options: Other arguments of ``detzoo.tasks.evaluate.evaluate``: output_dir, overrides, combine_with,
                on_train_data, compare_with, tile and tile_overlap.

        Returns:
            An ``Evaluation``: ``metrics["mAP"]`` and the other metrics by name, the detections of every image, and
            ``report``, the path of report.html.

        Raises:
            ConfigError: The config has errors, or names no evaluation data.
            DataError: The data cannot be read, or the other evaluation has other images.
        """
        from detzoo.tasks.evaluate import evaluate

        with named_arguments():
            pipeline = self._loaded_config() if config is None else config
            model: dict[str, Any] = {"saved_model": self._exported}
            if self._exported is None:
                model = {"checkpoint_dir": self._to_measure(recompute_batch_norm)}
            return evaluate(pipeline, recompute_batch_norm=recompute_batch_norm, **model, **options)

    def export(
        self, output_directory: FilePath, *, recompute_batch_norm: int | None = None, **options: Any
    ) -> Exported:
        """Exports this detector as `detzoo export` does.

        Args:
            output_directory: Folder for the model, its config, label map and record.
            recompute_batch_norm: Number of training batches from which the moving statistics of batch normalization
                are computed; None for the statistics of the model.
            **options: Other arguments of ``detzoo.tasks.export.export``: overrides, format, input_type, optimize_for,
                quantize, representative_data, max_detections, nms, tf1_names and check.

        Returns:
            An ``Exported``: ``path`` of the SavedModel or file, which ``detzoo.load`` takes.

        Raises:
            ConfigError: The format does not support the model.
            UsageError: This detector is an exported model already, or an argument is wrong.
            DetzooError: The exported model disagrees with the detector; an earlier export stays unchanged.
        """
        from detzoo.tasks.export import export

        with named_arguments():
            weights = self._to_measure(recompute_batch_norm)
            options["recompute_batch_norm"] = recompute_batch_norm
            return export(self._loaded_config(), weights, output_directory, **options)

    def benchmark(
        self, *, batch_sizes: Sequence[int] = (1,), options: BenchmarkOptions | None = None, **changes: Any
    ) -> list[dict[str, Any]]:
        """Measures latency, memory, parameters and multiply-adds as `detzoo benchmark` does.

        Threads and devices are chosen once per process, before TensorFlow starts; use the command to choose them.

        Args:
            batch_sizes: Images per call; each has a separate result.
            options: Settings of the measurement; None for those of the command.
            **changes: Single settings, the fields of ``BenchmarkOptions``, such as ``runs=20, image_shape=(480, 640)``.

        Returns:
            A dict per batch size, such as ``result["latency"]["median_ms"]``.

        Raises:
            UsageError: A setting is unknown or wrong, or this detector is a .tflite file or an ensemble.
        """
        from detzoo.serving.saved_detector import SavedDetector
        from detzoo.tasks.benchmark import DEFAULT_OPTIONS, benchmark, usual_proposals

        with named_arguments():
            known = {field.name for field in dataclasses.fields(DEFAULT_OPTIONS)}
            for name in changes.keys() - known:
                raise UsageError(f"{name} is no setting of a benchmark{suggestion(name, known)}")
            if self._exported is not None:
                if not isinstance(self._exported, SavedDetector):
                    raise UsageError(
                        f"{self.source} is {_with_article(self._kind.value)}; a benchmark takes a SavedModel"
                    )
                model: dict[str, Any] = {"saved_model": self._exported.folder}
            else:
                changes = {"num_proposals": usual_proposals(self.config), **changes}
                weights = self._memory() if self.step is not None or self._is_handed_out else None
                model = {"pipeline": self._loaded_config(), "trained_checkpoint_dir": weights}
            options = dataclasses.replace(options or DEFAULT_OPTIONS, **changes)
            return list(benchmark(options=options, batch_sizes=batch_sizes, **model))

    def _become(self, model_dir: FilePath) -> None:
        """Takes over the config and the weights of a training."""
        pipeline = load_pipeline(str(pathlib.Path(model_dir) / CONFIG_FILE))
        memory, label_map = restore_whole(pipeline, str(model_dir)), label_map_of(pipeline.message)
        self.__init__(  # type: ignore[misc]
            str(model_dir), Kind.CHECKPOINT, pipeline, label_map, memory=memory
        )

    def _loaded_config(self) -> LoadedPipeline:
        if self._pipeline is None:
            raise UsageError(f"{self.source} has no pipeline.config next to it: give config=...")
        return self._pipeline

    def _architecture(self) -> str:
        if self._pipeline is None:
            return "detector"
        model = self._pipeline.message.model
        kind = str(model.WhichOneof("model"))
        extractor = getattr(getattr(model, kind), "feature_extractor", None)
        return f"{kind} with {extractor.type}" if extractor and extractor.type else kind

    def _state(self) -> str:
        """Describes the weights."""
        if self._exported is not None:
            return self._kind.value
        if self.step is None:
            return "weights in memory" if self._is_handed_out else "random weights"
        return f"step {self.step}" if self.step else f"weights of {self._in_memory}"

    def _memory(self) -> InMemory:
        """Returns the model in Keras: built when it is first needed, and again if the config's model has changed."""
        from detzoo.builders.detector import build_detector
        from detzoo.tasks.models import build_untrained, restored

        if self._exported is not None:
            raise UsageError(
                f"{self.source} is {_with_article(self._kind.value)}, a graph without layers and training: load the "
                "model_dir or checkpoint that it was made from"
            )
        model = self.config.model
        if self._in_memory is None:
            build = build_detector if self._pretrained else build_untrained
            self._in_memory = InMemory(build(model), copy.deepcopy(model), source="")
        elif self._in_memory.model != model:
            detector, _ = restored(model, self._in_memory)
            self._in_memory = self._in_memory._replace(detector=detector, model=copy.deepcopy(model))
        return self._in_memory

    def _to_measure(self, recompute_batch_norm: int | None) -> InMemory:
        """Returns the model, or if its statistics are recomputed a model to be made with its weights."""
        memory = self._memory()
        return memory._replace(model=None) if recompute_batch_norm else memory

    def _detector(self) -> ImageDetector:
        if self._exported is not None:
            return self._exported
        memory = self._memory()
        if self._live is None or self._live[0] is not memory.detector:
            from detzoo.builders.resize import build_model_resizer
            from detzoo.config.stages import keypoint_edges
            from detzoo.serving.live_detector import LiveDetector

            live = LiveDetector(memory.detector, build_model_resizer(memory.model))
            live.keypoint_edges = keypoint_edges(self.config.eval_config) if self._pipeline else ()
            self._live = memory.detector, live
        return self._live[1]

    def _detect_given(
        self,
        images: Iterable[GivenImage],
        *,
        batch_size: int | None = None,
        proposals: Any = None,
        tile: int | None = None,
        tile_overlap: float | None = None,
        **limits: Any,
    ) -> Iterator[Result]:
        """Checks the options at once, and yields the results."""
        from detzoo.tasks.detect import choose_limits
        from detzoo.tasks.detect_images import detect_each

        with named_arguments():
            if batch_size is not None and batch_size < 1:
                raise UsageError(f"batch_size is {batch_size}; accepted: 1 or more")
            tiling, detector, names = tiling_of(tile, tile_overlap), self._detector(), self._names()
            chosen = choose_limits(detector, names, tiling, **limits)
            regions = _regions(detector, proposals)
            batch_size = batch_size or usual_batch_size(self._pipeline and self.config.model)
            if tiling:
                detector, batch_size = tiled(detector, tiling, batch_size), 1
        return _with_named_arguments(detect_each(detector, images, names, chosen, batch_size, regions))

    def _frames(
        self, video: FilePath, proposals: Any = None, is_whole: bool = False, **options: Any
    ) -> Iterator[Result]:
        """Returns the results of a video that was given in place of images."""
        from detzoo.files.video import find_videos

        if proposals is not None:
            raise UsageError("proposals go with images; a video has none")
        if is_whole and find_videos([str(video)])[0].path is None:
            raise UsageError("images is the address of a stream, which may have no end; detect_video yields its frames")
        return self.detect_video(video, **options)

    def _names(self) -> Mapping[int, str]:
        if self.label_map is None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s has no label map, so classes are named by their ids; load(..., label_map=FILE) names them",
                self.source,
            )
        return self.class_names

    def _set_start(self, train_config: Any, model_dir: pathlib.Path, is_own: bool) -> None:
        """Lets a new training start with the weights of this detector."""
        named = train_config.fine_tune_checkpoint
        if self._in_memory is None or (self.step is None and not self._is_handed_out):
            return
        if named and not is_own and not is_placeholder(named):
            return
        from detzoo.train.saving import saved_prefixes

        if saved_prefixes(model_dir):
            return
        train_config.fine_tune_checkpoint = self._in_memory.source
        if self._is_handed_out:
            from detzoo.checkpoints.layout import save_weights

            train_config.fine_tune_checkpoint = save_weights(self._in_memory.detector, model_dir / START_FOLDER)
        train_config.fine_tune_checkpoint_type = "fine_tune"


def _is_video(images: Any) -> bool:
    from detzoo.files.video import is_video

    return isinstance(images, str | os.PathLike) and is_video(os.fspath(images)) and not os.path.isdir(images)


def _with_named_arguments(results: Iterable[Result]) -> Iterator[Result]:
    with named_arguments():
        yield from results


def _regions(detector: ImageDetector, proposals: Any) -> Regions | None:
    """Returns the function from an image and its shape to its regions, None for a detector that takes none."""
    from detzoo.tasks.detect import proposals_table

    if proposals is None or isinstance(proposals, str | os.PathLike) or not detector.wants_proposals:
        return proposals_table(detector, None if proposals is None else str(proposals))
    remaining = iter(proposals)

    def next_one(image: GivenImage, shape: tuple[int, int]) -> np.ndarray:
        del shape
        regions = next(remaining, None)
        if regions is None:
            raise UsageError(f"proposals ends before {image.name}; give one array per image")
        return np.asarray(regions, np.float32).reshape(-1, 4)

    return next_one


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
