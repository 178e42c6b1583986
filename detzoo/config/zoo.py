"""The Object Detection API's TensorFlow 2 detection zoo: its archives, their published results, and their configs.

``detzoo.checkpoints.zoo`` downloads the archives; this table needs no TensorFlow and no network.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from detzoo.config.names import clip, suggestion

PREFIX = "zoo://"
_PATH = re.compile(r"zoo:[/\\]+")  # pathlib merges the slashes of "zoo://"
_TF1_NAME = re.compile(r".*_20\d\d_\d\d_\d\d|facessd_.*")


class Archive(NamedTuple):
    """One archive of the zoo.

    Attributes:
        published_map: Published mAP on COCO 2017 val, of boxes, or of boxes/masks.
        published_ms: Published time per image on the authors' GPU.
        configs: Configs of model_configs/ with the same network, and so the same variables. Input size, number of
            proposals and training may differ.
    """

    published_map: str
    published_ms: int
    configs: tuple[str, ...] = ()


# Results as published with the zoo. An archive without configs has its own pipeline.config.
ARCHIVES: dict[str, Archive] = {
    "efficientdet_d0_coco17_tpu-32": Archive("33.6", 39, ("efficientdet_d0",)),
    "efficientdet_d1_coco17_tpu-32": Archive("38.4", 54, ("efficientdet_d1",)),
    "efficientdet_d2_coco17_tpu-32": Archive("41.8", 67, ("efficientdet_d2",)),
    "efficientdet_d3_coco17_tpu-32": Archive("45.4", 95, ("efficientdet_d3",)),
    "efficientdet_d4_coco17_tpu-32": Archive("48.5", 133, ("efficientdet_d4",)),
    "efficientdet_d5_coco17_tpu-32": Archive("49.7", 222, ("efficientdet_d5",)),
    "efficientdet_d6_coco17_tpu-32": Archive("50.5", 268, ("efficientdet_d6",)),
    "efficientdet_d7_coco17_tpu-32": Archive("51.2", 325, ("efficientdet_d7",)),
    "ssd_mobilenet_v2_320x320_coco17_tpu-8": Archive("20.2", 19, ("ssd_mobilenet_v2_300",)),
    "ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8": Archive("29.1", 48, ("ssd_mobilenet_v1_fpn_640",)),
    "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8": Archive("22.2", 22, ("ssd_mobilenet_v2_fpnlite_320",)),
    "ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8": Archive("28.2", 39, ("ssd_mobilenet_v2_fpnlite_640",)),
    "ssd_resnet50_v1_fpn_640x640_coco17_tpu-8": Archive("34.3", 46, ("ssd_resnet50_v1_fpn_640",)),
    "ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8": Archive("38.3", 87),
    "ssd_resnet101_v1_fpn_640x640_coco17_tpu-8": Archive("35.6", 57, ("ssd_resnet101_v1_fpn_640",)),
    "ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8": Archive("39.5", 104),
    "ssd_resnet152_v1_fpn_640x640_coco17_tpu-8": Archive("35.4", 80, ("ssd_resnet152_v1_fpn_640",)),
    "ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8": Archive("39.6", 111),
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": Archive("29.3", 53, ("faster_rcnn_resnet50_v1_640",)),
    "faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8": Archive("31.0", 65),
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8": Archive("31.6", 65),
    "faster_rcnn_resnet101_v1_640x640_coco17_tpu-8": Archive("31.8", 55, ("faster_rcnn_resnet101_v1_640",)),
    "faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8": Archive("37.1", 72),
    "faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8": Archive(
        "36.6",
        77,
        (
            "faster_rcnn_resnet101_600",
            "faster_rcnn_resnet101_300",
            "faster_rcnn_resnet101_600_proposals50",
            "faster_rcnn_resnet101_600_proposals100",
        ),
    ),
    "faster_rcnn_resnet152_v1_640x640_coco17_tpu-8": Archive("32.4", 64, ("faster_rcnn_resnet152_v1_640",)),
    "faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8": Archive("37.6", 85),
    "faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8": Archive("37.4", 101),
    "faster_rcnn_inception_resnet_v2_640x640_coco17_tpu-8": Archive("37.7", 206),
    "faster_rcnn_inception_resnet_v2_1024x1024_coco17_tpu-8": Archive("38.7", 236),
    "mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8": Archive(
        "39.0/34.6", 301, ("mask_rcnn_inception_resnet_v2_1024",)
    ),
}
# Names of COCO's classes in the order of their ids, which run to 90 with ten gaps.
_COCO_NAMES = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,bench,
bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,
snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,cup,fork,
knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,
dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,
vase,scissors,teddy bear,hair drier,toothbrush
"""
COCO_CLASSES = {
    class_id: name for class_id, name in enumerate(_COCO_NAMES.replace("\n", "").split(","), start=1) if name
}
_ARCHIVE_OF = {config: name for name, archive in ARCHIVES.items() for config in archive.configs}


def names() -> list[str]:
    """Returns the names of the archives that detzoo can use."""
    return list(ARCHIVES)


def archive_of(config_name: str) -> str | None:
    """Returns the archive whose weights the config of model_configs/ with this name takes, or None."""
    return _ARCHIVE_OF.get(config_name)


def name_in(text: str) -> str | None:
    """Returns NAME of a path ``zoo://NAME``, "" for an empty name, None for other paths."""
    prefix = _PATH.match(text)
    return text[prefix.end() :].rstrip("/\\") if prefix else None


def problem_of(name: str) -> str:
    """Returns the reason why an archive cannot be used, as a sentence without full stop; "" if it can."""
    if name in ARCHIVES:
        return ""
    shown = f"'{clip(name)}'"
    if name.startswith("centernet_"):
        return (
            f"the archive {shown} cannot be used: CenterNet is not supported yet; `detzoo weights list` has the others"
        )
    if _TF1_NAME.fullmatch(name):
        return (
            f"the archive {shown} is of the TensorFlow 1 zoo, whose checkpoints cannot be read yet; "
            "`detzoo weights list` has those of the TensorFlow 2 zoo"
        )
    of_config = archive_of(name)
    hint = f"; the archive of this config is '{of_config}'" if of_config else suggestion(name, ARCHIVES)
    return f"the zoo has no archive {shown}{hint}"
