"""The Object Detection API's detection zoos of TensorFlow 2 and 1: archives, their published results and configs.

``detzoo.checkpoints.zoo`` downloads the archives; this table needs no TensorFlow and no network.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from detzoo.config.names import clip, suggestion

PREFIX = "zoo://"
COCO = "coco"
_PATH = re.compile(r"zoo:[/\\]+")  # pathlib merges the slashes of "zoo://"
_TF1_NAME = re.compile(r".*_20\d\d_\d\d_\d\d|facessd_.*")


class Archive(NamedTuple):
    """One archive of the zoo."""

    # Published mAP of boxes, of boxes/masks, or of boxes/keypoints (CenterNet) in percent; "" for none. COCO's is
    # on 2017 val, or on 2014 minival for TensorFlow 1.
    published_map: str
    # Published time per image on the authors' GPU; None for networks that were measured on phones.
    published_ms: int | None
    # Configs of model_configs/ with the same network, and so the same variables. Input size, number of proposals
    # and training may differ.
    configs: tuple[str, ...] = ()
    trained_on: str = COCO  # data set, which decides the class names
    released: str = "20200711"  # folder of an archive of TensorFlow 2 on the server


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
    "centernet_hg104_512x512_coco17_tpu-8": Archive("41.9", 70, released="20200713"),
    "centernet_hg104_512x512_kpts_coco17_tpu-32": Archive("40.0/61.4", 76),
    "centernet_hg104_1024x1024_coco17_tpu-32": Archive("44.5", 197, released="20200713"),
    "centernet_hg104_1024x1024_kpts_coco17_tpu-32": Archive("42.8/64.5", 211),
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": Archive("31.2", 27),
    "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8": Archive("29.3/50.7", 30),
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8": Archive("34.2", 34),
    "centernet_resnet50_v2_512x512_coco17_tpu-8": Archive("29.5", 27),
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8": Archive("27.6/48.2", 30),
    "centernet_mobilenetv2fpn_512x512_coco17_od": Archive("23.4", 6, released="20210210"),
    "centernet_mobilenetv2fpn_512x512_coco17_kpts": Archive("41.7", 6, released="20210210"),
    # TensorFlow 1.
    "ssd_mobilenet_v1_coco_2018_01_28": Archive("21", 30, ("ssd_mobilenet_v1_300",)),
    "ssd_mobilenet_v1_0.75_depth_300x300_coco14_sync_2018_07_03": Archive("18", 26),
    "ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_18": Archive("18", 29),
    "ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync_2018_07_18": Archive("16", 29),
    "ssd_mobilenet_v1_ppn_shared_box_predictor_300x300_coco14_sync_2018_07_03": Archive("20", 26),
    "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03": Archive("32", 56),
    "ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03": Archive("35", 76),
    "ssd_mobilenet_v2_coco_2018_03_29": Archive("22", 31),
    "ssd_mobilenet_v2_quantized_300x300_coco_2019_01_03": Archive("22", 29),
    "ssdlite_mobilenet_v2_coco_2018_05_09": Archive("22", 27),
    "ssd_inception_v2_coco_2018_01_28": Archive("24", 42, ("ssd_inception_v2_300",)),
    "faster_rcnn_inception_v2_coco_2018_01_28": Archive("28", 58),
    "faster_rcnn_resnet50_coco_2018_01_28": Archive("30", 89),
    "faster_rcnn_resnet50_lowproposals_coco_2018_01_28": Archive("", 64),
    "rfcn_resnet101_coco_2018_01_28": Archive("30", 92),
    "faster_rcnn_resnet101_coco_2018_01_28": Archive("32", 106),
    "faster_rcnn_resnet101_lowproposals_coco_2018_01_28": Archive("", 82),
    "faster_rcnn_inception_resnet_v2_atrous_coco_2018_01_28": Archive(
        "37", 620, ("faster_rcnn_inception_resnet_v2_600_stride8",)
    ),
    "faster_rcnn_inception_resnet_v2_atrous_lowproposals_coco_2018_01_28": Archive("", 241),
    "faster_rcnn_nas_coco_2018_01_28": Archive("43", 1833, ("faster_rcnn_nas_1200",)),
    "faster_rcnn_nas_lowproposals_coco_2018_01_28": Archive("", 540),
    "mask_rcnn_inception_resnet_v2_atrous_coco_2018_01_28": Archive("36", 771),
    "mask_rcnn_inception_v2_coco_2018_01_28": Archive("25", 79),
    "mask_rcnn_resnet101_atrous_coco_2018_01_28": Archive("33", 470),
    "mask_rcnn_resnet50_atrous_coco_2018_01_28": Archive("29", 343),
    "ssd_mobilenet_v3_large_coco_2020_01_14": Archive("22.6", None, ("ssdlite_mobilenet_v3_large_320",)),
    "ssd_mobilenet_v3_small_coco_2020_01_14": Archive("15.4", None),
    "ssdlite_mobiledet_cpu_320x320_coco_2020_05_19": Archive("24.0", None, ("ssdlite_mobiledet_cpu_320",)),
    "ssdlite_mobiledet_edgetpu_320x320_coco_2020_05_19": Archive("25.9", None),
    "ssdlite_mobiledet_dsp_320x320_coco_2020_05_19": Archive("28.9", None),
    "ssd_mobilenet_v2_mnasfpn_shared_box_predictor_320x320_coco_sync_2020_05_18": Archive(
        "26.6", None, ("ssd_mobilenet_v2_mnasfpn_320",)
    ),
    "faster_rcnn_resnet101_kitti_2018_01_28": Archive("87", 79, trained_on="kitti"),
    "faster_rcnn_inception_resnet_v2_atrous_oid_2018_01_28": Archive("37", 727, trained_on="open_images_v2"),
    "faster_rcnn_inception_resnet_v2_atrous_lowproposals_oid_2018_01_28": Archive("", 347, trained_on="open_images_v2"),
    "facessd_mobilenet_v2_quantized_320x320_open_image_v4": Archive("73", 20, trained_on="open_images_v4_faces"),
    "faster_rcnn_inception_resnet_v2_atrous_oid_v4_2018_12_12": Archive("54", 425, trained_on="open_images_v4"),
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


def is_tensorflow1(name: str) -> bool:
    """Returns True for the name of an archive of the TensorFlow 1 zoo, which ends in a date."""
    return _TF1_NAME.fullmatch(name) is not None


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
    of_config = archive_of(name)
    hint = f"; the archive of this config is '{of_config}'" if of_config else suggestion(name, ARCHIVES)
    return f"the zoo has no archive '{clip(name)}'{hint}"
