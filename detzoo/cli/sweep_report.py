"""``detzoo sweep report``."""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from detzoo.errors import UsageError
from detzoo.sweep.measured import ACCURACIES, main_accuracy

SUMMARY = "Figures and one self-contained page from a sweep's results.csv."
DESCRIPTION = """
    detzoo sweep report --output_dir=my_sweep
    detzoo sweep report --results=merged.csv --report_dir=report --metric=mAP@.50IOU

Writes report.html (figures, a table that sorts, the optimality frontier with the command of each point, a scatter to
explore; it needs no network) and figures/ with each figure as PNG and SVG. Everything is read from results.csv; of the
sweep's folder only configs and example images are taken in, where they exist. Points that failed or lack a value leave
gaps, and the page says why. It may be called while the sweep is still running.
"""
POSITIONAL = ()


def define_flags(flag_values: flags.FlagValues) -> None:
    """--output_dir or --results, --report_dir, --metric, --example_images."""
    flags.DEFINE_string("output_dir", "", "Folder of the sweep, with results.csv in it.", flag_values=flag_values)
    text = "A results.csv by its name, instead of --output_dir."
    flags.DEFINE_string("results", "", text, flag_values=flag_values)
    text = "Folder for the report; the folder of results.csv without it."
    flags.DEFINE_string("report_dir", "", text, flag_values=flag_values)
    text = "Accuracy to draw and to choose the frontier by; without it mAP, or AR@1000 where there are proposals only."
    flags.DEFINE_enum("metric", None, ACCURACIES, text, flag_values=flag_values)
    text = "Images of the sweep's examples/ to show detections on, separated by commas; the first few without it."
    flags.DEFINE_list("example_images", [], text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Reads, draws, writes, says where."""
    from detzoo.folders import make_folder
    from detzoo.sweep.results import read_results

    source = results_path(flag_values.output_dir, flag_values.results)
    rows = read_results(source)
    if not rows:
        raise UsageError(f"{source} has no row yet; `detzoo sweep` writes one for each point that is done")
    folder = make_folder(flag_values.report_dir or source.parent, "--report_dir")
    from detzoo.sweep.report.write import write_report

    metric = flag_values.metric or main_accuracy(rows)
    report = write_report(rows, source, folder, metric, flag_values.example_images, _progress)
    print(f"points   {report.num_points}")
    print(f"figures  {len(report.figures)} in {folder / 'figures'}, each as PNG and SVG")
    for figure in report.missing:
        number = f" [{figure.number}]" if figure.number else ""
        print(f"         left out: {figure.title}{number}: {figure.reason}")
    if report.num_examples:
        print(f"examples {report.num_examples} images with detections side by side, in the page")
    if report.examples_missing and (report.num_examples or flag_values.example_images):
        print(f"         left out: {report.examples_missing}")
    print(f"page     {report.page}")


def results_path(output_dir: str, results: str) -> pathlib.Path:
    """The results.csv that the flags name.

    Raises:
        UsageError: both or none is given.
    """
    if bool(output_dir) == bool(results):
        raise UsageError("give either --output_dir (the folder of the sweep) or --results (a results.csv)")
    return pathlib.Path(results) if results else pathlib.Path(output_dir) / "results.csv"


def _progress(words: str, done: int, total: int) -> None:
    if not sys.stderr.isatty():
        return
    end = "\n" if done == total else ""
    print(f"\r\033[K{done}/{total} {words}", end=end, file=sys.stderr, flush=True)
