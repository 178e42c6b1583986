"""The pipeline.config of a project: a config that comes with detzoo, fitted to data and machine (no TensorFlow).

facts = DataFacts(num_classes=3, num_train_images=160, ...)
message, comments = fitted(loaded, facts, "none", memory_bytes=8 * 2**30)
text = commented_text(message, comments)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from detzoo.config import pb, stages
from detzoo.config.batch_norm import extractor_of
from detzoo.config.check.parts import input_size
from detzoo.config.check.readers import MASK_METRICS
from detzoo.config.check.training import chosen_schedule, peak_learning_rate
from detzoo.config.comments import comments_of
from detzoo.config.load import LoadedPipeline
from detzoo.config.problems import Problem
from detzoo.folders import LABEL_MAP_FILE

WEIGHTS = ("zoo", "imagenet", "none")
RECORDS_FOLDER = "records"  # in a project
LEAST_STEPS_PER_EPOCH = 10  # of data sets of 80 images and more
SMALL_BATCH = 8  # images, which smaller data sets have, too
LEAST_IMAGES_SEEN, LEAST_EPOCHS, MOST_EPOCHS = 32_000, 50, 300
EVALUATIONS, PATIENCE = 10, 5  # of a training; without improvement before it stops
WARM_UP_SHARE = 0.05  # of the steps
WARM_UP_FACTOR = 0.1  # of the rate, at the first step
AVERAGED_SHARE = 0.1  # of the steps, over which weights are averaged at most
# Memory of a training step per pixel of its images. Measured: 0.6 KB for custom_ssd_mobilenet_v1_fpn_160, 1.4 KB for
# ssd_mobilenet_v2_fpnlite_320, 2.4 KB for ssd_resnet50_v1_fpn_640; deeper backbones need more.
BYTES_PER_PIXEL = 4096
USUAL_PIXELS = 600 * 1024  # of configs whose input follows the image
MEMORY_SHARE = 0.5  # of the available memory, for the activations of a step
NUM_BATCH_NORM_BATCHES = 50


class DataFacts(NamedTuple):
    """The records of a project."""

    num_classes: int  # highest id of the label map
    num_train_images: int  # images to train on
    most_objects: int  # objects of the fullest image
    with_masks: bool  # the records have masks
    paths: dict[str, str]  # ``input_path`` by split: "train", "val" and perhaps "test"
    label_map_path: str = f"{RECORDS_FOLDER}/{LABEL_MAP_FILE}"  # path of the label map


def batch_size_for(num_images: int, base_batch_size: int, bytes_per_image: int, memory_bytes: int) -> int:
    """Returns a power of two: the largest batch that leaves ten steps per epoch and fits into half of the memory.

    Args:
        num_images: Images to train on.
        base_batch_size: Batch of the published training, never exceeded.
        bytes_per_image: Memory that one image of a batch needs in training.
        memory_bytes: Available memory.
    """
    of_data = min(num_images, max(SMALL_BATCH, num_images // LEAST_STEPS_PER_EPOCH))
    most = min(of_data, base_batch_size, int(memory_bytes * MEMORY_SHARE) // bytes_per_image)
    return 2 ** int(math.log2(max(1, most)))


def num_steps_for(num_images: int, batch_size: int) -> int:
    """Returns the steps for 32,000 images seen, but 50 to 300 epochs, rounded up to 10."""
    seen = min(max(LEAST_IMAGES_SEEN, LEAST_EPOCHS * num_images), MOST_EPOCHS * num_images)
    return math.ceil(seen / batch_size / 10) * 10


def rate_factor_for(batch_size: int, base_batch_size: int, is_momentum: bool) -> float:
    """Returns the factor of the learning rate: linear in the batch for SGD with momentum, else its square root.

    Adam and RMSProp divide by the size of the gradient, so that their steps do not grow with the noise of small
    batches.
    """
    ratio = batch_size / base_batch_size
    return ratio if is_momentum else math.sqrt(ratio)


def bytes_per_image(model: pb.DetectionModel) -> int:
    """Returns the memory that one image of a batch needs in training, an upper estimate."""
    kind = getattr(model, str(model.WhichOneof("model")))
    if model.HasField("spp_classifier"):
        return kind.crop_size**2 * BYTES_PER_PIXEL
    size = input_size(kind.image_resizer)
    return (size.height * size.width if size is not None else USUAL_PIXELS) * BYTES_PER_PIXEL


def fitted(
    base: LoadedPipeline, name: str, facts: DataFacts, weights: str, archive: str, memory_bytes: int, has_gpu: bool
) -> tuple[pb.TrainEvalPipelineConfig, dict[str, str]]:
    """Fits a config to the data of a project.

    Args:
        base: Config that comes with detzoo.
        name: Its name, for comments.
        facts: Records of the project.
        weights: One of ``WEIGHTS``.
        archive: Path of the zoo's checkpoint, for "zoo".
        memory_bytes: Memory of the device that trains.
        has_gpu: The device is a GPU.

    Returns:
        The message, and comments by field path.
    """
    message = pb.TrainEvalPipelineConfig()
    message.CopyFrom(base.message)
    kept = {path: text for path, text in comments_of(base).items() if path.startswith("model.")}
    changed = _fit_model(message.model, facts, weights)
    comments = {path: text for path, text in kept.items() if path not in changed} | changed
    comments |= _fit_training(message, name, facts, memory_bytes, has_gpu)
    if weights == "zoo":
        message.train_config.fine_tune_checkpoint = archive
        message.train_config.fine_tune_checkpoint_type = "fine_tune"
        comments["train_config.fine_tune_checkpoint"] = "trained on COCO; downloaded when a training starts"
        comments["train_config.fine_tune_checkpoint_type"] = "all weights that do not depend on the classes"
    return message, comments | _set_readers(message, facts)


def add_recomputed_statistics(training: pb.TrainConfig, problems: list[Problem]) -> dict[str, str]:
    """Adds ``recompute_batch_norm`` if the check reports statistics that the training is too short for."""
    if not any(problem.code == "initial-statistics" for problem in problems):
        return {}
    training.recompute_batch_norm.num_batches = NUM_BATCH_NORM_BATCHES
    text = "moving averages alone would not arrive in num_steps; see docs/batch_norm.md"
    return {"train_config.recompute_batch_norm": text}


def _fit_model(model: pb.DetectionModel, facts: DataFacts, weights: str) -> dict[str, str]:
    """Sets classes and initial weights. Returns the comments of the changed fields."""
    kind = str(model.WhichOneof("model"))
    getattr(model, kind).num_classes = facts.num_classes
    comments = {f"model.{kind}.num_classes": f"highest id of {facts.label_map_path}"}
    extractor = extractor_of(model)
    if extractor is None or weights == "imagenet":
        return comments
    path, features, _ = extractor
    features.ClearField("pretrained_weights")
    if weights == "none":  # Frozen parts would stay random.
        features.ClearField("freeze_backbone")
        if model.HasField("ssd") and model.ssd.freeze_batchnorm:
            model.ssd.freeze_batchnorm = False
            comments["model.ssd.freeze_batchnorm"] = "from random weights, statistics have to be learned"
        if not model.HasField("ssd") and not features.batch_norm_trainable:
            features.batch_norm_trainable = True
            comments[f"{path}.batch_norm_trainable"] = "from random weights, statistics have to be learned"
    return comments


def _fit_training(
    message: pb.TrainEvalPipelineConfig, name: str, facts: DataFacts, memory_bytes: int, has_gpu: bool
) -> dict[str, str]:
    """Sets batch, schedule, evaluations and stopping. Returns comments."""
    training, here = message.train_config, "train_config"
    base_batch, base_steps = max(1, training.batch_size), training.num_steps
    batch = batch_size_for(facts.num_train_images, base_batch, bytes_per_image(message.model), memory_bytes)
    steps = num_steps_for(facts.num_train_images, batch)
    training.batch_size, training.num_steps = batch, steps
    training.eval_every_n_steps = training.checkpoint_every_n_steps = math.ceil(steps / EVALUATIONS)
    training.log_every_n_steps = min(50, training.eval_every_n_steps)
    training.early_stopping.patience_evaluations = PATIENCE
    training.max_number_of_boxes = max(training.max_number_of_boxes, facts.most_objects)
    unset = ["fine_tune_checkpoint", "fine_tune_checkpoint_type", "freeze_variables", "update_trainable_variables"]
    unset += [] if has_gpu else ["use_bfloat16", "mixed_precision"]  # which few CPUs have in hardware
    for field in unset:
        training.ClearField(field)
    if not training.data_augmentation_options:
        training.data_augmentation_options.add().random_horizontal_flip.SetInParent()
    epochs = steps * batch / facts.num_train_images
    fraction = f" {base_batch} in {name}" if base_batch != batch else ""
    comments = {
        f"{here}.batch_size": f"images per step, by the memory and the number of images;{fraction}".rstrip(";"),
        f"{here}.num_steps": f"{epochs:.0f} epochs of {facts.num_train_images} images"
        + (f"; {base_steps} in {name}" if base_steps != steps else ""),
        f"{here}.eval_every_n_steps": "evaluate on the val records; the checkpoint with the best mAP is kept",
        f"{here}.early_stopping": "end a training that no longer improves",
        f"{here}.data_augmentation_options": "random changes of images and boxes, in this order",
    }
    return comments | _fit_optimizer(training, name, batch, base_batch)


def _fit_optimizer(training: pb.TrainConfig, name: str, batch: int, base_batch: int) -> dict[str, str]:
    """Sets a cosine schedule of the training's length, with the config's peak rate scaled to the batch."""
    schedule = chosen_schedule(training.optimizer)[1]
    peak = peak_learning_rate(schedule)
    optimizer = str(training.optimizer.WhichOneof("optimizer"))
    factor = rate_factor_for(batch, base_batch, optimizer == "momentum_optimizer")
    rates = getattr(training.optimizer, optimizer).learning_rate
    cosine, steps = pb.CosineDecayLearningRate(), training.num_steps
    cosine.learning_rate_base = float(f"{peak * factor:.3g}")
    cosine.warmup_learning_rate = float(f"{peak * factor * WARM_UP_FACTOR:.3g}")
    cosine.total_steps, cosine.warmup_steps = steps, math.ceil(steps * WARM_UP_SHARE)
    rates.cosine_decay_learning_rate.CopyFrom(cosine)
    if training.optimizer.use_moving_average:
        fitting = 1 - 1 / max(1.0, steps * AVERAGED_SHARE)
        training.optimizer.moving_average_decay = min(training.optimizer.moving_average_decay, round(fitting, 4))
    here = f"train_config.optimizer.{optimizer}.learning_rate.cosine_decay_learning_rate"
    scaled = f"{peak:.3g} for {base_batch} images in {name}" if factor != 1 else f"as in {name}"
    return {f"{here}.learning_rate_base": scaled, f"{here}.total_steps": "as num_steps; change both together"}


def _set_readers(message: pb.TrainEvalPipelineConfig, facts: DataFacts) -> dict[str, str]:
    """Replaces the readers by those of the project's records, and sets the metrics. Returns comments."""
    model = message.model
    reads_masks = stages.has_mask_head(model)
    del message.eval_input_reader[:]
    message.ClearField("train_input_reader")
    train, held_out = message.train_input_reader, message.eval_input_reader.add(shuffle=False, num_epochs=1)
    for reader, split in ((train, "train"), (held_out, "val")):
        reader.label_map_path = facts.label_map_path
        reader.tf_record_input_reader.input_path.append(facts.paths[split])
        if reads_masks:
            reader.load_instance_masks = True
    held_out.max_number_of_boxes = max(held_out.max_number_of_boxes, facts.most_objects)
    evaluation = message.eval_config
    del evaluation.metrics_set[:]
    if not model.HasField("spp_classifier"):
        evaluation.metrics_set.extend(["coco_detection_metrics", *([MASK_METRICS] if reads_masks else [])])
    comments = {
        "train_input_reader.label_map_path": "paths are relative to the current folder, else to that of this file",
    }
    if "test" in facts.paths:
        path = "eval_input_reader[0].tf_record_input_reader.input_path"
        comments[path] = f"the test records: {facts.paths['test']}"
    return comments
