"""What the training loop needs to know, as plain values; read from a ``TrainConfig`` by the command line."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when ``metric`` has not risen by more than ``min_delta`` for ``patience_evaluations`` evaluations."""

    patience_evaluations: int
    min_delta: float = 0.0
    metric: str = "mAP"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """A run, beside the objects it trains.

    Attributes:
        num_steps: Steps in total, those of earlier sessions included.
        batch_size: Images of a global batch, over all replicas.
        seed: Of the order of the data and of augmentation.
        log_every_n_steps: Interval of TensorBoard events, and of printed lines where stderr is no terminal.
        checkpoint_every_n_steps: At most this many steps are lost when the process is killed.
        keep_checkpoint_max: Checkpoints kept, beside the best one.
        keep_checkpoint_every_n_hours: A checkpoint of this interval is kept for ever.
        eval_every_n_steps: Interval of evaluations; 0 for none.
        best_checkpoint_metric: Which number decides what is kept in ``model_dir/best``.
        early_stopping: None for off.
        gradient_clipping_norm: Upper bound of the global norm of all gradients; 0 for none.
        bias_gradient_multiplier: Factor of the gradients of biases; 0 counts as 1.
        add_regularization_loss: Whether the detector's weight regularisation is part of the loss.
        moving_average_decay: Of the weights' moving average; None for no average.
        float16_loss_scaling: Whether gradients are computed on a scaled loss.
        update_variables: Regular expressions; where there are any, only variables whose path one of them finds train.
        freeze_variables: Regular expressions; variables whose path one of them finds do not train.
    """

    num_steps: int
    batch_size: int
    seed: int = 0
    log_every_n_steps: int = 100
    checkpoint_every_n_steps: int = 1000
    keep_checkpoint_max: int = 5
    keep_checkpoint_every_n_hours: float | None = None
    eval_every_n_steps: int = 0
    best_checkpoint_metric: str = "mAP"
    early_stopping: EarlyStopping | None = None
    gradient_clipping_norm: float = 0.0
    bias_gradient_multiplier: float = 0.0
    add_regularization_loss: bool = True
    moving_average_decay: float | None = None
    float16_loss_scaling: bool = False
    update_variables: tuple[str, ...] = ()
    freeze_variables: tuple[str, ...] = ()
