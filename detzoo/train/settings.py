"""Settings of the training loop as plain values, read from a ``TrainConfig``."""

from __future__ import annotations

import dataclasses
from typing import Any

from detzoo.config.batch_norm import recomputed_batches
from detzoo.config.check.training import chosen_schedule

# Fields of ``TrainConfig`` that ``TrainSettings`` takes as they are.
_SAME_NAMES = (
    *("num_steps", "batch_size", "seed", "checkpoint_every_n_steps", "eval_every_n_steps", "best_checkpoint_metric"),
    *("keep_checkpoint_max", "keep_checkpoint_every_n_hours", "add_regularization_loss"),
    "gradient_accumulation_steps",
)
_POLICIES = {"FLOAT32": "float32", "BFLOAT16": "mixed_bfloat16", "FLOAT16": "mixed_float16"}


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Rule to act if ``metric`` rises by less than ``min_delta`` for ``patience_evaluations`` evaluations."""

    patience_evaluations: int
    min_delta: float = 0.0
    metric: str = "mAP"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Settings of a run."""

    num_steps: int  # total number of steps, those of earlier sessions included
    batch_size: int  # images of a global batch, over all replicas
    seed: int = 0  # seed of the data order and of augmentation
    log_every_n_steps: int = 100  # interval of TensorBoard events, and of printed lines if stderr is no terminal
    checkpoint_every_n_steps: int = 1000  # interval of checkpoints
    keep_checkpoint_max: int = 5  # number of checkpoints to keep, in addition to the best one
    keep_checkpoint_every_n_hours: float | None = None  # interval of checkpoints that are kept permanently
    eval_every_n_steps: int = 0  # interval of evaluations; 0 for none
    best_checkpoint_metric: str = "mAP"  # metric that selects the checkpoint in ``model_dir/best``
    early_stopping: EarlyStopping | None = None  # rule for early stopping; None for off
    plateau: EarlyStopping | None = None  # rule by which the learning rate falls; None for other schedules
    gradient_clipping_norm: float = 0.0  # upper bound of the global norm of all gradients; 0 for none
    bias_gradient_multiplier: float = 0.0  # factor of the gradients of biases; 0 counts as 1
    add_regularization_loss: bool = True  # add the detector's weight regularisation to the loss
    moving_average_decay: float | None = None  # decay of the moving average of weights; None for no average
    float16_loss_scaling: bool = False  # compute gradients of a scaled loss
    gradient_accumulation_steps: int = 1  # parts of a replica's batch that are computed one after another
    # Regular expressions; if there are any, only variables with a matching path train.
    update_variables: tuple[str, ...] = ()
    freeze_variables: tuple[str, ...] = ()  # regular expressions; variables with a matching path do not train
    # Training batches from which the statistics of batch normalization are computed before each evaluation and
    # checkpoint; 0 for moving averages alone.
    recompute_batch_norm_batches: int = 0


def settings_from_config(config: Any, moving_average_decay: float | None) -> TrainSettings:
    """Returns the settings of a ``TrainConfig``, with the result of ``builders.optimizer.moving_average_decay``."""
    schedule = chosen_schedule(config.optimizer)[1]
    return TrainSettings(
        **{name: getattr(config, name) for name in _SAME_NAMES},
        log_every_n_steps=max(1, config.log_every_n_steps),
        early_stopping=_rule(config.early_stopping) if config.HasField("early_stopping") else None,
        plateau=_rule(schedule) if hasattr(schedule, "patience_evaluations") else None,
        gradient_clipping_norm=config.gradient_clipping_by_norm,
        bias_gradient_multiplier=config.bias_grad_multiplier,
        moving_average_decay=moving_average_decay,
        float16_loss_scaling=dtype_policy_of(config) == "mixed_float16",
        update_variables=tuple(config.update_trainable_variables),
        freeze_variables=tuple(config.freeze_variables),
        recompute_batch_norm_batches=recomputed_batches(config),
    )


def _rule(message: Any) -> EarlyStopping:
    return EarlyStopping(message.patience_evaluations, message.min_delta, message.metric)


def dtype_policy_of(config: Any) -> str:
    """The Keras dtype policy that a ``TrainConfig`` asks for; ``use_bfloat16`` is the original API's word for one."""
    chosen = config.MixedPrecision.Name(config.mixed_precision)
    if chosen == "FLOAT32" and config.use_bfloat16:
        return "mixed_bfloat16"
    return _POLICIES[chosen]


def precision_warning(dtype_policy: str, has_gpu: bool) -> str | None:
    """Returns a warning if the devices compute a precision slowly, else None."""
    if dtype_policy == "mixed_float16" and not has_gpu:
        # Measured with the quickstart's detector on an AVX-512 CPU: 2.4 images/s against 110.
        return "mixed_precision FLOAT16 is some 40 times slower than FLOAT32 on a CPU, which has no float16 arithmetic"
    return None


def fine_tune_type_of(config: Any) -> str:
    """Returns ``fine_tune_checkpoint_type``, derived from the fields of older configs if it is empty."""
    if config.fine_tune_checkpoint_type:
        return config.fine_tune_checkpoint_type
    return "detection" if config.from_detection_checkpoint and not config.load_all_detection_checkpoint_vars else "full"
