"""The detector that the tests of training train: three layers, on images made from their record's number."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import unittest.mock

import keras
import tensorflow as tf

from detzoo.contracts import Batch, Groundtruth, LossTerm, Predictions
from detzoo.detectors.base import Detector
from detzoo.layers.normalization import BatchNorm
from detzoo.train.settings import TrainSettings

HEIGHT, WIDTH, CLASSES = 16, 24, 3


class TrainingToy(Detector):
    """Says for each cell of 8 x 8 pixels where its box is and which class it has; a cell matches by its class."""

    def __init__(self, num_classes=CLASSES, batch_norm=False, l2=0.0, channels=4):
        super().__init__(num_classes, (HEIGHT, WIDTH), name="toy")
        regularizer = keras.regularizers.L2(l2) if l2 else None
        image = keras.Input((HEIGHT, WIDTH, 3))
        with keras.name_scope("backbone"):
            x = keras.layers.Conv2D(channels, 8, 8, name="stem", kernel_regularizer=regularizer)(image)
            if batch_norm:
                x = BatchNorm(train_statistics=batch_norm != "frozen", name="norm")(x)
            x = keras.layers.Activation("relu", name="relu")(x)
        with keras.name_scope("head"):
            deltas = keras.layers.Conv2D(4, 1, name="boxes", dtype="float32")(x)
            logits = keras.layers.Conv2D(num_classes, 1, name="classes", dtype="float32")(x)
        deltas = keras.layers.Reshape((-1, 4), name="box_rows", dtype="float32")(deltas)
        logits = keras.layers.Reshape((-1, num_classes), name="class_rows", dtype="float32")(logits)
        self.network = keras.Model(image, [deltas, logits], name="network")
        self.built = True

    def preprocess(self, images):
        return tf.cast(images, tf.float32) / 127.5 - 1.0

    def forward(self, inputs, training=False, **context):
        deltas, logits = self.network(inputs, training=training)
        return Predictions(deltas, logits, tf.zeros([logits.shape[1], 4]))

    def loss_terms(self, predictions, groundtruth):
        """Returns losses whose target in every cell is the first box and class of its image.

        The normalizer is the number of objects.
        """
        wanted = tf.one_hot(groundtruth.classes[:, :1], self.num_classes)
        squares = tf.square(predictions.box_deltas - groundtruth.boxes_norm[:, :1])
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.broadcast_to(wanted, tf.shape(predictions.class_logits)), predictions.class_logits
        )
        objects = tf.reduce_sum(groundtruth.weights)
        return {
            "localization": LossTerm(tf.reduce_sum(squares), objects),
            "classification": LossTerm(tf.reduce_sum(entropy), objects),
        }


def make_dataset(batch_size, num_records=None):
    """A factory: an image and one to three boxes that are a function of the record's number alone."""

    def example(index):
        seed = tf.stack([tf.constant(5, tf.int64), index])
        images = tf.random.stateless_uniform([HEIGHT, WIDTH, 3], seed, 0.0, 255.0)
        count = tf.cast(index % 3 + 1, tf.int32)
        exists = tf.range(3) < count
        boxes = tf.random.stateless_uniform([3, 4], seed) * tf.cast(exists, tf.float32)[:, tf.newaxis]
        groundtruth = Groundtruth(
            boxes_norm=boxes,
            classes=tf.where(exists, tf.cast(index % CLASSES, tf.int32), -1),
            weights=tf.cast(exists, tf.float32),
            is_crowd=tf.zeros([3], tf.bool),
            is_difficult=tf.zeros([3], tf.bool),
            area_px=tf.zeros([3]),
            masks=tf.zeros([3, 0, 0], tf.uint8),
        )
        shape = tf.constant([HEIGHT, WIDTH])
        return Batch(images, shape, shape, tf.strings.as_string(index), index, groundtruth)

    def factory(start_record, context):
        end = tf.int64.max if num_records is None else num_records
        records = tf.data.Dataset.range(start_record, end)
        records = records.filter(lambda i: i % context.num_input_pipelines == context.input_pipeline_id)
        per_replica = batch_size // context.num_replicas_in_sync
        options = tf.data.Options()
        options.autotune.enabled = False  # the end of an iterator may wait long for the tuning thread
        return records.map(example).batch(per_replica, drop_remainder=True).with_options(options)

    return factory


def settings(**changes):
    values = {"num_steps": 20, "batch_size": 4, "log_every_n_steps": 5, "checkpoint_every_n_steps": 5}
    return TrainSettings(**(values | changes))


def make_trainer(strategy, run=None, optimizer=None, num_records=None, **toy):
    from detzoo.train.trainer import Trainer

    run = run or settings()
    keras.utils.set_random_seed(3)
    with strategy.scope():
        detector = TrainingToy(**toy)
        optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.05, momentum=0.9)
    arguments = (detector, make_dataset(run.batch_size, num_records), optimizer, strategy, run)
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        from detzoo.train.asynchronous import AsynchronousTrainer

        return AsynchronousTrainer(tf.distribute.coordinator.ClusterCoordinator(strategy), *arguments)
    return Trainer(*arguments)


def run_to_end(model_dir, strategy, run=None, evaluate=None, stop=None, **trainer):
    """A whole session: resumes, trains, returns (trainer, outcome)."""
    from detzoo.train.loop import TrainingLoop
    from detzoo.train.stop import StopRequest

    made = make_trainer(strategy, run, **trainer)
    loop = TrainingLoop(made, model_dir, evaluate, stop or StopRequest())
    loop.checkpoints.restore_latest()
    return made, loop.run()


class ShardEvaluator:
    """Evaluator whose mAP has the number of each of five records as its digit, in the order of the images."""

    def __init__(self, strategy):
        from detzoo.train.shared_evaluation import own_share

        self.share = own_share(strategy)

    def detect_shard(self, detector):
        numbers = range(self.share.input_pipeline_id, 5, self.share.num_input_pipelines)
        if int(os.environ.get("FAILING_WORKER", -1)) == self.share.input_pipeline_id:
            raise ValueError("no detections")
        return [(number, f"image {number}") for number in numbers]

    def measured(self, detector, images, started):
        return {"mAP": float("0." + "".join(image.removeprefix("image ") for image in images))}


def main():
    """Trains in a separate process and prints the values that the tests compare: STRATEGY STEPS MODEL_DIR...

    A training per folder, whose ``environment.json`` has variables for it. Each ends with the line "exit CODE".
    """
    from detzoo.errors import DetzooError
    from detzoo.train.asynchronous import serve
    from detzoo.train.stop import StopRequest
    from detzoo.train.strategy import PARAMETER_SERVER, create_strategy, role_among_servers

    if sys.argv[1] == PARAMETER_SERVER and role_among_servers() != "chief":
        serve(StopRequest())
        return
    strategy, code = create_strategy(sys.argv[1]), 0
    for folder in map(pathlib.Path, sys.argv[3:]):
        file = folder / "environment.json"
        variables = json.loads(file.read_text()) if file.exists() else {}
        code = 0
        with unittest.mock.patch.dict(os.environ, variables):
            try:
                train_in_process(strategy, folder, sys.argv[2])
            except DetzooError as problem:
                print("refused", problem, file=sys.stderr, flush=True)
                code = problem.exit_code
        for stream in (sys.stdout, sys.stderr):
            print("exit", code, file=stream, flush=True)
    sys.exit(code)


def train_in_process(strategy, folder, num_steps):
    """As ``session.train_pipeline`` does it, with the toy; the environment's BATCH_SIZE goes into the config."""
    from detzoo.config import pb
    from detzoo.train.loop import TrainingLoop
    from detzoo.train.shared_evaluation import SharedEvaluation
    from detzoo.train.stop import StopRequest
    from detzoo.train.workers import check_same_config, check_same_start, report_lost_workers

    config = pb.TrainEvalPipelineConfig()
    config.train_config.batch_size = int(os.environ.get("BATCH_SIZE", 4))
    with report_lost_workers(strategy), StopRequest() as stop:
        check_same_config(strategy, config, folder, None)
        run = settings(num_steps=int(num_steps), eval_every_n_steps=2)
        trainer = make_trainer(strategy, run, batch_norm="frozen")
        evaluation = SharedEvaluation(ShardEvaluator(strategy), strategy, stop)
        loop = TrainingLoop(trainer, folder, lambda d: evaluation.evaluate(d) or {}, stop)
        restored = loop.checkpoints.restore_latest()
        if "SHIFT" in os.environ:  # weights of another file
            trainer.model_variables["head/classes/bias"].assign_add([float(os.environ["SHIFT"])] * CLASSES)
        check_same_start(trainer, folder, restored)
        print("first loss", repr(trainer.run_steps(1).losses["total"]), flush=True)
        outcome = loop.run()
    kernel = trainer.model_variables["head/classes/kernel"].numpy()
    print("outcome", outcome.step, outcome.finished, repr(float(kernel.sum())), flush=True)


if __name__ == "__main__":
    main()
