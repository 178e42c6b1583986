"""Writes the table of models in README.md from model_configs/: models.csv and the headers of the configs.

    scripts/update_readme.py            write it
    scripts/update_readme.py --check    exit 1 when README.md has another table

The numbers themselves are counted by ``detzoo models --refresh``.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from detzoo.benchmark.models import ModelRow, natural, read_header, read_table, short_result
from detzoo.cli.models import grouped

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- models: written by scripts/update_readme.py -->", "<!-- end of models -->"
HEADING = """\
## Models

Complete configs in `model_configs/`, also listed by `detzoo models`; `detzoo models --paper=fpn` has the rows of a
paper's result tables with the config of each, and [a page a paper](docs/papers/README.md) says what differs and why.
How to read these tables: parameters include the moving statistics of batch normalisation; multiply-adds are of one
image (640 x 480 where the input follows the image, a crop for classifiers), without post-processing, to which masks
belong; results are those published for the design, and none is re-measured here unless it says so. Two-stage configs
follow [their guide](docs/two_stage_detectors.md).

"""
COLUMNS = "| config | input | parameters | multiply-adds | result |\n|---|---|---:|---:|---|\n"


def table() -> str:
    """The section between the markers: a table for each kind of detector, folded but for the first."""
    folder = ROOT / "model_configs"
    rows = read_table(folder)
    parts = [HEADING]
    for number, (name, files) in enumerate(grouped(sorted(folder.glob("*.config"), key=by_name)).items()):
        lines = COLUMNS + "".join(line(file, rows.get(file.stem)) for file in files)
        summary = f"<summary><b>{name}</b>: {len(files)}</summary>"
        parts.append(f"<details{'' if number else ' open'}>{summary}\n\n{lines}\n</details>\n")
    return "".join(parts)


def by_name(file: pathlib.Path) -> list[str | int]:
    """A key that sorts files by name, and by the numbers in names."""
    return natural(file.stem)


def line(file: pathlib.Path, row: ModelRow | None) -> str:
    """A config's line of a table."""
    result = short_result(read_header(file.read_text(encoding="utf-8")).result).replace("|", "\\|")
    numbers = "- | - | -"
    if row is not None:
        numbers = f"{row.input_size} | {row.parameters / 1e6:.1f} M | {row.multiply_adds / 1e9:.2f} B"
    return f"| [{file.stem}](model_configs/{file.name}) | {numbers} | {result} |\n"


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the table is stale")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        print(f"README.md lacks the lines {BEGIN} and {END}", file=sys.stderr)
        return 1
    before, rest = text.split(BEGIN)
    updated = f"{before}{BEGIN}\n{table()}{END}{rest.split(END)[1]}"
    if arguments.check and updated != text:
        print("the table of models in README.md is stale; run scripts/update_readme.py", file=sys.stderr)
        return 1
    if not arguments.check:
        readme.write_text(updated, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
