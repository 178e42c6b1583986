"""Counts and histograms over checked records, as text, CSV rows and a picture."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from detzoo.config.label_map import LabelMap
from detzoo.datasets.drawing import printable_name
from detzoo.datasets.record_check import CheckedRecord

BAR_WIDTH = 40  # characters
MAX_CLASSES_SHOWN = 100
# Square root of the box area, in pixels of the image; 32 and 96 separate COCO's small, medium and large.
SIZE_EDGES_PX = (0, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, np.inf)
# Square root of the box area as a fraction of the image: what anchors see once every image has the same size.
SCALE_EDGES = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ASPECT_EDGES = (0, 0.2, 0.33, 0.5, 0.67, 0.8, 1.25, 1.5, 2, 3, 5, np.inf)  # width / height in pixels
DEFAULT_MAX_BOXES = 100  # max_number_of_boxes of an input reader


class Histogram(NamedTuple):
    """Counts of the bins between consecutive edges."""

    title: str
    edges: tuple[float, ...]
    counts: np.ndarray

    def rows(self) -> Iterator[tuple[str, int]]:
        """(bin, count) from the first to the last bin."""
        for low, high, count in zip(self.edges[:-1], self.edges[1:], self.counts):
            yield f"{low:g} and more" if np.isinf(high) else f"{low:g} .. {high:g}", int(count)


class RecordStatistics:
    """Grows record by record; memory does not depend on images, and is a few bytes an object."""

    def __init__(self, label_map: LabelMap | None) -> None:
        self._ids = {name: class_id for class_id, name in label_map.names.items()} if label_map else {}
        self.num_records = 0
        self.num_usable = 0
        self.objects_per_class: collections.Counter[str] = collections.Counter(dict.fromkeys(self._ids, 0))
        self.images_per_class: collections.Counter[str] = collections.Counter()
        self._sizes: collections.Counter[tuple[int, int]] = collections.Counter()
        self._objects_per_image: collections.Counter[int] = collections.Counter()
        self._sides_px: list[np.ndarray] = []
        self._scales: list[np.ndarray] = []
        self._aspects: list[np.ndarray] = []
        self._num_crowd = self._num_difficult = self._num_masks = 0

    def add(self, record: CheckedRecord) -> None:
        """Counts one record."""
        self.num_records += 1
        if not record.usable:
            return
        self.num_usable += 1
        self._sizes[record.size] += 1
        self._objects_per_image[len(record.class_names)] += 1
        self.objects_per_class.update(record.class_names)
        self.images_per_class.update(set(record.class_names))
        self._num_crowd += record.num_crowd
        self._num_difficult += record.num_difficult
        self._num_masks += record.num_masks
        heights_norm, widths_norm = (record.boxes_norm[:, 2:] - record.boxes_norm[:, :2]).T
        height, width = record.size
        self._scales.append(np.sqrt(heights_norm * widths_norm))
        self._sides_px.append(self._scales[-1] * np.sqrt(height * width))
        self._aspects.append(widths_norm * width / (heights_norm * height))

    def histograms(self) -> list[Histogram]:
        """Box size in pixels, box size as a fraction of the image, and aspect ratio."""
        made = []
        for title, edges, parts in (
            ("box size: square root of the area, pixels", SIZE_EDGES_PX, self._sides_px),
            ("box size: square root of the area, fraction of the image", SCALE_EDGES, self._scales),
            ("box aspect ratio: width / height", ASPECT_EDGES, self._aspects),
        ):
            values = np.concatenate(parts) if parts else np.zeros(0)
            counts = np.histogram(values, np.array(edges))[0]
            made.append(Histogram(title, tuple(float(edge) for edge in edges), counts))
        return made

    def class_rows(self) -> list[tuple[str, str, int, int]]:
        """(id or "", name, objects, images), most objects first."""
        ordered = sorted(self.objects_per_class.items(), key=lambda item: (-item[1], item[0]))
        return [(str(self._ids.get(name, "")), name, count, self.images_per_class[name]) for name, count in ordered]

    def text(self) -> str:
        """The counts, the classes and the histograms as lines of text."""
        return "\n".join([*self._count_lines(), "", *self._class_lines(), *self._histogram_lines()])

    def _count_lines(self) -> list[str]:
        num_objects = sum(self.objects_per_class.values())
        lines = [f"images:  {self.num_usable} usable of {self.num_records} records"]
        if not self.num_usable:
            return lines
        heights = _summary([height for (height, _), count in self._sizes.items() for _ in range(count)])
        widths = _summary([width for (_, width), count in self._sizes.items() for _ in range(count)])
        per_image = [number for number, count in self._objects_per_image.items() for _ in range(count)]
        lines += [
            f"         width {widths}, height {heights} pixels",
            f"         {self._objects_per_image[0]} without objects; objects an image: {_summary(per_image)}",
            f"objects: {num_objects}, of them crowd {self._num_crowd}, difficult {self._num_difficult}; "
            f"masks {self._num_masks}",
        ]
        if max(per_image) > DEFAULT_MAX_BOXES:
            over = sum(count for number, count in self._objects_per_image.items() if number > DEFAULT_MAX_BOXES)
            lines.append(
                f"         {over} images have more than {DEFAULT_MAX_BOXES} objects; training takes the first"
                f" {DEFAULT_MAX_BOXES} unless max_number_of_boxes in the input reader is raised to {max(per_image)}"
            )
        return lines

    def _class_lines(self) -> list[str]:
        rows = self.class_rows()
        if not rows:
            return []
        width = max(5, *(len(name) for _, name, _, _ in rows[:MAX_CLASSES_SHOWN]))
        lines = [f"{'id':>4}  {'class':<{width}}  {'objects':>8}  {'images':>7}"]
        lines += [
            f"{identifier:>4}  {name:<{width}}  {objects:>8}  {images:>7}"
            for identifier, name, objects, images in rows[:MAX_CLASSES_SHOWN]
        ]
        if len(rows) > MAX_CLASSES_SHOWN:
            lines.append(f"      ... and {len(rows) - MAX_CLASSES_SHOWN} more in classes.csv")
        empty = [name for _, name, objects, _ in rows if not objects]
        if empty:
            shown = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
            lines.append(f"without a single object: {len(empty)} classes of the label map ({shown})")
        return lines

    def _histogram_lines(self) -> list[str]:
        lines = []
        for histogram in self.histograms():
            total, most = int(histogram.counts.sum()), int(histogram.counts.max())
            lines += ["", histogram.title]
            for label, count in histogram.rows():
                bar = "#" * (-(-count * BAR_WIDTH // most) if most else 0)
                share = 100 * count / total if total else 0
                lines.append(f"  {label:<14} {count:>8} {share:>5.1f}%  {bar}".rstrip())
        return lines

    def draw(self, path: pathlib.Path, extra_font: str = "") -> None:
        """Writes the histograms and the most frequent classes as a PNG; the font is for what DejaVu Sans lacks."""
        from detzoo.figures import figure_settings

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
        rows = self.class_rows()[:25][::-1]
        axes[3].barh(range(len(rows)), [objects for _, _, objects, _ in rows])
        axes[3].set_yticks(range(len(rows)), [printable_name(name)[:24] for _, name, _, _ in rows], fontsize=8)
        axes[3].set_title("objects a class" + (" (the 25 most frequent)" if len(self.objects_per_class) > 25 else ""))
        axes[3].set_xlabel("objects")
        axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.savefig(path, dpi=100)


def _summary(values: list[int]) -> str:
    return f"{min(values)} to {max(values)} (median {int(np.median(values))})"
