"""Counts and histograms over checked records, as text, CSV rows and a picture."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.config.label_map import LabelMap
from detzoo.datasets.drawing import printable_name
from detzoo.datasets.record_check import CheckedRecord
from detzoo.figures import figure_settings

BAR_WIDTH = 40  # characters
MAX_CLASSES_SHOWN = 100
MAX_CLASSES_DRAWN = 25
DEFAULT_MAX_BOXES = 100  # max_number_of_boxes of an input reader
# Title -> edges of the bins. 32 and 96 pixels separate COCO's small, medium and large objects. Fractions of the image
# are what anchors meet once every image has the same size.
EDGES = {
    "box size: square root of the area, pixels": (0, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, np.inf),
    "box size: square root of the area, fraction of the image": (
        *(0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    ),
    "box aspect ratio: width / height": (0, 0.2, 0.33, 0.5, 0.67, 0.8, 1.25, 1.5, 2, 3, 5, np.inf),
}


class Histogram(NamedTuple):
    """Counts of the bins between consecutive edges."""

    title: str
    edges: tuple[float, ...]
    counts: np.ndarray

    def rows(self) -> Iterator[tuple[str, int]]:
        """Yields (bin, count) from the first to the last bin."""
        for low, high, count in zip(self.edges[:-1], self.edges[1:], self.counts):
            yield f"{low:g} and more" if np.isinf(high) else f"{low:g} .. {high:g}", int(count)


class RecordStatistics:
    """Grows record by record; memory is a few bytes per image and per object."""

    def __init__(self, label_map: LabelMap | None) -> None:
        self._ids = label_map.id_by_name if label_map else {}
        self.num_records = 0
        self._objects_per_class = collections.Counter(dict.fromkeys(self._ids, 0))
        self._images_per_class: collections.Counter[str] = collections.Counter()
        self._sizes: list[tuple[int, int]] = []
        self._num_objects: list[int] = []
        self._measures: list[np.ndarray] = []  # [3, N]: side in pixels, side as a fraction, aspect ratio
        self._flagged = np.zeros(3, np.int64)  # crowds, difficult ones, masks

    def add(self, record: CheckedRecord) -> None:
        """Counts one record."""
        self.num_records += 1
        if not record.usable:
            return
        self._sizes.append(record.size)
        self._num_objects.append(len(record.class_names))
        self._objects_per_class.update(record.class_names)
        self._images_per_class.update(set(record.class_names))
        self._flagged += (record.num_crowd, record.num_difficult, record.num_masks)
        heights_norm, widths_norm = (record.boxes_norm[:, 2:] - record.boxes_norm[:, :2]).T
        height, width = record.size
        scales = np.sqrt(heights_norm * widths_norm)
        ratios = widths_norm * width / (heights_norm * height)
        self._measures.append(np.stack([scales * np.sqrt(height * width), scales, ratios]))

    def histograms(self) -> list[Histogram]:
        """Returns the histograms of box size in pixels, of box size as a fraction of the image, and of aspect ratio."""
        values = np.concatenate([np.zeros((3, 0)), *self._measures], axis=1)
        counts = [np.histogram(row, np.array(edges))[0] for row, edges in zip(values, EDGES.values())]
        return [Histogram(title, edges, row) for (title, edges), row in zip(EDGES.items(), counts)]

    def class_rows(self) -> list[tuple[str, str, int, int]]:
        """Returns (id or "", name, objects, images) per class, most objects first."""
        ordered = sorted(self._objects_per_class.items(), key=lambda item: (-item[1], item[0]))
        return [(str(self._ids.get(name, "")), name, count, self._images_per_class[name]) for name, count in ordered]

    def text(self) -> str:
        """Returns the counts, the classes and the histograms as lines of text."""
        return "\n".join([*self._count_lines(), "", *self._class_lines(), *self._histogram_lines()])

    def facts(self) -> list[tuple[str, list[str]]]:
        """Returns what was counted of images and of objects, in lines."""
        images = [f"{len(self._sizes)} usable of {self.num_records} records"]
        if not self._sizes:
            return [("images", images)]
        heights, widths = map(_summary, zip(*self._sizes))
        num_objects = np.array(self._num_objects)
        crowds, difficult, masks = self._flagged
        images += [
            f"width {widths}, height {heights} pixels",
            f"{sum(num_objects == 0)} without objects; objects per image: {_summary(num_objects)}",
        ]
        objects = [f"{sum(num_objects)}, of them crowd {crowds}, difficult {difficult}; masks {masks}"]
        if max(num_objects) > DEFAULT_MAX_BOXES:
            objects.append(
                f"{sum(num_objects > DEFAULT_MAX_BOXES)} images have more than {DEFAULT_MAX_BOXES} objects;"
                f" training takes the first {DEFAULT_MAX_BOXES} unless max_number_of_boxes in the input reader is"
                f" raised to {max(num_objects)}"
            )
        return [("images", images), ("objects", objects)]

    def _count_lines(self) -> list[str]:
        return [
            f"{f'{name}:' if not place else '':<9}{line}"
            for name, lines in self.facts()
            for place, line in enumerate(lines)
        ]

    def _class_lines(self) -> list[str]:
        rows = self.class_rows()
        if not rows:
            return []
        shown = rows[:MAX_CLASSES_SHOWN]
        width = max(5, *(len(name) for _, name, _, _ in shown))
        lines = [
            f"{class_id:>4}  {name:<{width}}  {objects:>8}  {images:>7}"
            for class_id, name, objects, images in [("id", "class", "objects", "images"), *shown]
        ]
        if len(rows) > MAX_CLASSES_SHOWN:
            lines.append(f"      ... and {len(rows) - MAX_CLASSES_SHOWN} more in classes.csv")
        empty = [name for _, name, objects, _ in rows if not objects]
        if empty:
            named = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
            lines.append(f"without a single object: {len(empty)} classes of the label map ({named})")
        return lines

    def _histogram_lines(self) -> list[str]:
        lines = []
        for histogram in self.histograms():
            total, most = max(histogram.counts.sum(), 1), max(histogram.counts.max(), 1)
            lines += ["", histogram.title]
            for label, count in histogram.rows():
                bar = "#" * -(-count * BAR_WIDTH // most)
                lines.append(f"  {label:<14} {count:>8} {100 * count / total:>5.1f}%  {bar}".rstrip())
        return lines

    def draw(self, path: pathlib.Path, extra_font: str = "") -> None:
        """Writes the histograms and the most frequent classes as a PNG; the font is for what DejaVu Sans lacks."""
        with figure_settings(extra_font):
            self._draw(path)

    def _draw(self, path: pathlib.Path) -> None:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(12, 9), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        for axis, histogram in zip(axes, self.histograms()):
            labels, counts = zip(*histogram.rows())
            axis.bar(range(len(counts)), counts)
            axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
            axis.set_title(histogram.title)
            axis.set_ylabel("objects")
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        rows = self.class_rows()[:MAX_CLASSES_DRAWN][::-1]
        axes[3].barh(range(len(rows)), [objects for _, _, objects, _ in rows])
        axes[3].set_yticks(range(len(rows)), [printable_name(name)[:24] for _, name, _, _ in rows], fontsize=8)
        is_part = len(self._objects_per_class) > MAX_CLASSES_DRAWN
        axes[3].set_title("objects per class" + (f" (the {MAX_CLASSES_DRAWN} most frequent)" if is_part else ""))
        axes[3].set_xlabel("objects")
        axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.savefig(path, dpi=100)


def _summary(values: Sequence[int] | np.ndarray) -> str:
    return f"{min(values)} to {max(values)} (median {int(np.median(values))})"
