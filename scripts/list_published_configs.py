"""Writes docs/published_configs.md: what `detzoo config check` says of the Object Detection API's published configs.

    scripts/list_published_configs.py            write it
    scripts/list_published_configs.py --check    exit 1 when the page says something else

The configs travel beside the checkout, in ../shared/configs/published; without them nothing is written or checked.
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

Written by `scripts/list_published_configs.py` from what `detzoo config check` says of the untouched files; a test keeps
it so, another one builds all that is ok, and `benchmarks/published_configs.py` trains a step of each.

How to read these tables. A config whose state is *ok* is trained, evaluated and exported as it is, once its paths are
set, which the check lists with the `--set` for each. *Without effect* counts the fields that are accepted and change
nothing here (switches for TPUs, input queues, drawing while evaluating, quantization while training); the check says
why of each. Any other state says what is missing.

"""
COLUMNS = "| config | meta-architecture | extractor | state | without effect |\n|---|---|---|---|---:|\n"


class Row(NamedTuple):
    """One config: its file, what it is, and what the check says."""

    name: str
    architecture: str
    extractor: str
    reasons: tuple[str, ...]  # empty where it is ok
    num_without_effect: int


def row_of(path: pathlib.Path) -> Row:
    """What the check says of a config, the files that it names left aside."""
    loaded = load_pipeline(str(path))
    problems = check_pipeline(loaded, files=False)
    architecture, extractor = _names(loaded.message.model)
    without_effect = sum(problem.is_without_effect for problem in problems)
    return Row(path.stem, architecture, extractor, tuple(reasons_of(problems)), without_effect)


def reasons_of(problems: Iterable[Problem]) -> list[str]:
    """Each error once, without what is accepted instead."""
    texts = [problem.message.partition("; accepted")[0] for problem in problems if problem.severity is Severity.ERROR]
    return list(dict.fromkeys(texts))


def _names(model: Any) -> tuple[str, str]:
    """Meta-architecture and feature extractor, as people call them."""
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
    """The whole page."""
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
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    arguments = parser.parse_args()
    if not FOLDER.is_dir():
        print(f"{FOLDER} is not there: {PAGE.name} stays as it is", file=sys.stderr)
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
