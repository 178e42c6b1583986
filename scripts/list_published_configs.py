"""Writes docs/published_configs.md: the results of `detzoo config check` for the Object Detection API's configs.

    scripts/list_published_configs.py            writes the page
    scripts/list_published_configs.py --check    exits with 1 if the page is stale

The configs are read from ../shared/configs/published. Without that folder nothing is written or checked.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Problem, Severity
from detzoo.config.stages import predicts_masks

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "configs" / "published"
PAGE = ROOT / "docs" / "published_configs.md"
OK = "ok"
GENERATIONS = {"tf2": "TensorFlow 2 (`configs/tf2`)", "tf1": "TensorFlow 1 (`samples/configs`)"}
HEADING = """\
# The Object Detection API's configs

`scripts/list_published_configs.py` writes this page from the results of `detzoo config check` for the unchanged files.
One test checks that the page is current, and another builds all configs that are ok.

`benchmarks/published_configs.py` goes further. On the machine of the last run (2 cores, busy with other work):

| step of the benchmark | configs | result |
|---|---:|---|
| check, build, one training step on small images | 104 | 104 without a problem |
| variables looked up in the layout of the published checkpoint | 75 | all found, none of the checkpoint unused |
| export of a checkpoint with seeded values | 38 | 38 without a problem |
| detections compared with those of the original's code | 11 | scores within 1.7e-6, boxes within 3.6e-7 |

The other 29 configs have no recorded layout: most are a deeper or larger variant of a config that has one. An export
takes 3 to 60 s with its import, on one core, while other programs ran. The exceptions are Hourglass-104 (69 to 133 s),
DeepMAC (158 to 174), NASNet at 1200 x 1200 pixels (208), Faster R-CNN ResNet-50 FPN 640 (103), SSD ResNet-50 FPN 640
(81 and 39 in two runs) and Mask R-CNN Inception-ResNet v2 1024 (68).

Reading these tables: a config whose state is *ok* can be trained, evaluated and exported unchanged once its paths
are set; the check lists each path with the `--set` for it. *Without effect* counts the fields that are accepted and
change nothing in detzoo (switches for TPUs, input queues, drawing during evaluation, quantization during training); the
check gives the reason for each. Any other state names the unsupported feature.

"""
COLUMNS = "| config | meta-architecture | extractor | state | without effect |\n|---|---|---|---|---:|\n"


class Row(NamedTuple):
    """Name, kind and check results of one config."""

    name: str
    architecture: str
    extractor: str
    reasons: tuple[str, ...]  # empty if the config is ok
    num_without_effect: int


def row_of(path: pathlib.Path) -> Row:
    """Returns the check results of a config, without checks of the files that it names."""
    loaded = load_pipeline(str(path))
    problems = check_pipeline(loaded, files=False)
    architecture, extractor = _names(loaded.message.model)
    without_effect = sum(problem.is_without_effect for problem in problems)
    return Row(path.stem, architecture, extractor, tuple(reasons_of(problems)), without_effect)


def reasons_of(problems: Iterable[Problem]) -> list[str]:
    """Returns each error message once, without its list of accepted values."""
    texts = [problem.message.partition("; accepted")[0] for problem in problems if problem.severity is Severity.ERROR]
    return list(dict.fromkeys(texts))


def _names(model: Any) -> tuple[str, str]:
    """Returns the common names of meta-architecture and feature extractor."""
    kind = model.WhichOneof("model")
    if kind == "center_net":
        center_net = model.center_net
        name = "CenterNet DeepMAC" if center_net.HasField("deepmac_mask_estimation") else "CenterNet"
        return name, center_net.feature_extractor.type
    extractor = getattr(model, kind).feature_extractor.type
    if kind == "ssd":
        with_pyramid = "EfficientDet" if "efficientnet" in extractor else "SSD with pyramid"
        return with_pyramid if "fpn" in extractor else "SSD", extractor
    model = model.faster_rcnn
    if model.second_stage_box_predictor.HasField("rfcn_box_predictor"):
        return "R-FCN", extractor
    if model.HasField("context_config"):
        return "Context R-CNN", extractor
    return ("Mask R-CNN" if predicts_masks(model) else "Faster R-CNN"), extractor


def page_of(folder: pathlib.Path) -> str:
    """Returns the text of the page."""
    rows = {name: [row_of(path) for path in sorted((folder / name).glob("*.config"))] for name in GENERATIONS}
    everything = [row for part in rows.values() for row in part]
    num_ok = sum(not row.reasons for row in everything)
    text = f"{HEADING}{num_ok} of {len(everything)} are ok.\n"
    for name, title in GENERATIONS.items():
        text += f"\n## {title}\n\n{COLUMNS}"
        for row in rows[name]:
            state = "; ".join(row.reasons).replace("|", "\\|") or OK
            text += f"| {row.name} | {row.architecture} | {row.extractor} | {state} | {row.num_without_effect} |\n"
    return text


def main() -> int:
    """Writes or checks the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    arguments = parser.parse_args()
    if not FOLDER.is_dir():
        print(f"{FOLDER} does not exist: {PAGE.name} is left unchanged", file=sys.stderr)
        return 0
    page = page_of(FOLDER)
    if not arguments.check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print(f"docs/{PAGE.name} is stale; run scripts/list_published_configs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
