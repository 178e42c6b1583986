"""report.html: an evaluation that explains itself, one page that needs no other file."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from detzoo.config.names import counted
from detzoo.evaluate.analysis.difference import Change, Difference, Measured
from detzoo.evaluate.analysis.errors import ErrorKind
from detzoo.evaluate.analysis.precision import RECALLS, THRESHOLDS
from detzoo.evaluate.analysis.summary import Analysis, ClassSummary, Group, JudgedImage
from detzoo.evaluate.coco import NOTHING_MEASURED
from detzoo.folders import write_atomically
from detzoo.pages.render import Picture, render

HERE = pathlib.Path(__file__).resolve().parent
MOST_CONFUSED_CLASSES = 60  # in the picture of the confusion matrix
MOST_NUMBERED_CLASSES = 12  # up to which its cells have numbers
MOST_CONFUSIONS = 25
MOST_CURVES = 200  # classes whose curves are drawn

# Okabe and Ito's palette (2008), which people with any kind of colour blindness can distinguish.
COLOURS = {
    ErrorKind.RIGHT: "#009E73",
    ErrorKind.CLASSIFICATION: "#E69F00",
    ErrorKind.LOCALIZATION: "#56B4E9",
    ErrorKind.BOTH: "#CC79A7",
    ErrorKind.DUPLICATE: "#F0E442",
    ErrorKind.BACKGROUND: "#0072B2",
    ErrorKind.MISSED: "#D55E00",
    ErrorKind.IGNORED: "#999999",
}
MEANINGS = {
    ErrorKind.CLASSIFICATION: "on an object (IoU .5 or more) of another class",
    ErrorKind.LOCALIZATION: "near an object of its class, with an IoU of .1 to .5",
    ErrorKind.BOTH: "near an object of another class, with an IoU of .1 to .5",
    ErrorKind.DUPLICATE: "on an object that a better detection has found",
    ErrorKind.BACKGROUND: "near no object, IoU below .1",
    ErrorKind.MISSED: "an object that no detection finds, nor would find with another class or place",
}


class DrawnImage(NamedTuple):
    """One of the worst images, drawn twice; None if its pixels are not available."""

    judged: JudgedImage
    truth: Picture | None
    detections: Picture | None


def colour_of(kind: ErrorKind) -> tuple[int, int, int]:
    """Returns the colour of a verdict, red, green and blue in 0..255."""
    red, green, blue = bytes.fromhex(COLOURS[kind][1:])
    return red, green, blue


def write_page(
    path: pathlib.Path,
    measured: Measured,
    *,
    descriptions: Mapping[str, str],
    environment: Sequence[tuple[str, Any]] = (),
    notices: Sequence[str] = (),
    worst: Sequence[DrawnImage] = (),
    missing_pictures: str = "",
    compared: tuple[Measured, Difference] | None = None,
) -> None:
    """Writes the page.

    Args:
        path: Path of the file.
        measured: The evaluation; its label is the title.
        descriptions: Explanation of each metric by its name.
        environment: Names and values of what was evaluated.
        notices: Warnings above everything.
        worst: The worst images.
        missing_pictures: Reason why images are not drawn, "" if all are.
        compared: Another evaluation on the same images, and the difference.
    """
    analysis = measured.analysis
    page = render(
        HERE / "page.html",
        title=measured.label,
        summary=_summary(measured),
        notices=notices,
        environment=environment,
        a=analysis,
        unit="mask" if analysis.by_masks else "box",
        metrics=[(name, _number(value), descriptions.get(name, "")) for name, value in measured.result.metrics.items()],
        kinds=ErrorKind,
        meanings=MEANINGS,
        colours=COLOURS,
        error_rows=_error_rows(analysis),
        precision_lines=_precision_lines(analysis),
        score_lines=_score_lines(analysis),
        class_columns=_class_columns(measured),
        class_rows=_class_rows(measured),
        class_curves=[_class_curves(each) for each in _most_frequent(analysis.classes, MOST_CURVES)],
        matrix=_matrix(analysis),
        confusions=_confusions(analysis),
        sizes=_group_rows(analysis.by_size),
        counts=_group_rows(analysis.by_count),
        worst=worst,
        missing_pictures=missing_pictures,
        before=compared[0] if compared else None,
        difference=compared[1] if compared else None,
        changes=_change_rows,
        percent=_percent,
        number=_number,
    )
    write_atomically(path, page)


def _summary(measured: Measured) -> str:
    analysis = measured.analysis
    words = [f"{counted(analysis.num_images, 'image')}, {counted(analysis.num_objects, 'object')}"]
    names = [name for name in measured.result.metrics if "mAP" in name][:2]
    words += [
        f"{name} {_percent(measured.result.metrics[name])} %" for name in names if measured.result.metrics[name] >= 0
    ]
    text = "; ".join(words) + "."
    if analysis.curves.best_threshold is None:
        return f"{text} No detection is right at IoU .5."
    shown = f"{analysis.curves.best_threshold:g}"
    return f"{text} Best F1 {analysis.curves.best_f1:.3f}, for detections with a score of {shown} or more."


def _percent(value: float) -> str:
    return "–" if value == NOTHING_MEASURED or np.isnan(value) else f"{100.0 * value:.1f}"


def _number(value: float) -> str:
    return "–" if value == NOTHING_MEASURED or np.isnan(value) else f"{value:.3f}"


def _error_rows(analysis: Analysis) -> list[tuple[ErrorKind, int, str, float]]:
    """Returns (kind, count, cost in points, share of the largest cost)."""
    largest = max((cost.cost for cost in analysis.errors.values()), default=0.0) or 1.0
    return [
        (kind, cost.num_errors, f"{100.0 * cost.cost:.2f}", cost.cost / largest)
        for kind, cost in analysis.errors.items()
    ]


def curve_path(values: np.ndarray, places: np.ndarray) -> Markup:
    """Returns an SVG path in 0..100, y upwards, of a curve over [0, 1]; points within level parts are left out."""
    known = np.flatnonzero(~np.isnan(values))
    xs, ys = np.round(100.0 * places[known], 1), np.round(100.0 * values[known], 1)
    is_level = np.zeros(len(ys), bool)
    is_level[1:-1] = (ys[1:-1] == ys[:-2]) & (ys[1:-1] == ys[2:])
    points = [f"{x:g} {y:g}" for x, y in zip(xs[~is_level], ys[~is_level])]
    return Markup(f"M{'L'.join(points)}" if points else "M0 0")


def _precision_lines(analysis: Analysis) -> list[tuple[str, str, str]]:
    return [
        (f"IoU {overlap:.2f}", f"hue{row}", curve_path(curve, RECALLS))
        for row, (overlap, curve) in enumerate(analysis.precision.items())
    ]


def _score_lines(analysis: Analysis) -> list[tuple[str, str, str]]:
    curves = analysis.curves
    parts = {"F1": curves.f1, "precision": curves.precision, "recall": curves.recall}
    return [(name, f"hue{row}", curve_path(each, THRESHOLDS)) for row, (name, each) in enumerate(parts.items())]


def _class_curves(each: ClassSummary) -> dict[str, Any]:
    lines = [
        ("precision over recall", "hue0", curve_path(each.precision, RECALLS)),
        ("F1 over score", "hue1", curve_path(each.curves.f1, THRESHOLDS)),
    ]
    return {"name": each.name, "lines": lines, "threshold": each.curves.best_threshold, "summary": each}


def _most_frequent(classes: Sequence[ClassSummary], most: int) -> list[ClassSummary]:
    """Returns up to ``most`` classes with objects, in their order."""
    found = [each for each in classes if each.num_objects]
    least = sorted((each.num_objects for each in found), reverse=True)[:most][-1:] or [0]
    return [each for each in found if each.num_objects >= least[0]][:most]


_COUNT_COLUMNS = (
    ("objects", "objects to find, without crowds"),
    ("images", "images with such an object"),
)
_THRESHOLD_COLUMNS = (
    ("best F1", "the highest harmonic mean of precision and recall at IoU .5"),
    ("at score", "the score threshold of the best F1"),
    ("right", "right detections at the best threshold of all classes"),
    ("wrong", "wrong detections at the best threshold of all classes"),
    ("missed", "objects that are not found at the best threshold of all classes"),
)


def _class_columns(measured: Measured) -> list[dict[str, str]]:
    precisions = [(f"{name} %".replace("0IOU", ""), "average precision") for name in _class_metrics(measured)]
    columns = [("class", ""), *_COUNT_COLUMNS, *precisions, *_THRESHOLD_COLUMNS]
    worse_high = ("wrong", "missed")
    return [
        {
            "heading": heading,
            "classes": "" if heading == "class" else "number",
            "meaning": meaning,
            "better": "" if heading in worse_high else "more",
        }
        for heading, meaning in columns
    ]


def _class_metrics(measured: Measured) -> list[str]:
    return list(dict.fromkeys(name for row in measured.result.per_class.values() for name in row if name != "objects"))


def _class_rows(measured: Measured) -> list[list[tuple[str, Any]]]:
    """Returns (text, value to sort by) of each cell; a class without objects and detections is left out."""
    rows = []
    for each in measured.analysis.classes:
        if not each.num_objects and not each.num_wrong:
            continue
        precisions = [
            measured.result.per_class.get(each.name, {}).get(name, NOTHING_MEASURED)
            for name in _class_metrics(measured)
        ]
        threshold = each.curves.best_threshold
        rows.append(
            [
                (each.name, each.name),
                (f"{each.num_objects:,}", each.num_objects),
                (f"{each.num_images:,}", each.num_images),
                *((_percent(value), None if value == NOTHING_MEASURED else value) for value in precisions),
                ("–", None) if threshold is None else (f"{each.curves.best_f1:.3f}", each.curves.best_f1),
                ("–", None) if threshold is None else (f"{threshold:g}", threshold),
                *((f"{count:,}", count) for count in (each.num_right, each.num_wrong, each.num_missed)),
            ]
        )
    return rows


def _matrix(analysis: Analysis) -> dict[str, Any]:
    """Returns the cells of the confusion matrix to draw: those above 0 of the most frequent classes."""
    confusion = analysis.confusion
    events = confusion.sum(0)[:-1] + confusion.sum(1)[:-1]
    chosen = np.sort(np.argsort(-events, kind="stable")[:MOST_CONFUSED_CLASSES])
    chosen = chosen[events[chosen] > 0]
    rows = np.append(chosen, len(confusion) - 1)
    names = [*(analysis.classes[row].name for row in chosen), "background"]
    part = confusion[np.ix_(rows, rows)]
    totals = np.maximum(confusion[rows].sum(axis=1), 1)
    last, cells = len(rows) - 1, []
    for row, column in np.argwhere(part):
        look, words = _look(names, row, column, last)
        count = int(part[row, column])
        cells.append(
            {"row": row, "column": column, "count": count, "share": count / totals[row], "look": look, "words": words}
        )
    left_out = int((events > 0).sum()) - len(chosen)
    is_small = len(chosen) <= MOST_NUMBERED_CLASSES
    return {"names": names, "cells": cells, "left_out": left_out, "side": 34 if is_small else 13, "numbered": is_small}


def _look(names: Sequence[str], row: int, column: int, background: int) -> tuple[str, str]:
    """Returns the class of a cell's colour, and the meaning of the cell."""
    if row == column:
        return "right", f"{names[row]}: right"
    if row == background:
        return "lost", f"no object, detected as {names[column]}"
    if column == background:
        return "lost", f"{names[row]}: not detected"
    return "wrong", f"{names[row]}: detected as {names[column]}"


def _confusions(analysis: Analysis) -> list[tuple[str, str, str, str]]:
    """Returns (true class, detected class, count, share of the class's objects), the most frequent first."""
    between = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_CONFUSIONS]
    found = []
    for true, detected in zip(*np.unravel_index(order, between.shape)):
        if count := int(between[true, detected]):
            total = int(analysis.confusion[true].sum())
            share = f"{100.0 * count / total:.1f} %"
            found.append((analysis.classes[true].name, analysis.classes[detected].name, f"{count:,}", share))
    return found


def _group_rows(groups: Sequence[Group]) -> list[tuple[str, float, list[str]]]:
    return [
        (
            group.label,
            max(group.average_precision_50, 0.0),
            [
                f"{group.num_images:,}",
                f"{group.num_objects:,}",
                _percent(group.average_precision),
                _percent(group.average_precision_50),
            ],
        )
        for group in groups
    ]


def _change_rows(changes: Sequence[Change], scale: float = 100.0, digits: int = 1) -> list[tuple[str, ...]]:
    """Returns (name, before, after, difference with its sign) as texts."""
    return [
        (
            change.name,
            f"{scale * change.before:.{digits}f}",
            f"{scale * change.after:.{digits}f}",
            _signed(scale * change.gain, digits),
        )
        for change in changes
    ]


def _signed(value: float, digits: int) -> str:
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0.0:.{digits}f}"
