"""Writes the tables of models from model_configs/: models.csv and the headers of the configs.

    scripts/update_readme.py            writes docs/models.md and the short table in README.md
    scripts/update_readme.py --check    exits with 1 if one of them is stale

``detzoo models --refresh`` counts parameters and multiply-adds.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from detzoo.benchmark.models import ModelRow, natural, read_header, read_table, short_result
from detzoo.cli.models import grouped

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- models: written by scripts/update_readme.py -->", "<!-- end of models -->"
MEASURED = ", measured"  # ends the result of a config that was trained and evaluated here
HEADING = """\
# Models

<!-- written by scripts/update_readme.py -->

Complete configs in `model_configs/`, also listed by `detzoo models`. `detzoo models --paper=fpn` lists the rows of a
paper's result tables with the config of each row. [One page per paper](papers/README.md) explains the differences.

Reading these tables: parameters include the moving statistics of batch normalization. Multiply-adds are for one
image (640 x 480 if the input follows the image, one crop for classifiers), without post-processing and masks. Results
are those published for the design unless they end with "measured". Two-stage configs follow
[their guide](two_stage_detectors.md).

"""
COLUMNS = "| config | input | parameters | multiply-adds | result |\n|---|---|---:|---:|---|\n"


def all_models(groups: dict[str, list[pathlib.Path]], rows: dict[str, ModelRow]) -> str:
    """Returns the page of all models, with one table per kind of detector."""
    parts = [HEADING]
    for name, files in groups.items():
        lines = "".join(line(file, rows.get(file.stem), "../") for file in files)
        parts.append(f"## {name}\n\n{COLUMNS}{lines}\n")
    return "".join(parts).rstrip("\n") + "\n"


def measured_models(groups: dict[str, list[pathlib.Path]], rows: dict[str, ModelRow]) -> str:
    """Returns the table of the models that were trained and evaluated on the embedded data set."""
    files = [file for members in groups.values() for file in members if result_of(file).endswith(MEASURED)]
    return COLUMNS + "".join(line(file, rows.get(file.stem), "") for file in files)


def result_of(file: pathlib.Path) -> str:
    """Returns the result that the header of a config states."""
    return short_result(read_header(file.read_text(encoding="utf-8")).result).replace("|", "\\|")


def line(file: pathlib.Path, row: ModelRow | None, root: str) -> str:
    """Returns the table line of a config; ``root`` leads from the page to the project's root."""
    numbers = "- | - | -"
    if row is not None:
        numbers = f"{row.input_size} | {row.parameters / 1e6:.1f} M | {row.multiply_adds / 1e9:.2f} B"
    return f"| [{file.stem}]({root}model_configs/{file.name}) | {numbers} | {result_of(file)} |\n"


def main() -> int:
    """Writes or checks both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is stale")
    arguments = parser.parse_args()
    folder = ROOT / "model_configs"
    rows = read_table(folder)
    groups = grouped(sorted(folder.glob("*.config"), key=lambda file: natural(file.stem)))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        print(f"README.md lacks the lines {BEGIN} and {END}", file=sys.stderr)
        return 1
    before, rest = text.split(BEGIN)
    pages = {
        readme: f"{before}{BEGIN}\n{measured_models(groups, rows)}{END}{rest.split(END)[1]}",
        ROOT / "docs" / "models.md": all_models(groups, rows),
    }
    stale = [page for page, new in pages.items() if not page.is_file() or page.read_text(encoding="utf-8") != new]
    for page in stale:
        if arguments.check:
            print(f"{page.relative_to(ROOT)} is stale; run scripts/update_readme.py", file=sys.stderr)
        else:
            page.write_text(pages[page], encoding="utf-8")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
