"""``detzoo weights list|get|where``."""

from __future__ import annotations

import sys
from typing import Any

from absl import flags

from detzoo.config.zoo import ARCHIVES, name_in, problem_of
from detzoo.errors import UsageError

SUMMARY = "List and download the published weights of the Object Detection API's zoo, by name."
DESCRIPTION = """
Weights of trained detectors: the archives of the Object Detection API's detection zoos of TensorFlow 2 and 1.

    detzoo weights list
    detzoo weights get ssd_mobilenet_v2_320x320_coco17_tpu-8
    detzoo weights where

zoo://NAME stands for a checkpoint or an exported model, and is downloaded at its first use:

    fine_tune_checkpoint: "zoo://ssd_mobilenet_v2_320x320_coco17_tpu-8"     in train_config of a pipeline.config
    detzoo detect --saved_model=zoo://ssd_mobilenet_v2_320x320_coco17_tpu-8 --images=photos --output_dir=pictures

Archives are kept in the folder that the environment variable DETZOO_CACHE names, by default in the user's cache folder.
DETZOO_ZOO_URL names another server, such as a mirror. Without a connection, put the archive (NAME.tar.gz) into the
folder of `detzoo weights where`.
"""


class List:
    """``detzoo weights list``."""

    SUMMARY = "Print the archives: published mAP and time, size in the cache, configs with the same network."
    DESCRIPTION = """
    mAP is on COCO 2017 val (boxes, or boxes/masks). For TensorFlow 1 it is on COCO 2014 minival, or on the data set in
    the name. ms is the time per image on the authors' GPU. Both are published with the zoo, and not re-measured here.
    Configs have the same network as the archive; input size and number of proposals may differ. Every archive has its
    own pipeline.config, too.

        detzoo weights list
    """

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints one line per archive."""
        from detzoo.checkpoints.zoo import cache_folder, size_of

        width = max(map(len, ARCHIVES))
        print(f"{'archive':<{width}} {'mAP':>9} {'ms':>4} {'in cache':>9}  configs")
        for name, archive in ARCHIVES.items():
            size, configs = size_of(name), ", ".join(archive.configs) or "its own pipeline.config"
            shown = f"{size / 1e6:.0f} MB" if size else "-"
            published = f"{archive.published_map or '-':>9} {archive.published_ms or '-':>4}"
            print(f"{name:<{width}} {published} {shown:>9}  {configs}")
        print(f"The cache is {cache_folder()}")


class Get:
    """``detzoo weights get NAME``."""

    SUMMARY = "Download and unpack an archive, unless it is in the cache, and print its folder."
    DESCRIPTION = """
    The folder has checkpoint/ (TensorFlow 1: model.ckpt.*), saved_model/, pipeline.config and COCO's label_map.pbtxt.
    Its path is the only line on stdout, for scripts. The files are compared with their SHA-256 of the first use.

        detzoo weights get ssd_mobilenet_v2_320x320_coco17_tpu-8
    """
    POSITIONAL = ("NAME",)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the folder."""
        from detzoo.checkpoints.zoo import fetch

        print(fetch(_name(flag_values)))


class Where:
    """``detzoo weights where [NAME]``."""

    SUMMARY = "Print the folder of the cache, or of an archive in it; nothing is downloaded."
    DESCRIPTION = """
    For an archive that is not in the cache, stderr has its address, and the folder for the file.

        detzoo weights where
        detzoo weights where ssd_mobilenet_v2_320x320_coco17_tpu-8
    """
    POSITIONAL = ("[NAME]",)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the folder."""
        from detzoo.checkpoints.zoo import address_of, cache_folder

        if not flag_values.positional:
            print(cache_folder())
            return
        name = _name(flag_values)
        if problem := problem_of(name):
            raise UsageError(problem)
        folder = cache_folder() / name
        print(folder)
        if not folder.is_dir():
            text = f"not downloaded: `detzoo weights get {name}`, or put {address_of(name)} into {folder.parent}"
            print(text, file=sys.stderr)


def _name(flag_values: flags.FlagValues) -> str:
    """Returns the name of the archive, which may be given as zoo://NAME."""
    [given] = flag_values.positional
    return name_in(given) or given


SUBCOMMANDS: dict[str, Any] = {"list": List, "get": Get, "where": Where}
