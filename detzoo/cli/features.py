"""``detzoo features``, and ``detzoo features classify``."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
from absl import flags

from detzoo.cli.flags import CHECKPOINT_HELP, Definer, define_pipeline_flags, values_of
from detzoo.errors import UsageError
from detzoo.folders import make_folder, write_atomically
from detzoo.tasks.features import READERS, classify_features, extract_features

SUMMARY = "Write the features of a classifier's layer for all images, and classify them by linear SVMs."
DESCRIPTION = """
A trained classifier (model.spp_classifier) describes the images of another data set, as in the paper of SPP-net,
sections 3.2 and 3.3: whole images or crops, any layer, pooled by any pyramid.

    detzoo features --pipeline_config_path=runs/zf5/pipeline.config --checkpoint_dir=runs/zf5 --output=test.npz \\
        --set 'eval_input_reader[0].label_map_path=voc/label_map.pbtxt' \\
        --set 'eval_input_reader[0].tf_record_input_reader.input_path[0]=voc/test-*' --layer=fc7 --shorter_side=392
    detzoo features classify --train=trainval.npz --test=test.npz

Records may be a classifier's or a detector's. The labels in a detector's record are the
classes of its objects. As in Pascal VOC, a class with difficult objects alone counts neither as present nor as absent.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the classifier, the layer and the images."""
    define_pipeline_flags(flag_values)
    define = Definer(flag_values)
    define.string("checkpoint_dir", CHECKPOINT_HELP, required=True)
    define.string("output", "The npz file to write.", required=True)
    define.choice(
        "reader", "Images to describe: those of train_input_reader or eval_input_reader.", list(READERS), "eval"
    )
    define.string("layer", "Layer: conv1, pool1, ..., pool5 (the network's pyramid), fc6 or fc7.", "fc7")
    text = "Bins per side of each level of a pyramid on the layer's map, e.g. 6,3,2,1; the map itself without it."
    define.string("pyramid", text, "")
    define.integer("shorter_side", "Shorter side of the images in pixels; 0 for the config's.", 0, minimum=0)
    define.integer("crop_size", "Side of the crop of the centre in pixels; 0 for whole images.", 0, minimum=0)


def run(flag_values: flags.FlagValues) -> None:
    """Computes the features, and prints their size."""
    words = [word for word in flag_values.pyramid.replace(" ", "").split(",") if word]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--pyramid is '{flag_values.pyramid}'; accepted: numbers of 1 or more, such as 6,3,2,1")
    found = extract_features(
        flag_values.pipeline_config_path,
        flag_values.checkpoint_dir,
        flag_values.output,
        bins=[int(word) for word in words],
        overrides=flag_values.set,
        **values_of(flag_values, "layer", "shorter_side", "crop_size", "reader"),
    )
    print(f"{flag_values.output}: {found.depth} values of {found.num_images} images, {found.num_classes} classes")


class Classify:
    """``detzoo features classify``."""

    SUMMARY = "Train one linear SVM per class on features, and measure mAP and accuracy."
    DESCRIPTION = """
    Features are scaled to unit length. With --test the SVMs are measured on its images; mAP is that of Pascal VOC 2007
    (eleven points). Without --test, the images are split at random several times, as in Caltech101's protocol, and
    accuracy is the mean over the classes. Images with several labels have no accuracy.

        detzoo features classify --train=trainval.npz --test=test.npz
        detzoo features classify --train=caltech101.npz --train_per_class=30 --test_per_class=50 --num_splits=10
    """

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines the flags for the features and the splits."""
        define = Definer(flag_values)
        define.string("train", "Features that `detzoo features` wrote.", required=True)
        define.string("test", "Features to measure on; without it, random splits of --train.")
        flags.DEFINE_float("c", 1.0, "Weight of the errors against the margin.", 0.0, flag_values=flag_values)
        define.integer("train_per_class", "Training images per class of a random split.", 30, minimum=1)
        define.integer("test_per_class", "Test images per class of a random split at most.", 50, minimum=1)
        define.integer("num_splits", "Number of random splits.", 10, minimum=1)
        define.integer("seed", "Seed of the splits.", 0, minimum=0)
        define.string("output", "Also write the numbers into this JSON file.")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Trains, measures, and prints the numbers."""
        names = ("train", "test", "c", "train_per_class", "test_per_class", "num_splits", "seed")
        results = classify_features(**values_of(flag_values, *names))
        measured = {"mAP": [result.mean_average_precision for result in results]}
        accuracies = [result.accuracy for result in results if result.accuracy is not None]
        measured |= {"accuracy": accuracies} if accuracies else {}
        if len(results) == 1:
            for name, value in results[0].per_class.items():
                print(f"{name:<20} {100 * value:6.2f}")
        for name, values in measured.items():
            spread = f" +- {100 * np.std(values):.2f} over {len(values)} splits" if len(values) > 1 else ""
            print(f"{name:<20} {100 * np.mean(values):6.2f} %{spread}")
        if flag_values.output:
            file = pathlib.Path(flag_values.output)
            make_folder(file.parent, "--output")
            per_class = [result.per_class for result in results]
            write_atomically(file, json.dumps({**measured, "average_precision": per_class}, indent=2) + "\n")


SUBCOMMANDS: dict[str, Any] = {"classify": Classify}
