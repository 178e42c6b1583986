"""``detzoo models``."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from absl import flags

from detzoo.benchmark.models import PAPERS, ConfigHeader, ModelRow, natural, read_header, read_table, short_result
from detzoo.cli.flags import Definer, define_json_flag, print_json
from detzoo.config.library import config_folder, find_config, shipped
from detzoo.config.load import read_pipeline, read_text
from detzoo.config.zoo import archive_of
from detzoo.errors import UsageError
from detzoo.folders import make_folder, write_atomically
from detzoo.sweep.plan.traits import traits_of
from detzoo.tasks.count_models import model_digest, refresh

SUMMARY = "List the configs in model_configs/: input size, parameters, multiply-adds, published result."
DESCRIPTION = """
    detzoo models
    detzoo models --match=retinanet
    detzoo models --paper=fpn
    detzoo models copy ssd_mobilenet_v2_fpnlite_320 my.config

Every command that reads a config takes these names. Start from one of them: copy it, replace each
PATH_TO_BE_CONFIGURED, and train. They are grouped by kind of detector; those of the first group train on the embedded
data set or on your own first images within minutes. --paper lists the rows of a paper's result tables instead, in the
paper's order, each with the config that reproduces it; the paper's page in docs/papers/ explains the differences. On a
terminal, results are cut to its width.

Parameters include the moving statistics of batch normalization. Multiply-adds are for one image of 480 x 640 pixels,
or one crop of a classifier, without post-processing, which includes the masks of a Mask R-CNN. Configs with "zoo" have
published weights, see `detzoo weights list`.

After a change of a config, --refresh counts the changed configs and updates model_configs/models.csv.
"""

FIRST_STEPS = "First steps"
# Name of a kind of detector in ``sweep.plan.traits`` -> heading, in the order of the list.
GROUPS = {
    "ssd": "SSD",
    "retinanet": "RetinaNet, and SSD with a feature pyramid",
    "efficientdet": "EfficientDet",
    "center_net": "CenterNet",
    "faster_rcnn": "Faster R-CNN",
    "rfcn": "R-FCN",
    "mask_rcnn": "Mask R-CNN",
    "rpn": "Region proposals alone",
    "fast_rcnn": "Fast R-CNN on given proposals",
    "spp_net": "SPP-net",
    "spp_classifier": "Classifiers, for SPP-net",
    "segmentation_proposals": "Segmentation proposals",
}
OTHERS = "Others"
_FIRST_STEPS = ("custom_", "shapes_")  # names of configs that train within minutes
NUMBERS = f"{'input':>9} {'parameters':>10} {'multiply-adds':>13} {'weights':>7}"


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines --model_configs, --match, --paper, --json and --refresh."""
    define = Definer(flag_values)
    define.string("model_configs", "Folder with .config files.", str(config_folder()))
    define.string("match", "List only configs whose name contains this.", "")
    define.choice("paper", "List the rows of this paper's result tables, and their configs.", list(PAPERS))
    define_json_flag(flag_values)
    define.boolean("refresh", "Count the configs that have changed and update the table.")


def run(flag_values: flags.FlagValues) -> None:
    """Prints one line per config, or per row of a paper."""
    folder = pathlib.Path(flag_values.model_configs)
    files = [file for file in folder.glob("*.config") if flag_values.match in file.stem]
    files.sort(key=lambda file: natural(file.stem))
    if not files:
        among = f" whose name contains '{flag_values.match}'" if flag_values.match else ""
        raise UsageError(f"--model_configs {folder} has no .config file{among}")
    if flag_values.refresh:
        for file in files:
            refresh(file)
    rows = read_table(folder)
    if flag_values.paper:
        files = _named_in_paper(files, flag_values.paper)
    if flag_values.json:
        print_json(_document(files, rows))
        return
    lines = _of_paper(files, rows, flag_values.paper) if flag_values.paper else _by_group(files, rows)
    for line in lines:
        print(_cut(line))


def grouped(files: Iterable[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Returns the configs of each kind of detector by its heading, in their order, without empty kinds."""
    groups: dict[str, list[pathlib.Path]] = {name: [] for name in (FIRST_STEPS, *GROUPS.values(), OTHERS)}
    for file in files:
        kind = traits_of(read_pipeline(str(file))[0].message.model).meta_architecture
        groups[FIRST_STEPS if file.stem.startswith(_FIRST_STEPS) else GROUPS.get(kind, OTHERS)].append(file)
    return {name: members for name, members in groups.items() if members}


def _by_group(files: list[pathlib.Path], rows: dict[str, ModelRow]) -> list[str]:
    """Returns a heading per kind of detector, and its configs."""
    groups = grouped(files)
    width = max(len(name) for name in (*groups, *(f"  {file.stem}" for file in files)))
    lines = [f"{'':<{width}} {NUMBERS}  published result"]
    for name, members in groups.items():
        lines += [name, *(f"{f'  {file.stem}':<{width}} {_numbers(file, rows)}  {_result(file)}" for file in members)]
    return lines


def _of_paper(files: list[pathlib.Path], rows: dict[str, ModelRow], paper: str) -> list[str]:
    """Returns the rows of a paper in its order, each with a config; a row may have several configs."""
    headers = {file: _header(file) for file in files}
    found = [(row, file) for file, header in headers.items() for row in header.rows if row.paper == paper]
    found.sort(key=lambda pair: (pair[0].order(), pair[1].stem))
    labels = [f"table {row.label}{f', {row.name}' if row.name else ''}" for row, _ in found]
    first, second = max(map(len, labels)), max(len(file.stem) for _, file in found)
    page = PAPERS[paper].page
    lines = [f"{PAPERS[paper].title}; what differs and why: {page if os.path.isfile(page) else shipped(page)}"]
    lines.append(f"{'row':<{first}} {'config':<{second}} {NUMBERS}  published result")
    for label, (_, file) in zip(labels, found, strict=True):
        lines.append(f"{label:<{first}} {file.stem:<{second}} {_numbers(file, rows)}  {_result(file)}")
    return lines


def _header(file: pathlib.Path) -> ConfigHeader:
    return read_header(file.read_text(encoding="utf-8"))


def _named_in_paper(files: list[pathlib.Path], paper: str) -> list[pathlib.Path]:
    found = [file for file in files if any(row.paper == paper for row in _header(file).rows)]
    if not found:
        raise UsageError(f"none of the {len(files)} configs names a row of --paper={paper}; leave out --match")
    return found


def _document(files: list[pathlib.Path], rows: dict[str, ModelRow]) -> list[dict[str, Any]]:
    """Returns the fields of each config, numbers as numbers; None for those that are not counted or not published."""
    entries = []
    for group, members in grouped(files).items():
        for file in members:
            header, row = _header(file), _counted(file, rows)
            height, width = map(int, row.input_size.split("x")) if row else (None, None)
            entries.append(
                {
                    "name": file.stem,
                    "path": str(file),
                    "group": group,
                    "title": header.title,
                    "input_height": height,
                    "input_width": width,
                    "parameters": row.parameters if row else None,
                    "multiply_adds": row.multiply_adds if row else None,
                    "weights": archive_of(file.stem),
                    "published_result": header.result or None,
                    "paper_rows": [found._asdict() for found in header.rows],
                }
            )
    return entries


def _counted(file: pathlib.Path, rows: dict[str, ModelRow]) -> ModelRow | None:
    """Returns the row of the table for a config; None if the config has none, or has changed since."""
    row = rows.get(file.stem)
    return row if row is not None and row.digest == model_digest(file) else None


def _numbers(file: pathlib.Path, rows: dict[str, ModelRow]) -> str:
    row, weights = _counted(file, rows), "zoo" if archive_of(file.stem) else "-"
    if row is None:
        return f"{'not counted yet: --refresh':>{len(NUMBERS)}}"
    millions, billions = f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.2f} B"
    return f"{row.input_size:>9} {millions:>10} {billions:>13} {weights:>7}"


def _result(file: pathlib.Path) -> str:
    return short_result(_header(file).result) or "-"


def _cut(line: str) -> str:
    columns = shutil.get_terminal_size().columns
    return line if not sys.stdout.isatty() or len(line) <= columns else f"{line[: columns - 1]}…"


class Copy:
    """``detzoo models copy NAME FILE``."""

    SUMMARY = "Copy one of the configs to a new file, to be changed for your data."
    DESCRIPTION = """
        detzoo models copy ssd_mobilenet_v2_fpnlite_320 my.config

    An existing file is not replaced. `detzoo config check my.config` then lists the paths to set.
    """
    POSITIONAL = ("NAME", "FILE")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Writes the file, prints the next commands."""
        name, target = flag_values.positional
        source, file = find_config(name), pathlib.Path(target)
        if file.is_dir():
            file /= source.name
        if os.path.lexists(file):
            raise UsageError(f"{file} exists already; give another name, or remove it first")
        text = read_text(source, "pipeline config")
        make_folder(file.parent, "the folder")
        write_atomically(file, text.replace(f"model_configs/{source.name}", str(file)))  # in the commands of its header
        print(f"{file}\n\nnext:")
        print(f"  detzoo config check {file}")
        print(f"  detzoo train --pipeline_config_path {file} --model_dir runs/{file.stem}")


SUBCOMMANDS: dict[str, Any] = {"copy": Copy}
